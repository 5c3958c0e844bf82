"""The zip archive that may follow a flatbuffer, with labels and other associated files."""

from __future__ import annotations

import io
import struct
import zipfile

_END = b"PK\x05\x06"
_ENTRY = b"PK\x01\x02"
_ENTRY_BYTES = 46  # without the names and the comment that follow


def start(content: bytes) -> int:
    """Where the archive begins; the length of the content if there is none."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return len(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return min([entry.header_offset for entry in archive.infolist()], default=len(content))
    except zipfile.BadZipFile:
        return len(content)


def moved(archive: bytes, distance: int) -> bytes:
    """The same archive for another place in the file.

    Writers count an archive's offsets from the beginning of the file or from that of the archive;
    the former have to move along.
    """
    end = archive.rfind(_END)
    if end < 0:
        return archive
    size, place = struct.unpack_from("<II", archive, end + 12)
    first = end - size
    if place == first:
        return archive
    result = bytearray(archive)
    struct.pack_into("<I", result, end + 16, place + distance)
    while first + _ENTRY_BYTES <= end and archive.startswith(_ENTRY, first):
        (offset,) = struct.unpack_from("<I", archive, first + 42)
        struct.pack_into("<I", result, first + 42, offset + distance)
        first += _ENTRY_BYTES + sum(struct.unpack_from("<HHH", archive, first + 28))
    return bytes(result)
