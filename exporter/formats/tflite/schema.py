"""The flatbuffer: checked, read into objects, and written back.

What a file keeps outside of the flatbuffer comes inside when it is read, since packing would lose
it without a word: buffers and custom options that are given by their place in the file. What is
appended to the file (an archive with labels) is kept as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.flatbuffer import OutsideError, Table
from exporter.graph import Array
from exporter.output.files import byte_chunks

IDENTIFIER = b"TFL3"
LIMIT_BYTES = 2**31 - 1  # flatbuffer offsets are signed; the verifier is skipped beyond
_ALIGNMENT = 16  # the schema's force_align for buffers, which the Python generator leaves out
_MAIN_PARTS = {"operator codes": 1, "subgraph": 2, "buffers": 4}  # fields of the schema's Model
_MIN_OFFSET = 2  # the schema: an offset is "only valid if > 1"


@dataclass(eq=False)
class File:
    """A file taken apart. The objects may be edited; what their arrays look at may not.

    Attributes:
        model: ModelT; arrays are read-only views of the content it was read from.
        tail: the archive behind the flatbuffer, or b"".
        tail_start: where the archive stood.
    """

    model: Any
    tail: bytes
    tail_start: int

    @property
    def main(self) -> Any:
        """SubGraphT 0, the one that runs first."""
        return self.model.subgraphs[0]


def check_start(content: bytes, name: str) -> None:
    """Is this a TFLite file, and small enough to be one? ModelError otherwise.

    A file without one of its main parts would take the runtime's own check down with the process.
    """
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{name} is not a TFLite file")
    check_size(len(content), name)
    try:
        root = Table.root(content)
        parts = {part: root.count(field) for part, field in _MAIN_PARTS.items()}
    except OutsideError as error:
        raise ModelError(f"{name} is damaged or truncated: an offset points outside") from error
    for part, count in parts.items():
        if not count:
            raise ModelError(f"{name} is damaged: it has no {part}")


def check_size(size: int, name: str) -> None:
    """ModelError if a file of so many bytes cannot be checked or written."""
    if size > LIMIT_BYTES:
        raise ModelError(f"{name} is larger than 2 GB, which cannot be checked or written")


def unpack(content: bytes) -> File:
    """Take a file apart whose flatbuffer was verified; call `check_bounds` before using it."""
    start = archive.start(content)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    return File(model, content[start:], start)


def bring_inside(file: File, content: bytes, name: str) -> None:
    """Replace places in the file by what stands there; ModelError where they point outside."""
    for buffer in file.model.buffers or ():
        if buffer.offset >= _MIN_OFFSET:
            buffer.data = _bytes_at(content, buffer.offset, buffer.size, name)
        buffer.offset = buffer.size = 0
    for operator in operators(file.model):
        if operator.largeCustomOptionsOffset >= _MIN_OFFSET:
            place = operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
            operator.customOptions = _bytes_at(content, *place, name)
        operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0


def _bytes_at(content: bytes, offset: int, size: int, name: str) -> Array:
    if offset + size > len(content):
        raise ModelError(f"{name} is truncated: a buffer lies behind its end")
    return np.frombuffer(content, np.uint8, size, offset)


def pack(file: File, name: str) -> bytes:
    """The file's bytes: the flatbuffer, then the archive; equal objects give equal bytes.

    Raises:
        ModelError: an operator's options are of a schema newer than this one, and would be lost;
            or the file would be larger than the format allows.
    """
    return b"".join(_parts(file, name))


def write(file: File, name: str, path: Path) -> None:
    """The same bytes into a file, large buffers a part at a time (raises as `pack`)."""
    with path.open("wb") as target:
        target.writelines(_parts(file, name))


def _parts(file: File, name: str) -> Iterator[bytes]:
    for operator in operators(file.model):
        lost = operator.builtinOptionsType and operator.builtinOptions is None
        if lost or (operator.builtinOptions2Type and operator.builtinOptions2 is None):
            raise ModelError(
                f"{name} has options of a newer schema than this version of ai-edge-litert knows",
                "update ai-edge-litert",
            )
    sizes = [_size(buffer) for buffer in file.model.buffers]
    if sum(sizes) + 2 * _ALIGNMENT * len(sizes) + len(file.tail) + _ROOM_BYTES > LIMIT_BYTES:
        raise ModelError(f"{name} would be larger than 2 GB, which the format cannot hold")
    flat, behind = _packed(file, sizes)
    length = len(flat)
    yield flat
    for values in behind:
        yield _before(length, values.nbytes)
        length += len(_before(length, values.nbytes)) + values.nbytes
        yield from byte_chunks(values)
    if file.tail:
        room = (file.tail_start - length) % archive.ALIGNMENT
        yield bytes(room)
        yield archive.moved(file.tail, length + room - file.tail_start)


def _packed(file: File, sizes: list[int]) -> tuple[bytes, list[Any]]:
    """The flatbuffer up to its large buffers, and those, which stand behind it one by one.

    Offsets point forward: a vector that stands at the end may be added without moving the rest.
    """
    small = sum(size for size in sizes if size < _LARGE_BYTES)
    builder = flatbuffers.Builder(small + _ROOM_BYTES)  # it doubles its way up from less
    buffers = file.model.buffers
    file.model.buffers = [_Aligned(buffer) for buffer in buffers]
    builder.Finish(file.model.Pack(builder), IDENTIFIER)
    file.model.buffers = buffers
    flat = builder.Output()
    behind = [buffer.data for buffer in buffers if _size(buffer) >= _LARGE_BYTES]
    places = [
        table.place_of(_DATA)
        for table, size in zip(Table.root(bytes(flat)).tables(_BUFFERS), sizes, strict=True)
        if size >= _LARGE_BYTES
    ]
    length = len(flat)
    for place, values in zip(places, behind, strict=True):
        start = length + len(_before(length, values.nbytes)) - _COUNT_BYTES
        struct.pack_into("<I", flat, place, start - place)
        length = start + _COUNT_BYTES + values.nbytes
    return bytes(flat), behind


def _before(length: int, size: int) -> bytes:
    """What stands between so many bytes and the values of a vector: room, and its count."""
    return bytes(-(length + _COUNT_BYTES) % _ALIGNMENT) + struct.pack("<I", size)


_ROOM_BYTES = 1 << 16  # for all but the buffers; grows if it must
_LARGE_BYTES = 1 << 20  # of a buffer that is not copied to be packed
_COUNT_BYTES = 4
_BUFFERS, _DATA = 4, 0  # fields of the schema's Model and Buffer


def operators(model: Any) -> Iterator[Any]:
    """Every OperatorT of every subgraph."""
    for subgraph in model.subgraphs or ():
        yield from subgraph.operators or ()


def _size(buffer: Any) -> int:
    return 0 if buffer.data is None else int(buffer.data.nbytes)


class _Aligned:
    """Stands in for a BufferT while packing, and writes its data at a multiple of 16 bytes.

    Of a large one only the place is made.
    """

    def __init__(self, buffer: Any) -> None:
        if _size(buffer) >= _LARGE_BYTES:
            self.data: Any = np.empty(0, np.uint8)
        elif buffer.data is None:
            self.data = None
        else:
            self.data = np.ascontiguousarray(buffer.data).reshape(-1).view(np.uint8)

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the name that ModelT.Pack calls
        place = None if self.data is None else self._write(builder)
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return int(schema.BufferEnd(builder))

    def _write(self, builder: Any) -> int:
        builder.StartVector(1, len(self.data), _ALIGNMENT)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = memoryview(self.data)
        return int(builder.EndVector())


def text(value: bytes | str | None) -> str:
    """A string of the file; what is not UTF-8 is replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def metadata(model: Any, name: str) -> Array | None:
    """The metadata of that name as uint8, or None."""
    for entry in model.metadata or ():
        if text(entry.name) == name:
            data: Array | None = model.buffers[entry.buffer].data
            return np.empty(0, np.uint8) if data is None else data
    return None


def set_metadata(model: Any, name: str, value: bytes) -> None:
    """Add metadata, or replace that of the same name."""
    data = np.frombuffer(value, np.uint8)
    for entry in model.metadata or ():
        if text(entry.name) == name:
            model.buffers[entry.buffer] = schema.BufferT(data=data)
            return
    model.buffers.append(schema.BufferT(data=data))
    entry = schema.MetadataT(name=name, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or ()), entry]


def raise_runtime(model: Any, version: str) -> None:
    """State at least this runtime where the file states which one it needs."""
    stated = metadata(model, RUNTIME)
    if stated is None:
        return
    known = stated.tobytes().rstrip(b"\0").decode("ascii", "replace")
    if _numbers(known) < _numbers(version):
        set_metadata(model, RUNTIME, version.encode().ljust(_RUNTIME_BYTES, b"\0"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


RUNTIME = "min_runtime_version"
_RUNTIME_BYTES = 16
