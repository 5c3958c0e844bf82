"""Tables of the schema as objects, whose fields are read from the file when they are first used."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from exporter.formats.tflite.layout import (
    OFFSET_BYTES,
    SIZES,
    Field,
    Layout,
    Shape,
    fields_of,
    union_tables,
)

_NUMBER = struct.Struct("<I")
_UNPACK = {each: struct.Struct(f"<{each}").unpack_from for each in SIZES}
_DTYPES = {**{each: np.dtype(f"<{each}") for each in SIZES if each != "?"}, "?": np.dtype(bool)}


class Record:
    """A table, with its fields as attributes. They may be set; the values of arrays may not.

    A vector of numbers is a read-only array, a vector of tables a list, a string bytes. A field
    that is absent has its default, or None.

    Attributes:
        table: its name in the schema.
        layout: of the file that it was read from; None for a new one.
        place: the position of an offset to it.
        read: the fields that were read, as the file has them; of a list, its records.
    """

    __slots__ = ("__dict__", "_position", "_shape", "layout", "place", "read", "table")

    def __init__(self, table: str, /, **values: Any) -> None:
        """Make a table that is in no file."""
        self.table, self.place, self._position = table, -1, -1
        self.layout: Layout | None = None
        self._shape: Shape | None = None
        self.read: dict[str, Any] = {}
        self.__dict__.update(values)

    @classmethod
    def at(cls, layout: Layout, table: str, place: int) -> Self:
        """The table that the offset at a place of a file points to."""
        made = cls.__new__(cls)  # there are many: nothing is set twice
        made.table, made.layout, made.place, made.read = table, layout, place, {}
        made._position = position = place + _NUMBER.unpack_from(layout.data, place)[0]  # noqa: SLF001
        made._shape = layout.shape(table, position)  # noqa: SLF001
        return made

    def __getattr__(self, name: str) -> Any:
        field = None if name.startswith("_") else fields_of(self.table).get(name)
        if field is None:
            raise AttributeError(f"{self.table} has no field {name!r}")
        value = self._decoded(field)
        self.__dict__[name] = value
        self.read[name] = list(value) if isinstance(value, list) else value
        return value

    def __copy__(self) -> Record:
        made = Record(self.table, **self.__dict__)
        made.layout, made.place, made.read = self.layout, self.place, dict(self.read)
        made._position, made._shape = self._position, self._shape
        return made

    def items(self) -> Iterator[tuple[str, Any]]:
        """The name and value of each field."""
        return ((name, getattr(self, name)) for name in fields_of(self.table))

    def place_of(self, field: str) -> int | None:
        """The position of a field in the file; None if it is absent."""
        place = self._shape.places.get(field) if self._shape else None
        return None if place is None else self._position + place

    @property
    def is_rewritten(self) -> bool:
        """Can it not be copied from the file, changed or not? See `Layout`."""
        return self.layout is not None and self._position in self.layout.rewritten

    def _decoded(self, field: Field) -> Any:
        place = self.place_of(field.name)
        if place is None or self.layout is None:
            return bool(field.default) if field.kind == "?" else self._default(field)
        layout, data = self.layout, self.layout.data
        if field.kind in SIZES:
            return _UNPACK[field.kind](data, place)[0]
        if field.kind == "table":
            return Record.at(layout, field.of, place)
        if field.kind == "union":
            kind, tables = getattr(self, f"{field.name}Type"), union_tables(field.of)
            return Record.at(layout, tables[kind], place) if 0 < kind < len(tables) else None
        return self._vector(field, layout, place)

    def _vector(self, field: Field, layout: Layout, place: int) -> Any:
        """A string, an array, or a list of records."""
        data = layout.data
        start = place + _NUMBER.unpack_from(data, place)[0]
        count, first = _NUMBER.unpack_from(data, start)[0], start + OFFSET_BYTES
        if field.kind == "string":
            return bytes(data[first : first + count])
        if field.kind == "vector":
            return np.frombuffer(data, _DTYPES[field.of], count, first)
        entries = range(first, first + OFFSET_BYTES * count, OFFSET_BYTES)
        return [Record.at(layout, field.of, entry) for entry in entries]

    def _default(self, field: Field) -> Any:
        return field.default if field.kind in SIZES else None


def is_changed(value: Any) -> bool:
    """Must a table be written again? Also an object of the library's schema is one."""
    if not isinstance(value, Record) or value.layout is None or value.is_rewritten:
        return True
    return any(field_changed(value, name) for name in value.__dict__)


def field_changed(record: Record, name: str) -> bool:
    """Does a field of a record from a file differ from the file, or lead to something that does?"""
    value = record.__dict__.get(name)
    if name not in record.__dict__:
        return False
    if name not in record.read:  # it was set before it was read
        record.read[name] = record._decoded(fields_of(record.table)[name])  # noqa: SLF001
    known = record.read[name]
    if isinstance(value, list) and isinstance(known, list):
        same = len(value) == len(known) and all(map(_is, value, known))
        return not same or any(map(is_changed, value))
    if isinstance(value, Record):
        return value is not known or is_changed(value)
    if isinstance(value, np.ndarray) and isinstance(known, np.ndarray):
        return not (value is known or (value.dtype == known.dtype and np.array_equal(value, known)))
    return bool(type(value) is not type(known) or value != known)


def _is(one: object, other: object) -> bool:
    return one is other
