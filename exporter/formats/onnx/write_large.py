"""Write an ONNX model whose large constants lie elsewhere as one file, if one can hold it.

A protobuf message that holds all weights would be copied to be parsed, changed and serialized; here
its bytes are put together by hand, and each constant passes through once.

1. The file is the fields of the model, then the graph; the graph is its fields, then the constants.
2. Each message in a message is its tag, its length, and its bytes (protobuf's wire format).
3. What readers would not take as one message gets its large constants in a file beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, TensorProto

from exporter.formats.onnx.external_data import Outside, is_outside, write_beside
from exporter.formats.onnx.lazy_parse import nested_start
from exporter.formats.onnx.protos import copy_without

LARGEST_BYTES = 2**31 - 1  # what readers take as one protobuf message


@dataclass(frozen=True)
class _Values:
    """The bytes of a constant that lies elsewhere."""

    tensor: TensorProto
    length: int


Part = bytes | _Values


def write(model: ModelProto, outside: Outside, path: Path) -> None:
    """Write a model as one file; where that would pass 2 GiB, with another beside it.

    Args:
        model: its constants may lie elsewhere.
        outside: where those lie.
        path: of the result. The file beside it is named after it and its own content.

    Raises:
        ModelError: a constant is shorter there than it says.
    """
    parts = _model(model, outside)
    if _length(parts) > LARGEST_BYTES:
        write_beside(model, outside, path, path.stem)
        return
    with path.open("wb") as file:
        file.writelines(_contents(parts, outside))


def content_of(model: ModelProto, outside: Outside) -> bytes:
    """What `write` would put into one file."""
    return b"".join(_contents(_model(model, outside), outside))


def _contents(parts: list[Part], outside: Outside) -> Iterator[bytes | memoryview]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
        else:
            yield from outside.parts(part.tensor)


def _model(model: ModelProto, outside: Outside) -> list[Part]:
    rest = _bytes(copy_without(model, "graph"))
    return [rest, *_inside(model, "graph", _graph(model.graph, outside))]


def _graph(graph: GraphProto, outside: Outside) -> list[Part]:
    parts: list[Part] = [_bytes(copy_without(graph, "initializer"))]
    for tensor in graph.initializer:
        parts += _inside(graph, "initializer", _tensor(tensor, outside))
    return parts


def _tensor(tensor: TensorProto, outside: Outside) -> list[Part]:
    if not is_outside(tensor):
        return [_bytes(tensor)]
    header = copy_without(tensor, "data_location", "external_data")
    values = _Values(tensor, outside.length(tensor))
    return [_bytes(header), *_inside(tensor, "raw_data", [values])]


def _inside(message: Message, field: str, parts: list[Part]) -> list[Part]:
    """The parts as a field of a message."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return [nested_start(number, _length(parts)), *parts]


def _length(parts: list[Part]) -> int:
    return sum(part.length if isinstance(part, _Values) else len(part) for part in parts)


def _bytes(message: Message) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content
