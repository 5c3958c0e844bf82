"""A TFLite file as a model: shows itself, applies plans, runs, is written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from exporter.formats.model import RunOptions
from exporter.formats.tflite import schema
from exporter.formats.tflite.apply import apply_plan, carried
from exporter.formats.tflite.draw import draw
from exporter.formats.tflite.label_files import check_whole
from exporter.formats.tflite.precision import precision
from exporter.formats.tflite.runtime import LiteRtRunner, verify
from exporter.formats.tflite.validate import check_bounds
from exporter.graph import Graph
from exporter.graph.edits import Plan
from exporter.remap import Remap


class TfliteModel:
    """See `exporter.formats.model.Model`.

    Attributes:
        content: the file's bytes.
    """

    kind: str = "tflite"

    def __init__(self, content: bytes, name: str) -> None:
        """Check the content and draw it.

        Raises:
            ModelError: not a TFLite file, truncated, damaged, or with weights in another file.
        """
        schema.check_start(content, name)
        verify(content, name)
        file = _unpacked(content, name)
        self.content = content
        self.name = name
        self.sha256: str | None = hashlib.sha256(content).hexdigest()
        self.remap: Remap | None = carried(file)
        self._picture = draw(file)
        self.precision = precision(self._picture.graph)

    def graph(self) -> Graph:
        return self._picture.graph

    def apply(self, plan: Plan) -> Self:
        """A new model with the plan's edits made; deterministic bytes."""
        file = _unpacked(self.content, self.name)
        apply_plan(file, self._picture, plan)
        return type(self)(schema.pack(file, self.name), self.name)

    def runner(self, options: RunOptions) -> LiteRtRunner:
        ends = self._picture.inputs, self._picture.outputs
        return LiteRtRunner(self.content, self.name, ends, options)

    def write(self, path: Path) -> None:
        path.write_bytes(self.content)


def _unpacked(content: bytes, name: str) -> schema.File:
    file = schema.unpack(content)
    schema.bring_inside(file, content, name)
    check_bounds(file.model, name)
    check_whole(file, content, name)
    return file
