"""Parse a large ONNX file without its large constants: they stay where they lie in the file.

A protobuf message that holds all weights costs twice its size to be parsed. Here the wire format is
walked instead (protobuf's: a tag, a length, the bytes), and the message is parsed without the
`raw_data` of large initializers.

1. Such a constant gets a place as if it lay in another file, named WITHIN, which no file can be.
2. Only types that runtimes take as arrays, and only values of just the length that the shape needs:
   whatever is odd is parsed, and refused, as it always is.
3. A file that names WITHIN itself, or that is no such message, is not skimmed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from google.protobuf.message import DecodeError, Message
from onnx import GraphProto, ModelProto, TensorProto, helper

WITHIN = "\0within the model's own file"
LARGE_BYTES = 1 << 16  # of a constant that is not parsed
HANDED_OVER = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
)


def skim(content: memoryview) -> ModelProto | None:
    """The message without its large constants; None where it has to be parsed whole.

    Args:
        content: the whole file.
    """
    model = ModelProto()
    try:
        model.ParseFromString(b"".join(_of_model(content)))
    except (DecodeError, _OddError):
        return None
    return model


class _OddError(Exception):
    """The bytes are not what is known to be safe to skim."""


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, and where it and its content lie.

    Attributes:
        start: of the tag.
        inner: of the content; for one with a length, behind the length.
        nested: does it have a length?
    """

    number: int
    start: int
    inner: int
    stop: int
    nested: bool


def _of_model(content: memoryview) -> Iterator[bytes]:
    graph = _number_of(ModelProto, "graph")
    for field in _fields(content, 0, len(content)):
        if field.number == graph and field.nested:
            yield _nested(graph, b"".join(_of_graph(content, field)))
        else:
            yield _copied(content, field)


def _of_graph(content: memoryview, graph: _Field) -> Iterator[bytes]:
    initializer = _number_of(GraphProto, "initializer")
    for field in _fields(content, graph.inner, graph.stop):
        if field.number == initializer and field.nested:
            yield _nested(initializer, _of_tensor(content, field))
        else:
            yield _copied(content, field)


def _of_tensor(content: memoryview, tensor: _Field) -> bytes:
    raw = _number_of(TensorProto, "raw_data")
    fields = list(_fields(content, tensor.inner, tensor.stop))
    large = [f for f in fields if f.number == raw and f.stop - f.inner >= LARGE_BYTES]
    if len(large) == 1:
        (values,) = large
        rest = b"".join(_copied(content, field) for field in fields if field is not values)
        light = TensorProto.FromString(rest)
        length = values.stop - values.inner
        if _is_plain(light, length):
            return rest + _placed(values.inner, length)
    return b"".join(_copied(content, field) for field in fields)


def _is_plain(light: TensorProto, length: int) -> bool:
    """Is the tensor, but for its values, one of a known type whose values are of this length?"""
    if light.data_type not in HANDED_OVER or {f.name for f, _ in light.ListFields()} - _USUAL:
        return False
    width = helper.tensor_dtype_to_np_dtype(light.data_type).itemsize
    return min(light.dims, default=1) > 0 and prod(light.dims) * width == length


_USUAL = {"dims", "data_type", "name", "doc_string"}


def _placed(offset: int, length: int) -> bytes:
    place = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": WITHIN, "offset": offset, "length": length}.items():
        place.external_data.add(key=key, value=str(value))
    content: bytes = place.SerializeToString(deterministic=True)
    return content


def _copied(content: memoryview, field: _Field) -> bytes:
    found = bytes(content[field.start : field.stop])
    if _MARK in found:
        raise _OddError
    return found


_MARK = WITHIN.encode()


# --- protobuf's wire format -----------------------------------------------------------------------


def nested_start(number: int, length: int) -> bytes:
    """What stands before the content of a field that holds a message, text or bytes."""
    return _varint(number << 3 | _WITH_LENGTH) + _varint(length)


def _nested(number: int, content: bytes) -> bytes:
    return nested_start(number, len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    content = bytearray()
    while value >= _MORE:
        content.append(value & (_MORE - 1) | _MORE)
        value >>= 7
    return bytes([*content, value])


def _fields(content: memoryview, start: int, stop: int) -> Iterator[_Field]:
    while start < stop:
        tag, inner = _read_varint(content, start, stop)
        kind, end = tag & 7, 0
        if kind == _VARINT:
            end = _read_varint(content, inner, stop)[1]
        elif kind in _FIXED:
            end = inner + _FIXED[kind]
        elif kind == _WITH_LENGTH:
            length, inner = _read_varint(content, inner, stop)
            end = inner + length
        if not inner <= end <= stop:
            raise _OddError
        yield _Field(tag >> 3, start, inner, end, kind == _WITH_LENGTH)
        start = end


def _read_varint(content: memoryview, start: int, stop: int) -> tuple[int, int]:
    """The number, and where it ends."""
    value = 0
    for place in range(start, min(stop, start + _LONGEST)):
        value |= (content[place] & (_MORE - 1)) << 7 * (place - start)
        if content[place] < _MORE:
            return value, place + 1
    raise _OddError


def _number_of(message: type[Message], field: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number)


_VARINT, _WITH_LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}  # kind -> bytes
_MORE = 0x80
_LONGEST = 10  # bytes of a varint
