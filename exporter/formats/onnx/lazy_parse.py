"""Parse a large ONNX file without its large constants, whose values remain in the file.

Parsing a protobuf message with all weights takes twice its size in memory. Here the wire format
(protobuf's: a tag, a length, the bytes) is read field by field, and the message is parsed without
the `raw_data` of large initializers.

1. Such a constant becomes an external one with the location WITHIN, which no file can have.
2. Only for types that runtimes take as arrays, and if the values have the length that the shape
   needs. Any other constant is parsed, and rejected if it is damaged, as in a small file.
3. A file that contains the text WITHIN, or is not such a message, is parsed completely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

from google.protobuf.message import DecodeError, Message
from onnx import GraphProto, ModelProto, TensorProto, helper

from exporter.formats.onnx.protos import serialized

WITHIN = "\0within the model's own file"
LARGE_BYTES = 1 << 16  # smaller constants are parsed
ARRAY_TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
)


def parse_without_values(content: memoryview) -> ModelProto | None:
    """The message without its large constants; None if it has to be parsed completely.

    Args:
        content: of the file.
    """
    model = ModelProto()
    try:
        model.ParseFromString(_light_model(content))
    except (DecodeError, _UnexpectedError):
        return None
    return model


class _UnexpectedError(Exception):
    """The bytes are not those of a message that is safe to parse in this way."""


@dataclass(frozen=True)
class _Field:
    """One field of a message, as positions in the file.

    Attributes:
        number: in the message's definition.
        start: of the tag.
        inner: of the content, after a length if there is one.
        stop: of the content.
        nested: does it have a length?
    """

    number: int
    start: int
    inner: int
    stop: int
    nested: bool


def _light_model(content: memoryview) -> bytes:
    message = _Field(0, 0, 0, len(content), nested=True)
    return _replace_fields(content, message, _number_of(ModelProto, "graph"), _light_graph)


def _light_graph(content: memoryview, graph: _Field) -> bytes:
    return _replace_fields(content, graph, _number_of(GraphProto, "initializer"), _light_tensor)


def _replace_fields(
    content: memoryview,
    message: _Field,
    number: int,
    replace: Callable[[memoryview, _Field], bytes],
) -> bytes:
    """The bytes of a message, with another content for the nested fields of one number."""
    parts = []
    for field in _fields(content, message.inner, message.stop):
        if field.number == number and field.nested:
            inner = replace(content, field)
            parts += [field_start(number, len(inner)), inner]
        else:
            parts.append(_copied(content, field))
    return b"".join(parts)


def _light_tensor(content: memoryview, tensor: _Field) -> bytes:
    raw = _number_of(TensorProto, "raw_data")
    fields = list(_fields(content, tensor.inner, tensor.stop))
    large = [f for f in fields if f.number == raw and f.stop - f.inner >= LARGE_BYTES]
    if len(large) == 1:
        (values,) = large
        rest = b"".join(_copied(content, field) for field in fields if field is not values)
        length = values.stop - values.inner
        if _is_plain(TensorProto.FromString(rest), length):
            return rest + _location(values.inner, length)
    return b"".join(_copied(content, field) for field in fields)


def _is_plain(tensor: TensorProto, length: int) -> bool:
    """Has a tensor without values only the usual fields, and a shape that needs this length?"""
    names = {field.name for field, _ in tensor.ListFields()}
    if tensor.data_type not in ARRAY_TYPES or names - _USUAL:
        return False
    item_bytes = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return min(tensor.dims, default=1) > 0 and prod(tensor.dims) * item_bytes == length


_USUAL = {"dims", "data_type", "name", "doc_string"}


def _location(offset: int, length: int) -> bytes:
    """The fields that make a tensor external."""
    tensor = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": WITHIN, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return serialized(tensor)


def _copied(content: memoryview, field: _Field) -> bytes:
    found = bytes(content[field.start : field.stop])
    if _WITHIN_BYTES in found:
        raise _UnexpectedError
    return found


_WITHIN_BYTES = WITHIN.encode()


# --- protobuf's wire format -----------------------------------------------------------------------


def field_start(number: int, length: int) -> bytes:
    """The bytes before the content of a field that contains a message, text or bytes."""
    return _varint(number << 3 | _WITH_LENGTH) + _varint(length)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit means that more bytes follow."""
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
            raise _UnexpectedError
        yield _Field(tag >> 3, start, inner, end, kind == _WITH_LENGTH)
        start = end


def _read_varint(content: memoryview, start: int, stop: int) -> tuple[int, int]:
    """The number, and the position after it."""
    value = 0
    for position in range(start, min(stop, start + _LONGEST)):
        value |= (content[position] & (_MORE - 1)) << 7 * (position - start)
        if content[position] < _MORE:
            return value, position + 1
    raise _UnexpectedError


def _number_of(message: type[Message], field: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number)


_VARINT, _WITH_LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}  # kind -> bytes
_MORE = 0x80
_LONGEST = 10  # bytes of a varint
