"""A reader of flatbuffers that nothing has verified: every step is checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator


class OutsideError(Exception):
    """An offset points outside."""


def _number(data: bytes, form: str, place: int) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(form):
        raise OutsideError
    return int(struct.unpack_from(f"<{form}", data, place)[0])


class Table:
    """A table, and where it stands; fields go by their number in the schema."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data = data
        self._place = place
        self._fields = place - _number(data, "i", place)
        self._bytes = _number(data, "H", self._fields)

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, _number(data, "I", 0))

    def place_of(self, field: int) -> int:
        """Where the offset of a field stands that is there."""
        place = self._at(field)
        if place is None:
            raise OutsideError
        return place

    def count(self, field: int) -> int:
        """How many entries a vector has; 0 where it is absent."""
        place = self._follow(field)
        return 0 if place is None else _number(self._data, "I", place)

    def byte(self, field: int) -> int:
        place = self._at(field)
        return 0 if place is None else _number(self._data, "B", place)

    def text(self, field: int) -> str:
        place = self._follow(field)
        if place is None:
            return ""
        first = place + 4
        stop = first + _number(self._data, "I", place)
        if stop > len(self._data):
            raise OutsideError
        return self._data[first:stop].decode(errors="replace")

    def tables(self, field: int) -> Iterator[Table]:
        place = self._follow(field) or 0
        for i in range(self.count(field)):
            entry = place + 4 * (i + 1)
            yield Table(self._data, entry + _number(self._data, "I", entry))

    def _at(self, field: int) -> int | None:
        """Where a field stands; None where it has its default."""
        slot = 4 + 2 * field
        if slot + 2 > self._bytes:
            return None
        offset = _number(self._data, "H", self._fields + slot)
        return self._place + offset if offset else None

    def _follow(self, field: int) -> int | None:
        place = self._at(field)
        return None if place is None else place + _number(self._data, "I", place)
