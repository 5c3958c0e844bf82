"""Refuse paths that cannot be written, write text, and make the system store files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from exporter.errors import OutputError, UsageError
from exporter.selection.text_file import refuse_special

if TYPE_CHECKING:
    from exporter.graph import Array

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # "C:/" is a path on Windows
PLACE = re.compile(r"\.exporter-.+-[0-9a-f]{8}")  # name of the hidden folder of a target
CHUNK_BYTES = 1 << 24


def refuse_url(path: str | Path) -> None:
    """Raise a UsageError for `ftp://host/file` and the like: it is no path.

    `exporter.storage` reads and writes the URLs that are supported before a path is expected.
    """
    if _URL.match(str(path)):
        raise UsageError(
            f"{path} is a URL of a kind that is not supported here",
            "use s3://, gs://, az://, https:// or a path; see docs/storage.md",
        )


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise an OutputError if the path exists and `force` is not set, or if it cannot exist."""
    refuse_url(path)
    with writing(path), suppress(FileNotFoundError, NotADirectoryError):
        kind = path.lstat().st_mode
        if not force:
            raise OutputError(f"{path} exists", "use --force to replace it")
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISLNK(kind)):
            raise OutputError(f"{path} is a device, a pipe or a socket", "choose another -o")


def refuse_existing_file(path: Path, *, force: bool) -> None:
    """Raise an OutputError if the path is a folder, or exists and `force` is not set."""
    refuse_url(path)
    with writing(path):
        if path.is_dir():
            raise OutputError(f"{path} is a folder", "give the name of a file with -o")
    refuse_existing(path, force=force)


def refuse_missing_folder(path: Path) -> None:
    """Raise an OutputError if the folder that the path is in does not exist."""
    with writing(path):
        if not path.parent.is_dir():
            raise OutputError(
                f"there is no folder {path.parent}", "create it, or choose another -o"
            )


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an error of the operating system into an OutputError that names the target."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 without changing the line ends."""
    path.write_text(text, encoding="utf-8", newline="")


def byte_chunks(values: Array) -> Iterator[bytes]:
    """The bytes of an array in C order, in chunks: a memory map is never copied as a whole."""
    array = values.reshape(1) if not values.ndim else values
    rows = max(1, CHUNK_BYTES * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), rows):
        yield array[start : start + rows].tobytes()


def cannot_write(target: Path, error: OSError) -> OutputError:
    """The error for a target that the operating system refuses to write."""
    target = _final(target)
    if isinstance(error, FileExistsError):
        found = Path(error.filename2 or error.filename or target)  # perhaps a file next to it
        if found.name != target.name and found.parent.resolve() == target.parent.resolve():
            target = target.with_name(found.name)
        return OutputError(f"{target} exists", "use --force to replace it")
    hint = HINTS.get(error.errno or 0, "choose another place with -o")
    return OutputError(f"cannot write {target}: {error.strerror or error}", hint)


def _final(path: Path) -> Path:
    """The path that a prepared file will have."""
    parts = path.parts
    for index, part in enumerate(parts):
        if PLACE.fullmatch(part):
            return Path(*parts[:index], *parts[index + 2 :])
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    refuse_special(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_source(path: Path) -> str:
    """The SHA-256 of a model file, in hex; a file that did not change is hashed once a process.

    A file counts as unchanged if its state is the same, and was settled when the file was hashed.
    """
    with path.open("rb") as file:
        key = _state(os.fstat(file.fileno()))
        if key in _HASHES:
            return _HASHES[key]
        now = time.time_ns()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if is_settled(key, now):
        if len(_HASHES) >= _MOST_HASHES:
            _HASHES.clear()
        _HASHES[key] = digest
    return digest


FileState: TypeAlias = tuple[int, int, int, int, int]  # device, inode, bytes, two times in ns


def file_state(path: Path) -> FileState:
    """What changes if a file is changed or replaced (raises OSError)."""
    return _state(path.stat())


def is_settled(state: FileState, read_ns: int) -> bool:
    """Would a change since the file was read show in its state?

    File systems store times in steps of up to two seconds: a file that was changed just before it
    was read may change again without a new time.
    """
    return 0 < max(state[3:]) < read_ns - _SETTLED_NS


def _state(found: os.stat_result) -> FileState:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


_HASHES: dict[FileState, str] = {}
_SETTLED_NS, _MOST_HASHES = 2 * 10**9, 1000


def flush_to_disk(path: Path) -> None:
    """Make the operating system store the content of a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Make the operating system store the names in a folder, where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder may be written and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system has no such operation
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Make the operating system store all files in a folder."""
    for path, _folders, files in os.walk(folder):
        for name in files:
            flush_to_disk(Path(path, name))
        flush_folder(Path(path))


def apply_umask(path: Path) -> None:
    """Give a temporary file the permissions of an ordinary new file instead of 0600."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


HINTS: Mapping[int, str] = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: the quota is used up",
    errno.ENAMETOOLONG: "choose a shorter name with -o",
}
