"""An ONNX model: a parsed file that is never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from google.protobuf.message import DecodeError
from onnx import ModelProto

from exporter.errors import ModelError, UsageError
from exporter.formats.model import Runner, RunOptions
from exporter.formats.onnx import write_large
from exporter.formats.onnx.apply import apply_plan, remap_in
from exporter.formats.onnx.draw import draw
from exporter.formats.onnx.external_data import Outside, is_outside, parsed, write_beside
from exporter.formats.onnx.order import in_order
from exporter.formats.onnx.precision import precision_of
from exporter.formats.onnx.protos import (
    content_of,
    every_tensor,
    is_text_whole,
    opset_of,
    read_tensor,
)
from exporter.graph import Graph
from exporter.graph.edits import Plan
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
        size = path.stat().st_size
        if size > _LARGEST:
            raise ModelError(
                f"{path.name} is larger than the 2 GB that an .onnx file can hold",
                "save the model with its weights in a file beside it",
            )
        if not size:
            raise ModelError(f"{path.name} is empty")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        proto, content = parsed(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise _damaged(path.name) from error
    model = from_proto(proto, path.name, Outside(path.parent, content))
    model.sha256 = sha256
    return model


def from_bytes(content: bytes, name: str) -> OnnxModel:
    """Open the content of an ONNX file that is in memory (raises as `open_file` does)."""
    if not content:
        raise ModelError(f"{name} is empty")
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise _damaged(name) from error
    return from_proto(proto, name)


def _damaged(name: str) -> ModelError:
    return ModelError(
        f"{name} is not an ONNX file, or it is damaged or cut short", "save or copy the model again"
    )


def from_proto(proto: ModelProto, name: str, files: Outside | None = None) -> OnnxModel:
    """A model that exists in memory, but for constants that lie elsewhere.

    Args:
        proto: kept, never changed; must not be changed by others either.
        name: what messages and the remap call it.
        files: what holds constants of it, if anything does.

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
    if files is None:
        raise ModelError(
            f"{name} keeps the constant {outside.name!r} in another file",
            "save the model with its weights inside",
        )
    files.check(proto)
    return OnnxModel(proto, name, files)


class OnnxModel:
    """See `exporter.formats.model.Model`.

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
        self._has_files = (
            any(map(outside.is_beside, every_tensor(proto.graph))) if outside else False
        )
        read = outside.read if outside is not None else read_tensor
        self._drawing = draw(self._proto, read)
        self.precision = precision_of(self._drawing.graph)

    @property
    def proto(self) -> ModelProto:
        """The parsed file, to be read only; large constants of a large one are left in it."""
        return self._proto

    def graph(self) -> Graph:
        """The neutral picture; drawn once."""
        return self._drawing.graph

    def apply(self, plan: Plan) -> Self:
        """A new model with the plan's edits made; this one stays as it is."""
        return type(self)(apply_plan(self._proto, self._drawing, plan), self.name, self._outside)

    def runner(self, options: RunOptions) -> Runner:
        """The model in onnxruntime; ModelError if it does not load there."""
        from exporter.formats.onnx.runtime import OnnxRunner  # noqa: PLC0415 - only where it runs

        return OnnxRunner(self._proto, self.name, options, self._outside)

    def to_bytes(self) -> bytes:
        """The file's content: the same for the same model in every process.

        What lies in other files stays there, and is only named.
        """
        if self._outside is None or self._outside.has_files:
            return content_of(self._proto, self.name)
        return write_large.content_of(self._proto, self._outside)

    def write(self, path: Path) -> None:
        """Write the file at exactly this path. To write atomically, use `output.files`.

        Constants of a model that has files beside it go into one such file in the same folder; its
        name tells its content, so that it never takes the place of another model's.
        """
        if self._outside is None:
            path.write_bytes(self.to_bytes())
        elif self._outside.has_files:
            write_beside(self._proto, self._outside, path, Path(self.name).stem)
        else:
            write_large.write(self._proto, self._outside, path)


def _remap_in(proto: ModelProto, name: str) -> Remap | None:
    try:
        return remap_in(proto)
    except ModelError as error:
        raise ModelError(f"{name}: {error.message}", error.hint) from error
