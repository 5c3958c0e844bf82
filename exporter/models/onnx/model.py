"""An ONNX model: a parsed file that is never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, TensorProto

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph
from exporter.models.model import Runner, RunOptions
from exporter.models.onnx.apply import REMAP, apply_plan
from exporter.models.onnx.draw import draw
from exporter.models.onnx.precision import precision_of
from exporter.models.onnx.protos import every_tensor, is_text_whole, opset_of
from exporter.plan import Plan
from exporter.remap import Remap

_LARGEST = 2**31 - 1  # bytes of one protobuf message


def open_file(path: Path) -> OnnxModel:
    """Open an ONNX file; its content is checked, its suffix is not.

    Raises:
        UsageError: the file cannot be read.
        ModelError: empty, truncated, damaged, another kind of file, or with its weights outside.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    model = from_bytes(content, path.name)
    model.sha256 = hashlib.sha256(content).hexdigest()
    return model


def from_bytes(content: bytes, name: str) -> OnnxModel:
    """Open the content of an ONNX file that is in memory (raises as `open_file` does)."""
    if not content:
        raise ModelError(f"{name} is empty")
    if len(content) > _LARGEST:
        raise ModelError(f"{name} is larger than the 2 GB that an .onnx file can hold")
    proto = ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{name} is not an ONNX file, or it is damaged or cut short") from error
    return from_proto(proto, name)


def from_proto(proto: ModelProto, name: str) -> OnnxModel:
    """A model that exists in memory alone.

    Args:
        proto: kept, never changed; must not be changed by others either.
        name: what messages and the remap call it.

    Raises:
        ModelError: it holds no graph or no operator set, its weights lie outside, or the remap
            that it carries is damaged.
    """
    if not (proto.HasField("graph") and proto.graph.output):
        raise ModelError(
            f"{name} is not an ONNX model, or it is cut short: no graph with an output"
        )
    if not is_text_whole(proto):
        raise ModelError(f"{name} is damaged: a text in it is not valid UTF-8")
    if not opset_of(proto):
        raise ModelError(f"{name} is not an ONNX model, or it is cut short: no standard opset")
    for tensor in every_tensor(proto.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"{name} keeps the constant {tensor.name!r} in another file",
                "save the model with its weights inside",
            )
    return OnnxModel(proto, name)


class OnnxModel:
    """See `exporter.models.model.Model`.

    Raises:
        ModelError: the graph does not hold together, or the remap that it carries is damaged.
    """

    kind: str = "onnx"

    def __init__(self, proto: ModelProto, name: str) -> None:
        self.name = name
        self.sha256: str | None = None
        self.remap = _remap_in(proto, name)
        self._proto = proto
        self._drawing = draw(proto)
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
        return type(self)(apply_plan(self._proto, self._drawing, plan), self.name)

    def runner(self, options: RunOptions) -> Runner:
        """The model in onnxruntime; ModelError if it does not load there."""
        from exporter.models.onnx.runtime import OnnxRunner  # noqa: PLC0415 - only where it runs

        return OnnxRunner(self.to_bytes(), self.name, options)

    def to_bytes(self) -> bytes:
        """The file's content: the same for the same model in every process."""
        try:
            content: bytes = self._proto.SerializeToString(deterministic=True)
        except (EncodeError, ValueError) as error:
            raise ModelError(
                f"{self.name} is larger than the 2 GB that an .onnx file can hold"
            ) from error
        return content

    def write(self, path: Path) -> None:
        """Write the file at exactly this path. Use `files.write_whole` to have it appear whole."""
        path.write_bytes(self.to_bytes())


def _remap_in(proto: ModelProto, name: str) -> Remap | None:
    for entry in proto.metadata_props:
        if entry.key == REMAP:
            try:
                return Remap.from_json(entry.value)
            except ModelError as error:
                raise ModelError(f"{name}: {error.message}", error.hint) from error
    return None
