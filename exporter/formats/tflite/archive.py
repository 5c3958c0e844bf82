"""The zip archive that may follow a flatbuffer, with label files and other associated files."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from exporter.errors import ModelError

ALIGNMENT = 16  # moving an archive by a multiple of this does not change its files' alignment

_END = b"PK\x05\x06"
_INDEX_ENTRY = b"PK\x01\x02"
_INDEX_ENTRY_BYTES = 46  # without name, extra field and comment, which follow
_HEADER_BYTES = 30  # of a file's header, without name and extra field
_MAX_BYTES = 2**31 - 1  # as of the model; unpacked
_LARGEST_RATIO, _SMALL_BYTES = 100, 1 << 24  # unpacked bytes: of the archive's, or so few
_HEADER = b"PK\x03\x04"
_DATE = 0, (1 << 5) | 1  # time and date: 1980-01-01, the format's first day
_VERSION = 20  # that a reader needs to extract stored files
_EMPTY = _END + bytes(18)
_UNIX = 3  # the system that an archive states; the same on all systems
_UTF_8 = 0x800  # the flag for names in UTF-8


def start(content: bytes) -> int:
    """The offset of the archive; the length of the content if there is none."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return len(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return min([entry.header_offset for entry in archive.infolist()], default=len(content))
    except (zipfile.BadZipFile, NotImplementedError):  # not an archive, but bytes that look like it
        return len(content)


def has_start_of(content: bytes, name: str) -> bool:
    """Does the content have the header of an archived file of that name, perhaps cut off?"""
    wanted = name.encode()
    position = content.find(_HEADER)
    while position >= 0:
        first = position + _HEADER_BYTES
        if content.startswith(wanted, first) or wanted.startswith(content[first:]):
            return True
        position = content.find(_HEADER, position + 1)
    return False


def moved(archive: bytes, distance: int) -> bytes:
    """The same archive for another offset in the file.

    Some writers count an archive's offsets from the start of the file, which have to change; others
    count from the start of the archive.
    """
    if _is_relative(archive):
        return archive
    end = archive.rfind(_END)
    size, offset = struct.unpack_from("<II", archive, end + 12)
    first = end - size
    result = bytearray(archive)
    struct.pack_into("<I", result, end + 16, offset + distance)
    while first + _INDEX_ENTRY_BYTES <= end and archive.startswith(_INDEX_ENTRY, first):
        (offset,) = struct.unpack_from("<I", archive, first + 42)
        struct.pack_into("<I", result, first + 42, offset + distance)
        first += _INDEX_ENTRY_BYTES + sum(struct.unpack_from("<HHH", archive, first + 28))
    return bytes(result)


def read(archive: bytes, name: str, limit: int) -> bytes | None:
    """A file of the archive; None if there is none of that name, or it has more bytes.

    Raises:
        ModelError: it cannot be read.
    """
    with _opened(archive) as found:
        if name not in found.namelist() or found.getinfo(name).file_size > limit:
            return None
        return found.read(name)


def names(archive: bytes) -> list[str]:
    """The names of the files in an archive.

    Raises:
        ModelError: it cannot be read.
    """
    with _opened(archive) as found:
        return found.namelist()


def contents(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """The name and content of each file (raises ModelError if one cannot be read)."""
    with _opened(archive) as found:
        for entry in found.infolist():
            yield entry.filename, found.read(entry)


def rewritten(
    archive: bytes, offset: int, changed: Mapping[str, bytes], removed: Collection[str] = ()
) -> bytes:
    """The archive with some files changed: same order, same alignment, no compression.

    It is b"" if no file is left.

    Args:
        archive: its bytes; b"" if there is none.
        offset: of the archive in the file, before and after.
        changed: name -> new content; files of other names are added after the present ones.
        removed: names of files to leave out.

    Raises:
        ModelError: a file of the archive cannot be read.
    """
    base = 0 if archive and _is_relative(archive) else offset
    files, index = bytearray(), bytearray()
    with _opened(archive or _EMPTY) as found:
        entries = [entry for entry in found.infolist() if entry.filename not in removed]
        present = set(found.namelist())
        entries += [_new_entry(name) for name in changed if name not in present]
        if not entries:
            return b""
        for entry in entries:
            data = changed.get(entry.filename)
            data = found.read(entry) if data is None else data
            name = entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF_8 else "cp437")
            if entry.filename in present:
                lengths = struct.unpack_from("<HH", archive, entry.header_offset + 26)
                aligned = entry.header_offset + sum(lengths)
                files += bytes((aligned - len(files) - len(name)) % ALIGNMENT)
            common = _common_fields(entry, data, name)
            index += _index_entry(entry, common, name, base + len(files))
            files += _HEADER + struct.pack("<H", _VERSION) + common + bytes(2) + name + data
        count, where = len(entries), base + len(files)
        end = struct.pack("<HHHHII", 0, 0, count, count, len(index), where)
        comment = struct.pack("<H", len(found.comment)) + found.comment
    return bytes(files + index + _END + end + comment)


def _new_entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.flag_bits = _UTF_8
    entry.create_system = _UNIX
    return entry


def _common_fields(entry: zipfile.ZipInfo, data: bytes, name: bytes) -> bytes:
    """The fields that are in a file's header and in its index entry."""
    flags = entry.flag_bits & _UTF_8
    sizes = zlib.crc32(data), len(data), len(data), len(name)
    return struct.pack("<HHHHIIIH", flags, zipfile.ZIP_STORED, *_DATE, *sizes)


def _index_entry(entry: zipfile.ZipInfo, common: bytes, name: bytes, offset: int) -> bytes:
    made = struct.pack("<BBH", _VERSION, entry.create_system, _VERSION)
    rest = (0, len(entry.comment), 0, entry.internal_attr, entry.external_attr, offset)
    return _INDEX_ENTRY + made + common + struct.pack("<HHHHII", *rest) + name + entry.comment


def _is_relative(archive: bytes) -> bool:
    """Are offsets counted from the start of the archive?"""
    end = archive.rfind(_END)
    if end < 0:
        return True
    size, offset = struct.unpack_from("<II", archive, end + 12)
    return bool(offset == end - size)


@contextmanager
def _opened(archive: bytes) -> Iterator[zipfile.ZipFile]:
    end = archive.rfind(_END)
    try:
        size, offset = struct.unpack_from("<II", archive, end + 12)
        with zipfile.ZipFile(io.BytesIO(moved(archive, end - size - offset))) as found:
            unpacked = sum(entry.file_size for entry in found.infolist())
            if unpacked > min(_MAX_BYTES, _LARGEST_RATIO * len(archive) + _SMALL_BYTES):
                raise ModelError(
                    f"the archive after the model unpacks from {len(archive)} to {unpacked} bytes",
                    "remove the files that the model does not need from the archive",
                )
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
        raise ModelError(f"the archive after the model is damaged: {error}") from error
