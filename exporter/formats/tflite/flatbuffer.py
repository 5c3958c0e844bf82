"""A reader of unverified flatbuffers: every access is checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any


class OutsideError(Exception):
    """An offset points outside of the data."""


def _scalar(data: bytes, form: str, position: int) -> int | float:
    if not 0 <= position <= len(data) - struct.calcsize(f"<{form}"):
        raise OutsideError
    number: int | float = struct.unpack_from(f"<{form}", data, position)[0]
    return number


def _number(data: bytes, form: str, position: int) -> int:
    return int(_scalar(data, form, position))


class Table:
    """A table at a position of the data; its fields are named by their index in the schema."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position
        self._fields = position - _number(data, "i", position)
        self._bytes = _number(data, "H", self._fields)

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, _number(data, "I", 0))

    @property
    def slots(self) -> int:
        """The number of fields that the table may have; some may be absent."""
        return max(0, self._bytes - 4) // 2

    def has(self, field: int) -> bool:
        return self._find(field) is not None

    def position_of(self, field: int) -> int:
        """The position of a field; OutsideError if the field is absent."""
        position = self._find(field)
        if position is None:
            raise OutsideError
        return position

    def count(self, field: int) -> int:
        """The number of entries of a vector; 0 if it is absent."""
        position = self._follow(field)
        return 0 if position is None else _number(self._data, "I", position)

    def byte(self, field: int) -> int:
        position = self._find(field)
        return 0 if position is None else _number(self._data, "B", position)

    def number(self, field: int, form: str) -> int | float:
        """A scalar of the struct format `form`; OutsideError if it is absent."""
        return _scalar(self._data, form, self.position_of(field))

    def uint32(self, field: int) -> int:
        """A number without a sign; 0 if it is absent."""
        position = self._find(field)
        return 0 if position is None else _number(self._data, "I", position)

    def text(self, field: int) -> str:
        position = self._follow(field)
        return "" if position is None else self._text_at(position)

    def texts(self, field: int) -> list[str]:
        """A vector of strings; empty if it is absent."""
        return [self._text_at(position) for position in self._entries(field)]

    def _text_at(self, position: int) -> str:
        first = position + 4
        stop = first + _number(self._data, "I", position)
        if stop > len(self._data):
            raise OutsideError
        return self._data[first:stop].decode(errors="replace")

    def table(self, field: int) -> Table:
        """A table inside this one; OutsideError if it is absent."""
        position = self.position_of(field)
        return Table(self._data, position + _number(self._data, "I", position))

    def optional_table(self, field: int) -> Table | None:
        """A table inside this one; None if it is absent."""
        return None if self._find(field) is None else self.table(field)

    def floats(self, field: int) -> tuple[float, ...]:
        """A vector of float32; empty if it is absent."""
        return self.numbers(field, "f")

    def numbers(self, field: int, form: str) -> tuple[Any, ...]:
        """A vector of scalars of the struct format `form`; empty if it is absent."""
        first, count = (self._follow(field) or 0) + 4, self.count(field)
        if first + struct.calcsize(f"<{form}") * count > len(self._data):
            raise OutsideError
        return struct.unpack_from(f"<{count}{form}", self._data, first)

    def tables(self, field: int) -> Iterator[Table]:
        return (Table(self._data, position) for position in self._entries(field))

    def _entries(self, field: int) -> Iterator[int]:
        """The positions that the entries of a vector of offsets point to."""
        position = self._follow(field) or 0
        for i in range(self.count(field)):
            entry = position + 4 * (i + 1)
            yield entry + _number(self._data, "I", entry)

    def _find(self, field: int) -> int | None:
        """The position of a field; None if it has its default."""
        slot = 4 + 2 * field
        if slot + 2 > self._bytes:
            return None
        offset = _number(self._data, "H", self._fields + slot)
        return self._position + offset if offset else None

    def _follow(self, field: int) -> int | None:
        position = self._find(field)
        return None if position is None else position + _number(self._data, "I", position)
