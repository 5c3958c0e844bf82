"""Write an ONNX model whose large constants lie in other files as one file, if one can hold it.

A protobuf message that holds all weights would be copied to be parsed, changed and serialised; here
its bytes are put together by hand, and each constant passes through once.

1. The file is the fields of the model, then the graph; the graph is its fields, then the constants.
2. Each message in a message is its tag, its length, and its bytes (protobuf's wire format).
3. What readers would not take as one message gets its large constants in a file beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, TensorProto

from exporter.conversion.to_onnx_fold import external_place
from exporter.errors import ConversionError
from exporter.models.onnx.outside import Outside, write_beside
from exporter.models.onnx.protos import copy_without

LARGEST_BYTES = 2**31 - 1  # what readers take as one protobuf message


@dataclass(frozen=True)
class _Values:
    """Bytes in another file."""

    path: Path
    offset: int
    length: int


Part = bytes | _Values


def write(model: ModelProto, folder: Path, path: Path) -> None:
    """Write a model as one file; where that would pass 2 GiB, with another beside it.

    Args:
        model: constants with a place in another file are read from there.
        folder: of those files.
        path: of the result. The file beside it is named after it and its own content.
    """
    parts = _model(model, folder)
    if _length(parts) > LARGEST_BYTES:
        write_beside(model, Outside(folder), path, path.stem)
        return
    with path.open("wb") as file:
        for part in parts:
            _copy(part, file)


def _model(model: ModelProto, folder: Path) -> list[Part]:
    rest = _bytes(copy_without(model, "graph"))
    return [rest, *_inside(model, "graph", _graph(model.graph, folder))]


def _graph(graph: GraphProto, folder: Path) -> list[Part]:
    parts: list[Part] = [_bytes(copy_without(graph, "initializer"))]
    for tensor in graph.initializer:
        parts += _inside(graph, "initializer", _tensor(tensor, folder))
    return parts


def _tensor(tensor: TensorProto, folder: Path) -> list[Part]:
    place = external_place(tensor)
    if not place:
        return [_bytes(tensor)]
    header = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    values = _Values(folder / place["location"], int(place.get("offset", 0)), int(place["length"]))
    return [_bytes(header), *_inside(tensor, "raw_data", [values])]


def _inside(message: Message, field: str, parts: list[Part]) -> list[Part]:
    """The parts as a field of a message."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return [_number(number << 3 | 2) + _number(_length(parts)), *parts]


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    content = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])


def _length(parts: list[Part]) -> int:
    return sum(part.length if isinstance(part, _Values) else len(part) for part in parts)


def _bytes(message: Message) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def _copy(part: Part, file: BinaryIO) -> None:
    if isinstance(part, bytes):
        file.write(part)
        return
    with part.path.open("rb") as source:
        source.seek(part.offset)
        left = part.length
        while left:
            block = source.read(min(left, _BLOCK_BYTES))
            if not block:
                raise ConversionError("a file of the converter is shorter than it says")
            file.write(block)
            left -= len(block)


_BLOCK_BYTES = 1 << 20
