"""Read an HDF5 file where it is stored inside another file, without unpacking it.

HDF5 seeks backward all the time, and a stream from `zipfile` starts again for each seek backward.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOCAL_HEADER = 30  # bytes of the header before a zip member, without its name


def member_offset(path: Path, member: zipfile.ZipInfo) -> int | None:
    """Offset in bytes of an archive member's content; None if the member is compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        name, extra = struct.unpack_from("<HH", file.read(_LOCAL_HEADER), _LOCAL_HEADER - 4)
    return member.header_offset + _LOCAL_HEADER + int(name + extra)


@contextmanager
def open_hdf5_at(path: Path, offset: int) -> Iterator[Any]:
    """Open the `h5py.File` that starts at this offset, for reading (OSError if there is none)."""
    import h5py  # noqa: PLC0415 - loads a C library that not every file needs

    with path.open("rb") as outer, h5py.File(_Section(outer, offset), "r") as file:
        yield file


class _Section:
    """The rest of a file from an offset on, with the methods that h5py calls."""

    def __init__(self, file: Any, offset: int) -> None:
        self._file = file
        self._offset = offset
        self.read, self.readinto, self.flush = file.read, file.readinto, file.flush
        file.seek(offset)

    def seek(self, position: int, whence: int = 0) -> int:
        start = self._offset if whence == 0 else 0
        return int(self._file.seek(start + position, whence)) - self._offset

    def tell(self) -> int:
        return int(self._file.tell()) - self._offset
