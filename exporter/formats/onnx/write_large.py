"""Write an ONNX model with large external constants as one file, if one can hold it.

A protobuf message with all weights would be copied to be changed and serialized. Here the bytes of
the file are put together field by field, and each constant is copied once.

1. The file is the fields of the model, then the graph. The graph is its fields, then the constants.
2. A message in a message is its tag, its length, and its bytes (protobuf's wire format).
3. If the file were larger than readers accept, its large constants go into a second file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, TensorProto

from exporter.formats.onnx.external_data import (
    ExternalData,
    is_external,
    size_bytes,
    write_with_file,
)
from exporter.formats.onnx.lazy_parse import field_start
from exporter.formats.onnx.protos import LARGEST_MESSAGE, copy_without, serialized

LARGEST_BYTES = LARGEST_MESSAGE  # of a file

Piece = bytes | TensorProto  # bytes of the file, or the constant that supplies them


def write(model: ModelProto, external: ExternalData, path: Path) -> None:
    """Write a model as one file, or with a second one next to it if it is larger than 2 GiB.

    Args:
        model: its constants may be external.
        external: their values.
        path: of the result. A second file is named after it and its own content.

    Raises:
        ModelError: a constant's file is shorter than the constant.
    """
    pieces = _model(model)
    if _length(pieces) > LARGEST_BYTES:
        write_with_file(model, external, path, path.stem)
        return
    with path.open("wb") as file:
        file.writelines(_contents(pieces, external))


def content_of(model: ModelProto, external: ExternalData) -> bytes:
    """The bytes that `write` puts into one file."""
    return b"".join(_contents(_model(model), external))


def _contents(pieces: list[Piece], external: ExternalData) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield from external.chunks(piece)


def _model(model: ModelProto) -> list[Piece]:
    rest = serialized(copy_without(model, "graph"))
    return [rest, *_field(model, "graph", _graph(model.graph))]


def _graph(graph: GraphProto) -> list[Piece]:
    pieces: list[Piece] = [serialized(copy_without(graph, "initializer"))]
    for tensor in graph.initializer:
        pieces += _field(graph, "initializer", _tensor(tensor))
    return pieces


def _tensor(tensor: TensorProto) -> list[Piece]:
    if not is_external(tensor):
        return [serialized(tensor)]
    header = copy_without(tensor, "data_location", "external_data")
    return [serialized(header), *_field(tensor, "raw_data", [tensor])]


def _field(message: Message, name: str, pieces: list[Piece]) -> list[Piece]:
    """The pieces as a field of a message."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    return [field_start(number, _length(pieces)), *pieces]


def _length(pieces: list[Piece]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else size_bytes(piece) for piece in pieces)
