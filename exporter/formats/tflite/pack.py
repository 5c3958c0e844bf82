"""Write an unpacked file: the flatbuffer, its large buffers, then the archive."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.flatbuffer import Table
from exporter.formats.tflite.schema import IDENTIFIER, LIMIT_BYTES, File, operators
from exporter.output.files import byte_chunks

_ALIGNMENT = 16  # the schema's force_align for buffers, which the Python generator ignores
_RESERVED_BYTES = 1 << 16  # for everything but the buffers; the builder grows if it needs more
_LARGE_BYTES = 1 << 20  # buffers from this size on are written without a copy
_COUNT_BYTES = 4
_BUFFERS, _DATA = 4, 0  # fields of the schema's Model and Buffer


def pack(file: File, name: str) -> bytes:
    """The file's bytes; equal objects give equal bytes.

    Raises:
        ModelError: an operator has options of a schema newer than this one, which would be lost;
            or the file would be larger than the format allows.
    """
    return b"".join(_chunks(file, name))


def write(file: File, name: str, path: Path) -> None:
    """Write the same bytes into a file, large buffers in chunks (raises as `pack` does)."""
    with path.open("wb") as target:
        target.writelines(_chunks(file, name))


def _chunks(file: File, name: str) -> Iterator[bytes]:
    for operator in operators(file.model):
        lost = operator.builtinOptionsType and operator.builtinOptions is None
        if lost or (operator.builtinOptions2Type and operator.builtinOptions2 is None):
            raise ModelError(
                f"{name} has options of a newer schema than this version of ai-edge-litert knows",
                "update ai-edge-litert",
            )
    sizes = [_size(buffer) for buffer in file.model.buffers]
    total = sum(sizes) + 2 * _ALIGNMENT * len(sizes) + len(file.tail) + _RESERVED_BYTES
    if total > LIMIT_BYTES:
        raise ModelError(f"{name} would be larger than 2 GB, which the format does not allow")
    flatbuffer, large = _packed(file, sizes)
    length = len(flatbuffer)
    yield flatbuffer
    for values in large:
        yield _vector_start(length, values.nbytes)
        length += len(_vector_start(length, values.nbytes)) + values.nbytes
        yield from byte_chunks(values)
    if file.tail:
        padding = (file.tail_start - length) % archive.ALIGNMENT
        yield bytes(padding)
        yield archive.moved(file.tail, length + padding - file.tail_start)


def _packed(file: File, sizes: list[int]) -> tuple[bytes, list[Any]]:
    """The flatbuffer without its large buffers, and the values of these.

    Offsets of the format point forward, so a vector may follow at the end of the file: the offset
    in its Buffer is set here.
    """
    small = sum(size for size in sizes if size < _LARGE_BYTES)
    builder = flatbuffers.Builder(small + _RESERVED_BYTES)
    buffers = file.model.buffers
    file.model.buffers = [_AlignedBuffer(buffer) for buffer in buffers]
    builder.Finish(file.model.Pack(builder), IDENTIFIER)
    file.model.buffers = buffers
    flatbuffer = builder.Output()
    large = [buffer.data for buffer in buffers if _size(buffer) >= _LARGE_BYTES]
    fields = [
        table.position_of(_DATA)
        for table, size in zip(Table.root(bytes(flatbuffer)).tables(_BUFFERS), sizes, strict=True)
        if size >= _LARGE_BYTES
    ]
    length = len(flatbuffer)
    for field, values in zip(fields, large, strict=True):
        start = length + len(_vector_start(length, values.nbytes)) - _COUNT_BYTES
        struct.pack_into("<I", flatbuffer, field, start - field)
        length = start + _COUNT_BYTES + values.nbytes
    return bytes(flatbuffer), large


def _vector_start(length: int, size: int) -> bytes:
    """Padding and count of a vector of bytes that follows `length` bytes; its values follow."""
    return bytes(-(length + _COUNT_BYTES) % _ALIGNMENT) + struct.pack("<I", size)


def _size(buffer: Any) -> int:
    return 0 if buffer.data is None else int(buffer.data.nbytes)


class _AlignedBuffer:
    """Replaces a BufferT while packing: its data starts at a multiple of 16 bytes.

    Of a large buffer an empty vector is written.
    """

    def __init__(self, buffer: Any) -> None:
        if _size(buffer) >= _LARGE_BYTES:
            self.data: Any = np.empty(0, np.uint8)
        elif buffer.data is None:
            self.data = None
        else:
            self.data = np.ascontiguousarray(buffer.data).reshape(-1).view(np.uint8)

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the name that ModelT.Pack calls
        vector = None if self.data is None else self._write(builder)
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))

    def _write(self, builder: Any) -> int:
        builder.StartVector(1, len(self.data), _ALIGNMENT)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = memoryview(self.data)
        return int(builder.EndVector())
