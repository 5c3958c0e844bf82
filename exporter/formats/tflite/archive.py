"""The zip archive that may follow a flatbuffer, with labels and other associated files."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from exporter.errors import ModelError

ALIGNMENT = 16  # a move by a multiple of this leaves every file of an archive as aligned as it was

_END = b"PK\x05\x06"
_ENTRY = b"PK\x01\x02"
_ENTRY_BYTES = 46  # without the names and the comment that follow
_HEADER_BYTES = 30  # of a file's own header, likewise
_LARGEST = 2**31 - 1  # as the model in front of it
_START = b"PK\x03\x04"
_DATE = 0, (1 << 5) | 1  # time and date: 1980-01-01, the format's first day
_VERSION = 20  # what a reader must know to extract stored files
_UTF_8 = 0x800  # the flag that names are written in UTF-8


def start(content: bytes) -> int:
    """Where the archive begins; the length of the content if there is none."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return len(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return min([entry.header_offset for entry in archive.infolist()], default=len(content))
    except (zipfile.BadZipFile, NotImplementedError):  # bytes that look like an archive's end
        return len(content)


def holds_start(content: bytes, name: str) -> bool:
    """Is there the header of an archived file of that name, itself cut off or not?"""
    wanted = name.encode()
    place = content.find(_START)
    while place >= 0:
        first = place + _HEADER_BYTES
        if content.startswith(wanted, first) or wanted.startswith(content[first:]):
            return True
        place = content.find(_START, place + 1)
    return False


def moved(archive: bytes, distance: int) -> bytes:
    """The same archive for another place in the file.

    Writers count an archive's offsets from the beginning of the file or from that of the archive;
    the former have to move along.
    """
    if _is_relative(archive):
        return archive
    end = archive.rfind(_END)
    size, place = struct.unpack_from("<II", archive, end + 12)
    first = end - size
    result = bytearray(archive)
    struct.pack_into("<I", result, end + 16, place + distance)
    while first + _ENTRY_BYTES <= end and archive.startswith(_ENTRY, first):
        (offset,) = struct.unpack_from("<I", archive, first + 42)
        struct.pack_into("<I", result, first + 42, offset + distance)
        first += _ENTRY_BYTES + sum(struct.unpack_from("<HHH", archive, first + 28))
    return bytes(result)


def read(archive: bytes, name: str, limit: int) -> bytes | None:
    """A file of the archive; None where there is none of that name, or one of more bytes.

    Raises:
        ModelError: it cannot be read.
    """
    with _opened(archive) as found:
        if name not in found.namelist() or found.getinfo(name).file_size > limit:
            return None
        return found.read(name)


def rewritten(archive: bytes, place: int, changed: Mapping[str, bytes]) -> bytes:
    """The archive with some of its files changed: same order, same alignment, nothing compressed.

    Args:
        archive: as it stood in the file.
        place: where in the file it begins, and will begin.
        changed: name -> new content.

    Raises:
        ModelError: a file of the archive cannot be read.
    """
    base = 0 if _is_relative(archive) else place
    files, index = bytearray(), bytearray()
    with _opened(archive) as found:
        entries = found.infolist()
        if sum(entry.file_size for entry in entries) > _LARGEST:
            raise ModelError("the archive behind the model is damaged: it claims more than 2 GB")
        for entry in entries:
            data = changed.get(entry.filename)
            data = found.read(entry) if data is None else data
            lengths = struct.unpack_from("<HH", archive, entry.header_offset + 26)
            aligned = entry.header_offset + sum(lengths)
            name = entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF_8 else "cp437")
            files += bytes((aligned - len(files) - len(name)) % ALIGNMENT)
            common = _common(entry, data, name)
            index += _listed(entry, common, name, base + len(files))
            files += _START + struct.pack("<H", _VERSION) + common + bytes(2) + name + data
        count, where = len(entries), base + len(files)
        end = struct.pack("<HHHHII", 0, 0, count, count, len(index), where)
        comment = struct.pack("<H", len(found.comment)) + found.comment
    return bytes(files + index + _END + end + comment)


def _common(entry: zipfile.ZipInfo, data: bytes, name: bytes) -> bytes:
    """What a file's own header and its entry in the index share."""
    flags = entry.flag_bits & _UTF_8
    sizes = zlib.crc32(data), len(data), len(data), len(name)
    return struct.pack("<HHHHIIIH", flags, zipfile.ZIP_STORED, *_DATE, *sizes)


def _listed(entry: zipfile.ZipInfo, common: bytes, name: bytes, offset: int) -> bytes:
    """A file's entry in the index."""
    made = struct.pack("<BBH", _VERSION, entry.create_system, _VERSION)
    rest = (0, len(entry.comment), 0, entry.internal_attr, entry.external_attr, offset)
    return _ENTRY + made + common + struct.pack("<HHHHII", *rest) + name + entry.comment


def _is_relative(archive: bytes) -> bool:
    """Are offsets counted from the beginning of the archive?"""
    end = archive.rfind(_END)
    if end < 0:
        return True
    size, place = struct.unpack_from("<II", archive, end + 12)
    return bool(place == end - size)


@contextmanager
def _opened(archive: bytes) -> Iterator[zipfile.ZipFile]:
    end = archive.rfind(_END)
    try:
        (place,) = struct.unpack_from("<I", archive, end + 16)
        (size,) = struct.unpack_from("<I", archive, end + 12)
        with zipfile.ZipFile(io.BytesIO(moved(archive, end - size - place))) as found:
            yield found
    except (
        zipfile.BadZipFile,  # also a wrong checksum
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,  # a compression that Python lacks
        RuntimeError,  # encrypted
        OSError,
    ) as error:
        raise ModelError(f"the archive behind the model is damaged: {error}") from error
