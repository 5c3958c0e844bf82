"""Where the objects of a flatbuffer are: one walk finds them all, and checks every offset.

A schema table line such as `Tensor shape:[i] type:b name:s` becomes `Field`s. `Layout` holds what
reading needs (the shape of each table) and what moving bytes needs (the extent of each object, and
each place that holds an offset).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from exporter.formats.tflite.flatbuffer import OutsideError
from exporter.formats.tflite.schema_tables import EMPTY_TABLES, ENUMERATIONS, TABLES
from exporter.graph import Array

SIZES = {"?": 1, "b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8, "d": 8}
OFFSET_BYTES = 4
BUFFER_ALIGNMENT = 16  # the schema's force_align
MAX_SHARING = 64  # all strings and vectors, as often as they are referred to, per byte of the file
UNITS = 4  # bytes: every table, and every offset, starts at a multiple of this

_LINES = {line.partition(" ")[0]: line.partition(" ")[2] for line in TABLES.splitlines()}
_LINES |= dict.fromkeys(EMPTY_TABLES.split(), "")
_NUMBER, _SIGNED = struct.Struct("<I"), struct.Struct("<i")


class Field(NamedTuple):
    """A field of a table.

    Attributes:
        kind: a format of `struct`, "string", "vector" (of numbers), "table", "tables" or "union".
        of: the format of a vector's numbers, or the name of the table or union.
        default: of a number.
    """

    slot: int
    name: str
    kind: str
    of: str = ""
    default: float = 0

    @property
    def size(self) -> int:
        return SIZES.get(self.kind, OFFSET_BYTES)


@cache
def fields_of(table: str) -> Mapping[str, Field]:
    """The fields of a table by name; KeyError if the schema has no such table."""
    found = {}
    for slot, text in enumerate(_LINES[table].split()):
        name, _, rest = text.partition(":")
        kind, _, default = rest.partition("=")
        inner = kind.strip("[<]")
        if not kind:
            continue  # not used any more
        if kind in SIZES:
            value = default == "True" if kind == "?" else float(default or 0)
            made = Field(slot, name, kind, "", value if kind in "?fd" else int(value))
        elif kind == "s":
            made = Field(slot, name, "string")
        elif kind[0] == "<":
            made = Field(slot, name, "union", inner)
        elif kind[0] == "[":
            made = Field(slot, name, "vector" if inner in SIZES else "tables", inner)
        else:
            made = Field(slot, name, "table", inner)
        found[name] = made
    return found


@cache
def enumeration(name: str) -> Mapping[str, int]:
    """The values of an enumeration, or the types of a union, by name."""
    return {each: value for value, each in enumerate(ENUMERATIONS[name].split())}


@cache
def union_tables(name: str) -> tuple[str, ...]:
    """The table of each type of a union; of type 0, which is none, "NONE"."""
    return tuple(ENUMERATIONS[name].split())


class Shape:
    """The layout of all tables that have one vtable.

    Attributes:
        table: its name.
        size: of a table, in bytes.
        used: its bytes up to the end of the last field. Some writers count padding in the size,
            and the next object starts in it.
        vtable, vtable_bytes: position and size.
        places: name of a field that is present -> its offset in the table.
        alignment: of a table.
        references: the fields that hold offsets: offset in the table, and field.
        is_newer: some fields are unknown to this schema.
    """

    def __init__(self, data: bytes, table: str, vtable: int) -> None:
        if vtable % 2 or not 0 <= vtable <= len(data) - 4:
            raise OutsideError
        self.table, self.vtable, known = table, vtable, fields_of(table)
        self.alignment = UNITS
        self.vtable_bytes, self.size = struct.unpack_from("<HH", data, vtable)
        count = (self.vtable_bytes - 4) // 2
        if self.vtable_bytes % 2 or count < 0 or vtable + self.vtable_bytes > len(data):
            raise OutsideError
        if self.size < OFFSET_BYTES:  # each table starts with the offset of its vtable
            raise OutsideError
        offsets = struct.unpack_from(f"<{count}H", data, vtable + 4)
        self.places: dict[str, int] = {}
        self.references: list[tuple[int, Field]] = []
        used, end = 0, OFFSET_BYTES
        for each in known.values():
            place = offsets[each.slot] if each.slot < count else 0
            if not place:
                continue
            used += 1
            size = each.size
            if place < UNITS or place % min(size, UNITS) or place + size > self.size:
                raise OutsideError
            self.places[each.name] = place
            self.alignment = max(self.alignment, size)
            end = max(end, place + size)
            if each.kind not in SIZES:
                self.references.append((place, each))
        self.is_newer = used < count - offsets.count(0)
        self.used = self.size if self.is_newer else end


@dataclass(eq=False)
class Layout:
    """Every object of a flatbuffer, in the order of a walk from its root table.

    Attributes:
        starts, stops: the extent of each object: a table, a string or a vector.
        padding: bytes at the end of each object that it does not use.
        ends: the index after the last object that is reached through it.
        vtables: the position of a table's vtable; -1 for the others.
        alignments: what the position of an object must stay a multiple of, plus a constant.
        at, to, owners: each offset: its position, what it points to, and the object it is in.
        index: position of an offset -> the object that it points to.
        rewritten: the positions of tables that cannot be copied, and of those that lead to them:
            they have fields that this schema does not know, or bytes that are not aligned.
    """

    data: bytes
    root: str = "Model"
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    padding: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    vtables: list[int] = field(default_factory=list)
    alignments: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    to: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    index: dict[int, int] = field(default_factory=dict)
    rewritten: set[int] = field(default_factory=set)
    shapes: dict[tuple[str, int], Shape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Walk; OutsideError if anything points outside, or much more often than bytes can."""
        if len(self.data) < 2 * OFFSET_BYTES:
            raise OutsideError
        self._most = len(self.data) // OFFSET_BYTES
        self._bytes_left = MAX_SHARING * len(self.data)
        self._table(self.root, 0, -1)

    def shape(self, table: str, position: int) -> Shape:
        """The shape of a table."""
        vtable = position - int(_SIGNED.unpack_from(self.data, position)[0])
        found = self.shapes.get((table, vtable))
        if found is None:
            found = self.shapes[table, vtable] = Shape(self.data, table, vtable)
        return found

    def states(self, table: str, *names: str) -> bool:
        """Does any table of a kind have one of these fields?"""
        shapes = (each for (kind, _), each in self.shapes.items() if kind == table)
        return any(not each.places.keys().isdisjoint(names) for each in shapes)

    @cached_property
    def has_overlaps(self) -> bool:
        """Does an offset of an object also belong to something else, which would change with it?

        Several tables may refer to one object, and an object may start in the padding at the end of
        a table. No writer of files lets objects overlap in another way.
        """
        starts, stops, vtables, owners, at = (
            np.array(each) for each in (self.starts, self.stops, self.vtables, self.owners, self.at)
        )
        tables = vtables >= 0
        own = np.bincount(owners[owners >= 0], minlength=len(starts)) + tables
        offsets = distinct(np.concatenate([at[owners >= 0], starts[tables]]))
        ends = stops - np.array(self.padding)
        inside = np.searchsorted(offsets, ends) - np.searchsorted(offsets, starts)
        used = np.array([each.vtable for each in self.shapes.values()])
        used_stops = used + [each.vtable_bytes for each in self.shapes.values()]
        before = np.searchsorted(offsets, used - OFFSET_BYTES, "right")
        in_vtables = np.searchsorted(offsets, used_stops) - before
        _, first, same = np.unique(at, return_index=True, return_inverse=True)
        is_cut = stops != stops[first][same]
        return bool((inside != own).any() or in_vtables.any() or is_cut.any())

    def _object(self, at: int, owner: int, size: int = 0) -> int:
        """Add the object that an offset points to, and return its position."""
        data = self.data
        offset: int = _NUMBER.unpack_from(data, at)[0]
        position = at + offset
        if not offset or position % UNITS or position + OFFSET_BYTES > len(data):
            raise OutsideError
        self.index[at] = len(self.starts)
        self.at.append(at)
        self.to.append(position)
        self.owners.append(owner)
        self.starts.append(position)
        self.vtables.append(-1)
        self.alignments.append(max(UNITS, size))
        stop = position + OFFSET_BYTES
        if size:
            stop += size * _NUMBER.unpack_from(data, position)[0]
        self._bytes_left -= stop - position
        if stop > len(data) or len(self.starts) > self._most or self._bytes_left < 0:
            raise OutsideError
        self.stops.append(stop)
        self.padding.append(0)
        self.ends.append(len(self.starts))
        return position

    def _table(self, table: str, at: int, owner: int) -> bool:
        """Walk a table; must it, or one that it leads to, be written again?"""
        number = len(self.starts)
        position = self._object(at, owner)
        shape = self.shape(table, position)
        self.vtables[number], self.alignments[number] = shape.vtable, shape.alignment
        self.stops[number] = stop = position + shape.size
        self.padding[number] = shape.size - shape.used
        if stop > len(self.data):
            raise OutsideError
        is_rewritten: bool = shape.is_newer
        for place, each in shape.references:
            is_rewritten |= self._reference(each, position, place, number, shape)
        self.ends[number] = len(self.starts)
        if is_rewritten:
            self.rewritten.add(position)
        return is_rewritten

    def _reference(self, each: Field, position: int, place: int, number: int, shape: Shape) -> bool:
        at = position + place
        if each.kind == "vector":
            self._object(at, number, SIZES[each.of])
            if shape.table == "Buffer":
                self.alignments[-1] = BUFFER_ALIGNMENT
                return (self.starts[-1] + OFFSET_BYTES) % BUFFER_ALIGNMENT != 0
        elif each.kind == "table":
            return self._table(each.of, at, number)
        elif each.kind == "tables":
            return self._tables(each.of, at, number)
        elif each.kind == "string":
            self._object(at, number, 1)
            stop = self.stops[-1]
            if self.data[stop : stop + 1] != b"\0":
                raise OutsideError
            self.stops[-1] = stop + 1
        else:
            chosen = shape.places.get(f"{each.name}Type")
            kind, tables = self.data[position + chosen] if chosen else 0, union_tables(each.of)
            if 0 < kind < len(tables):
                return self._table(tables[kind], at, number)
            return True  # the value is not copied
        return False

    def _tables(self, table: str, at: int, owner: int) -> bool:
        number = len(self.starts)
        first = self._object(at, owner, OFFSET_BYTES) + OFFSET_BYTES
        is_rewritten: bool = False
        for entry in range(first, self.stops[number], OFFSET_BYTES):
            is_rewritten |= self._table(table, entry, number)
        self.ends[number] = len(self.starts)
        return is_rewritten


def distinct(values: Array) -> Array:
    """As `numpy.unique`, which imports `numpy.ma`: half as long as the cut of a small file."""
    return np.array(sorted(set(values.tolist())), np.int64)
