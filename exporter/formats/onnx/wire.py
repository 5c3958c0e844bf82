"""Protobuf's wire format: the fields of a message as ranges of bytes. No value is decoded.

A field is a tag (its number and its kind), then a number or a length with as many bytes. Groups,
which no version of ONNX has, and everything that is not such a field are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import Message

VARINT, WITH_LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}  # kind -> bytes
_MORE = 0x80
_LONGEST = 10  # bytes of a varint


class WireError(Exception):
    """The bytes are not a message."""


class Field(NamedTuple):
    """One field of a message, as positions in the file."""

    number: int
    kind: int
    start: int  # of the tag
    inner: int  # of the content, after a length if there is one
    stop: int


def fields(content: memoryview, start: int, stop: int) -> Iterator[Field]:
    """The fields in a range of bytes, in their order (raises WireError)."""
    while start < stop:
        tag, inner = _read_varint(content, start, stop)
        kind, end = tag & 7, 0
        if kind == WITH_LENGTH:
            length, inner = _read_varint(content, inner, stop)
            end = inner + length
        elif kind == VARINT:
            end = _read_varint(content, inner, stop)[1]
        elif kind in _FIXED:
            end = inner + _FIXED[kind]
        if not inner <= end <= stop or not tag >> 3:
            raise WireError
        yield Field(tag >> 3, kind, start, inner, end)
        start = end


def field_start(number: int, length: int) -> bytes:
    """The bytes before the content of a field that contains a message, text or bytes."""
    return _varint(number << 3 | WITH_LENGTH) + _varint(length)


def number_of(message: type[Message] | Message, field: str) -> int:
    """The number of a field."""
    return int(message.DESCRIPTOR.fields_by_name[field].number)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit means that more bytes follow."""
    content = bytearray()
    while value >= _MORE:
        content.append(value & (_MORE - 1) | _MORE)
        value >>= 7
    return bytes([*content, value])


def _read_varint(content: memoryview, start: int, stop: int) -> tuple[int, int]:
    """The number, and the position after it."""
    if start < stop and content[start] < _MORE:
        return content[start], start + 1
    value = 0
    for position in range(start, min(stop, start + _LONGEST)):
        value |= (content[position] & (_MORE - 1)) << 7 * (position - start)
        if content[position] < _MORE:
            return value, position + 1
    raise WireError
