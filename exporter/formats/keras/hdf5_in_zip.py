"""HDF5 files that lie inside other files, read where they lie.

A stream out of an archive starts anew for each step back, and HDF5 steps back all the time.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOCAL_HEADER = 30  # bytes of a zip member's own header, before its name


@dataclass(frozen=True)
class Place:
    """Where in a file an HDF5 file starts.

    Attributes:
        path: of the outer file.
        offset: in bytes.
    """

    path: Path
    offset: int


def place_of(path: Path, member: zipfile.ZipInfo) -> Place | None:
    """Where a member of an archive lies; None where it is packed."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with path.open("rb") as file:
        file.seek(member.header_offset)
        lengths = struct.unpack_from("<HH", file.read(_LOCAL_HEADER), _LOCAL_HEADER - 4)
    return Place(path, member.header_offset + _LOCAL_HEADER + sum(lengths))


@contextmanager
def opened(place: Place) -> Iterator[Any]:
    """The `h5py.File` that lies there, to be read (OSError if there is none)."""
    import h5py  # noqa: PLC0415 - loads a C library that not every file needs

    with closing(_Section(place)) as section, h5py.File(section, "r") as file:
        yield file


class _Section:
    """A part of a file, as h5py reads files."""

    def __init__(self, place: Place) -> None:
        self._file = place.path.open("rb")
        self._offset = place.offset
        self._file.seek(place.offset)

    def seek(self, position: int, whence: int = 0) -> int:
        start = self._offset if whence == 0 else 0
        return self._file.seek(start + position, whence) - self._offset

    def tell(self) -> int:
        return self._file.tell() - self._offset

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        self._file.close()
