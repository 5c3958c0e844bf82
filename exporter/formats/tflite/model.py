"""A TFLite file as a model: draws its graph, applies plans, runs, is written."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from exporter.errors import interpreting
from exporter.formats.executor import active_executor
from exporter.formats.isolation import runner_of
from exporter.formats.model import Runner, RunOptions, in_turn
from exporter.formats.structure import Structure
from exporter.formats.tflite import schema
from exporter.formats.tflite.apply import REMAP, apply_plan, precision_in, remap_in
from exporter.formats.tflite.draw import Drawing, draw
from exporter.formats.tflite.labels import check_archive
from exporter.formats.tflite.layout import Layout
from exporter.formats.tflite.pack import pack
from exporter.formats.tflite.precision import precision_of
from exporter.formats.tflite.starting_at import start_at
from exporter.formats.tflite.structure import structure_of
from exporter.formats.tflite.validate import check_bounds
from exporter.formats.tflite.variables import fold_variables
from exporter.graph import Graph
from exporter.graph.edits import Plan
from exporter.graph.multiply_adds import multiply_adds
from exporter.remap import Remap


class TfliteModel:
    """See `exporter.formats.model.Model`.

    The content is read when something of it is needed: a result that is only written is never read.

    Attributes:
        content: the file's bytes.
        layout: where its objects are.
    """

    kind: str = "tflite"
    sha256: str | None
    remap: Remap | None
    stated_precision: str | None
    precision: str
    layout: Layout
    _drawing: Drawing

    def __init__(self, content: bytes, name: str) -> None:
        """Keep the content; `read` checks it."""
        self.content = content
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if name == "sha256":
            self.sha256 = hashlib.sha256(self.content).hexdigest()
            return self.sha256
        if name not in type(self).__annotations__ or "_drawing" in self.__dict__:
            raise AttributeError(name)
        self.read()
        return getattr(self, name)

    def read(self) -> None:
        """Check the content and draw its graph.

        Raises:
            ModelError: not a TFLite file, truncated, damaged, or with weights in another file.
        """
        self.layout = schema.layout_of(self.content, self.name)
        file = self._opened()
        check_bounds(file.model, self.name)
        check_archive(file, self.content, self.name)
        fold_variables(file)
        self.remap = remap_in(file)
        self.stated_precision = precision_in(file)
        self._drawing = draw(file)
        self.precision = precision_of(self._drawing.graph)

    def graph(self) -> Graph:
        return self._drawing.graph

    @in_turn
    def apply(self, plan: Plan) -> Self:
        """A new model with the plan's edits made; equal plans give equal bytes."""
        with interpreting(f"applying the cut to {self.name}"):
            file = self._file()
            apply_plan(file, self._drawing, plan)
            return type(self)(pack(file, self.name), self.name)

    def starting_at(self, tensors: Collection[str]) -> Self:
        """The part of the file from these tensors on, which become its first inputs."""
        file = self._file()
        start_at(file, self._drawing, tensors)
        return type(self)(pack(file, self.name), self.name)

    def structure(self) -> Structure:
        """Everything that decides the results of the file."""
        made = structure_of(self._file(), REMAP)
        return replace(made, names={str(i): n for n, i in self._drawing.tensors.items()})

    def runner(self, options: RunOptions) -> Runner:
        ends = self._drawing.inputs, self._drawing.outputs
        if executor := active_executor():
            return executor.runner(self, options, ends)
        from exporter.formats.tflite.runtime import LiteRtRunner

        custom = self._drawing.custom_operators
        load = partial(LiteRtRunner, self.content, self.name, ends, options, custom)
        work = partial(multiply_adds, self.graph())
        action, size = f"LiteRT running {self.name}", len(self.content)
        return runner_of(action, size, load, options.threads, work)

    def _opened(self) -> schema.File:
        file = schema.unpack(self.content, self.layout)
        schema.bring_inside(file, self.content, self.name)
        return file

    def _file(self) -> schema.File:
        """The file as records that may be edited."""
        file = self._opened()
        fold_variables(file)
        return file

    def write(self, path: Path) -> None:
        path.write_bytes(self.content)
