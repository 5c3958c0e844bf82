"""Write a file whose objects were edited: the bytes of everything that did not change are copied.

1. A new file has four parts: a front with every table that changed and the tables that lead to it,
   the body (the rest of the original), new values (buffers, vectors, strings), the archive.
2. Offsets point forward, so the front may refer to the body, and both to the new values.
3. The body loses every object that nothing refers to any more, and its other bytes move together.
   Only the offsets that cross a gap change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.layout import (
    BUFFER_ALIGNMENT,
    OFFSET_BYTES,
    SIZES,
    UNITS,
    Field,
    Layout,
    distinct,
    fields_of,
)
from exporter.formats.tflite.record import Record, field_changed, is_changed
from exporter.formats.tflite.schema import IDENTIFIER, LIMIT_BYTES, SAVE_AGAIN, File
from exporter.graph import Array
from exporter.output.files import byte_chunks

_LARGE_BYTES = 1 << 16  # vectors of the body from this size on are not copied on the way


def pack(file: File, name: str) -> bytes:
    """The file's bytes; equal objects from equal bytes give equal bytes.

    Raises:
        ModelError: a table has options of a schema newer than this one, which would be lost;
            objects of the original overlap; or the file would be larger than the format allows.
    """
    return b"".join(_chunks(file, name))


def write(file: File, name: str, path: Path) -> None:
    """Write the same bytes into a file, large buffers in chunks (raises as `pack` does)."""
    with path.open("wb") as target:
        target.writelines(_chunks(file, name))


def _chunks(file: File, name: str) -> Iterator[Any]:
    chunks = _Parts(file.model, name).chunks()
    length = sum(map(_size, chunks))
    if length + len(file.tail) + BUFFER_ALIGNMENT > LIMIT_BYTES:
        raise ModelError(f"{name} would be larger than 2 GB, which the format does not allow")
    for chunk in chunks:
        yield from byte_chunks(chunk) if isinstance(chunk, np.ndarray) else (chunk,)
    if file.tail:
        padding = (file.tail_start - length) % archive.ALIGNMENT
        yield bytes(padding)
        yield archive.moved(file.tail, length + padding - file.tail_start)


def _size(chunk: Any) -> int:
    return int(chunk.nbytes) if isinstance(chunk, np.ndarray) else len(chunk)


class _Parts:
    """The parts of a new file while it is made."""

    def __init__(self, model: Any, name: str) -> None:
        self._layout: Layout | None = model.layout if isinstance(model, Record) else None
        self._name = name
        self._front = bytearray(struct.pack("<I4s", 0, IDENTIFIER))
        # place in the front, place of the same offset in the original
        self._kept: list[tuple[int, int]] = []
        # place in the front, vector or string, its length as the file states it, alignment
        self._values: list[tuple[int, bytes | Array, int, int]] = []
        self._vtables: dict[bytes, int] = {}  # content -> position in the front
        self.table(model, 0)

    def table(self, record: Any, place: int) -> None:
        """Write a table, and all in it that must be written again; the place gets its offset."""
        is_record = isinstance(record, Record)
        name = record.table if is_record else type(record).__name__.removesuffix("T")
        found = [(field, getattr(record, field.name)) for field in fields_of(name).values()]
        self._refuse_newer(record, found)
        present = [
            (field, value)
            for field, value in found
            if (value != field.default if field.kind in SIZES else value is not None)
        ]
        places, size, alignment = _placed([field for field, _ in present])
        count = max((field.slot for field, _ in present), default=-1) + 1
        offsets = [0] * count
        for field, _ in present:
            offsets[field.slot] = places[field.slot]
        front = self._front
        front += bytes(-len(front) % OFFSET_BYTES)
        content = struct.pack(f"<{count + 2}H", 2 * count + 4, size, *offsets)
        vtable = self._vtables.setdefault(content, len(front))
        if vtable == len(front):
            front += content
        front += bytes(-(len(front) + OFFSET_BYTES) % alignment)
        start = len(front)
        front += struct.pack("<i", start - vtable) + bytes(size - OFFSET_BYTES)
        struct.pack_into("<I", front, place, start - place)
        for field, value in present:
            if field.kind in SIZES:
                struct.pack_into(f"<{field.kind}", front, start + places[field.slot], value)
        for field, value in present:
            if field.kind not in SIZES:
                self._reference(record, field, value, start + places[field.slot])

    def _refuse_newer(self, record: Any, found: list[tuple[Field, Any]]) -> None:
        """Refuse a union that has a value, but of a type that this schema does not know."""
        for field, value in found:
            if field.kind != "union" or value is not None:
                continue
            has_value = not isinstance(record, Record) or record.place_of(field.name) is not None
            if has_value and getattr(record, f"{field.name}Type"):
                raise ModelError(
                    f"{self._name} has options of a newer schema than this version of "
                    "ai-edge-litert knows",
                    "update ai-edge-litert",
                )

    def _reference(self, record: Any, field: Field, value: Any, place: int) -> None:
        """Let an offset in the front point to the value of a field."""
        before = record.place_of(field.name) if self._is_here(record) else None
        if before is not None and not field_changed(record, field.name):
            self._kept.append((place, before))
            return
        if field.kind == "tables":
            self._tables(value, place)
        elif field.kind in {"table", "union"}:
            self._entry(value, place)
        elif field.kind == "string":
            text = value.encode() if isinstance(value, str) else bytes(value)
            self._values.append((place, text + b"\0", len(text), OFFSET_BYTES))
        elif field.name == "data":  # the bytes of an array of any dtype
            array = np.asarray(value, None if isinstance(value, np.ndarray) else np.uint8)
            self._values.append((place, array, array.nbytes, BUFFER_ALIGNMENT))
        else:
            array = np.ascontiguousarray(value, f"<{field.of}" if field.of != "?" else bool)
            self._values.append((place, array, array.size, max(OFFSET_BYTES, SIZES[field.of])))

    def _tables(self, entries: list[Any], place: int) -> None:
        front = self._front
        front += bytes(-len(front) % OFFSET_BYTES)
        struct.pack_into("<I", front, place, len(front) - place)
        front += struct.pack("<I", len(entries))
        first = len(front)
        front += bytes(OFFSET_BYTES * len(entries))
        for i, entry in enumerate(entries):
            self._entry(entry, first + OFFSET_BYTES * i)

    def _entry(self, record: Any, place: int) -> None:
        if is_changed(record) or not self._is_here(record):
            self.table(record, place)
        else:
            self._kept.append((place, record.place))

    def _is_here(self, record: Any) -> bool:
        """Is it from the file whose body is copied, and complete?"""
        return (
            isinstance(record, Record) and record.layout is self._layout and not record.is_rewritten
        )

    def chunks(self) -> list[Any]:
        """The front, the body and the new values."""
        front = self._front
        front += bytes(-len(front) % BUFFER_ALIGNMENT)
        made: list[Any] = [front]
        length = len(front)
        if self._layout is not None and self._kept:
            if self._layout.has_overlaps:
                raise ModelError(f"{self._name} is damaged: its objects overlap", SAVE_AGAIN)
            body = _Body(self._layout, [before for _, before in self._kept], length)
            for (place, _), target in zip(self._kept, body.targets.tolist(), strict=True):
                struct.pack_into("<I", front, place, target - place)
            made += body.chunks
            length += sum(map(_size, body.chunks))
        for place, value, count, alignment in self._values:
            padding = -(length + OFFSET_BYTES) % max(alignment, OFFSET_BYTES)
            start = length + padding
            if start > LIMIT_BYTES:
                break  # the caller refuses the length
            struct.pack_into("<I", front, place, start - place)
            made += [bytes(padding) + struct.pack("<I", count), value]
            length = start + OFFSET_BYTES + _size(value)
        return made


def _placed(fields: list[Field]) -> tuple[dict[int, int], int, int]:
    """Slot -> offset in a table; the size of the table; the alignment of its second offset on."""
    places, end = {}, OFFSET_BYTES
    for field in sorted(fields, key=lambda field: -field.size):
        places[field.slot] = end
        end += field.size
    largest = max((field.size for field in fields), default=OFFSET_BYTES)
    return places, end, max(largest, OFFSET_BYTES)


class _Body:
    """The part of the original that the new file keeps.

    Attributes:
        chunks: its bytes.
        targets: the new position of the object that each kept offset pointed to.
    """

    def __init__(self, layout: Layout, kept: list[int], base: int) -> None:
        """Args: kept: places of offsets in the file; base: the position of the body."""
        roots = np.array([layout.index[place] for place in kept])
        counts = np.zeros(len(layout.starts) + 1, np.int64)
        np.add.at(counts, roots, 1)
        np.add.at(counts, np.array(layout.ends)[roots], -1)
        is_kept = np.cumsum(counts[:-1]) > 0
        starts, stops = np.array(layout.starts), np.array(layout.stops)
        vtables = np.array(layout.vtables)
        tables = is_kept & (vtables >= 0)
        sizes = {shape.vtable: shape.vtable_bytes for shape in layout.shapes.values()}
        used = distinct(vtables[tables])
        used_stops = used + np.array([sizes[each] for each in used.tolist()], np.int64)
        self._layout, self._base = layout, base
        alignments = np.array(layout.alignments)[is_kept]
        self._place_runs(
            np.concatenate([starts[is_kept], used]),
            np.concatenate([stops[is_kept], used_stops]),
            np.concatenate([alignments, np.full(len(used), UNITS)]),
        )
        self.targets = self._moved(starts[roots])
        owners = np.array(layout.owners)
        inside = (owners >= 0) & is_kept[owners]
        at, to = np.array(layout.at)[inside], np.array(layout.to)[inside]
        forward = self._patches(at, to, 1)
        back = self._patches(starts[tables], vtables[tables], -1)
        large = is_kept & ~(vtables >= 0) & (stops - starts >= _LARGE_BYTES)
        self.chunks = self._copied(
            np.concatenate([forward, back]), starts[large].tolist(), stops[large].tolist()
        )

    def _place_runs(self, starts: Array, stops: Array, alignments: Array) -> None:
        """Find the runs of bytes that stay, and their new positions, from the objects that stay."""
        order = np.argsort(starts, kind="stable")
        starts, reached = starts[order], np.maximum.accumulate(stops[order])
        first = np.flatnonzero(np.append(True, starts[1:] - reached[:-1] >= UNITS))
        self._begins = starts[first]
        self._ends = np.append(reached[first[1:] - 1], reached[-1])
        needed = np.maximum.reduceat(alignments[order], first)
        places, end = [], self._base
        runs = zip(self._begins.tolist(), self._ends.tolist(), needed.tolist(), strict=True)
        for begin, stop, alignment in runs:
            places.append(end + (begin - end) % alignment)
            end = places[-1] + stop - begin
        self._shifts = np.array(places) - self._begins

    def _moved(self, positions: Array) -> Array:
        run = np.searchsorted(self._begins, positions, "right") - 1
        return np.asarray(positions + self._shifts[run])

    def _patches(self, at: Array, to: Array, sign: int) -> Array:
        """(n, 2): position in the file and new value of each offset that changes."""
        before, after = sign * (to - at), sign * (self._moved(to) - self._moved(at))
        changed = before != after
        return np.stack([at[changed], after[changed]], axis=1)

    def _copied(self, patches: Array, starts: list[int], stops: list[int]) -> list[Any]:
        """The runs, patched; large vectors are not copied, since no offset is in them."""
        data = np.frombuffer(self._layout.data, np.uint8)
        patches = patches[np.argsort(patches[:, 0], kind="stable")]
        cuts = sorted({*self._begins.tolist(), *self._ends.tolist(), *starts, *stops})
        places = dict(zip(self._begins.tolist(), self._moved(self._begins).tolist(), strict=True))
        gaps = set(self._ends.tolist()) - set(places)
        chunks: list[Any] = []
        length = self._base
        for begin, end in pairwise(cuts):
            if begin in gaps:
                continue
            if padding := places.get(begin, length) - length:
                chunks.append(bytes(padding))
            chunk = data[begin:end]
            low, high = np.searchsorted(patches[:, 0], [begin, end])
            if high > low:
                chunk = chunk.copy()
                at, values = patches[low:high].T
                for byte in range(OFFSET_BYTES):
                    chunk[at - begin + byte] = values >> 8 * byte & 0xFF
            chunks.append(chunk)
            length += padding + end - begin
        return chunks
