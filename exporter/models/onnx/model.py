"""An ONNX model: a parsed file that is never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from google.protobuf.message import DecodeError
from onnx import ModelProto

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph
from exporter.models.model import Runner, RunOptions
from exporter.models.onnx.apply import apply_plan, remap_in
from exporter.models.onnx.draw import draw
from exporter.models.onnx.order import in_order
from exporter.models.onnx.outside import Outside, is_outside, write_beside
from exporter.models.onnx.precision import precision_of
from exporter.models.onnx.protos import (
    content_of,
    every_tensor,
    is_text_whole,
    opset_of,
    read_tensor,
)
from exporter.plan import Plan
from exporter.remap import Remap

_LARGEST = 2**31 - 1  # bytes of one protobuf message


def open_file(path: Path) -> OnnxModel:
    """Open an ONNX file; its content is checked, its suffix is not.

    Raises:
        UsageError: the file cannot be read.
        ModelError: empty, truncated, damaged, another kind of file, or with files beside it that
            are missing or not as they must be.
    """
    try:
        too_large = path.stat().st_size > _LARGEST
        content = b"" if too_large else path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if too_large:
        raise ModelError(
            f"{path.name} is larger than the 2 GB that an .onnx file can hold",
            "save the model with its weights in a file beside it",
        )
    model = from_bytes(content, path.name, path.parent)
    model.sha256 = hashlib.sha256(content).hexdigest()
    return model


def from_bytes(content: bytes, name: str, folder: Path | None = None) -> OnnxModel:
    """Open the content of an ONNX file that is in memory (raises as `open_file` does)."""
    if not content:
        raise ModelError(f"{name} is empty")
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{name} is not an ONNX file, or it is damaged or cut short") from error
    return from_proto(proto, name, folder)


def from_proto(proto: ModelProto, name: str, folder: Path | None = None) -> OnnxModel:
    """A model that exists in memory alone.

    Args:
        proto: kept, never changed; must not be changed by others either.
        name: what messages and the remap call it.
        folder: where the files lie that hold constants of it, if there are any.

    Raises:
        ModelError: it holds no graph or no operator set, a file beside it is missing or not as it
            must be, or the remap that it carries is damaged.
    """
    if not (proto.HasField("graph") and proto.graph.output):
        raise ModelError(
            f"{name} is not an ONNX model, or it is cut short: no graph with an output"
        )
    if not is_text_whole(proto):
        raise ModelError(f"{name} is damaged: a text in it is not valid UTF-8")
    if not opset_of(proto):
        raise ModelError(f"{name} is not an ONNX model, or it is cut short: no standard opset")
    outside = next((t for t in every_tensor(proto.graph) if is_outside(t)), None)
    if outside is None:
        return OnnxModel(proto, name)
    if folder is None:
        raise ModelError(
            f"{name} keeps the constant {outside.name!r} in another file",
            "save the model with its weights inside",
        )
    files = Outside(folder)
    files.check(proto)
    return OnnxModel(proto, name, files)


class OnnxModel:
    """See `exporter.models.model.Model`.

    Raises:
        ModelError: the graph does not hold together, or the remap that it carries is damaged.
    """

    kind: str = "onnx"

    def __init__(self, proto: ModelProto, name: str, outside: Outside | None = None) -> None:
        self.name = name
        self.sha256: str | None = None
        self.remap = _remap_in(proto, name)
        self._proto = in_order(proto)
        self._outside = outside
        self._drawing = draw(self._proto, outside.read if outside is not None else read_tensor)
        self.precision = precision_of(self._drawing.graph)

    @property
    def proto(self) -> ModelProto:
        """The parsed file, to be read only."""
        return self._proto

    def graph(self) -> Graph:
        """The neutral picture; drawn once."""
        return self._drawing.graph

    def apply(self, plan: Plan) -> Self:
        """A new model with the plan's edits made; this one stays as it is."""
        return type(self)(apply_plan(self._proto, self._drawing, plan), self.name, self._outside)

    def runner(self, options: RunOptions) -> Runner:
        """The model in onnxruntime; ModelError if it does not load there."""
        from exporter.models.onnx.runtime import OnnxRunner  # noqa: PLC0415 - only where it runs

        folder = self._outside.folder if self._outside is not None else None
        return OnnxRunner(self._proto, self.name, options, folder)

    def to_bytes(self) -> bytes:
        """The file's content: the same for the same model in every process.

        What lies in other files stays there, and is only named.
        """
        return content_of(self._proto, self.name)

    def write(self, path: Path) -> None:
        """Write the file at exactly this path. Use `files.write_whole` to have it appear whole.

        Constants of a model that has files beside it go into one such file in the same folder; its
        name tells its content, so that it never takes the place of another model's.
        """
        if self._outside is None:
            path.write_bytes(self.to_bytes())
        else:
            write_beside(self._proto, self._outside, path, Path(self.name).stem)


def _remap_in(proto: ModelProto, name: str) -> Remap | None:
    try:
        return remap_in(proto)
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}", error.hint) from error
