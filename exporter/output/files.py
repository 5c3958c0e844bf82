"""Write files atomically: a file appears complete, or does not appear."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import OutputError

if TYPE_CHECKING:
    from exporter.graph import Array

CHUNK_BYTES = 1 << 24


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise an OutputError if the path exists and `force` is not set."""
    if path.exists() and not force:
        raise OutputError(f"{path} exists", "use --force to replace it")


def refuse_missing_folder(path: Path) -> None:
    """Raise an OutputError if the folder that the path is in does not exist."""
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent}", "create it, or choose another -o")


def write_atomically(target: Path, write: Callable[[Path], object], *, force: bool = False) -> None:
    """Let `write` fill a temporary file in the target's folder, then rename it to the target.

    Args:
        write: called with the temporary path, which has the target's suffix.
        force: replace an existing file.

    Raises:
        OutputError: the target exists, its folder does not, or it cannot be written. The temporary
            file is removed whatever `write` raises.
    """
    refuse_existing(target, force=force)
    try:
        handle, name = tempfile.mkstemp(target.suffix, f".{target.stem}.", target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        flush_to_disk(temporary)
        apply_umask(temporary)
        temporary.replace(target)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


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
    hint = "free some space" if error.errno == errno.ENOSPC else "choose another place with -o"
    return OutputError(f"cannot write {target}: {error.strerror or error}", hint)


def flush_to_disk(path: Path) -> None:
    """Make the operating system store the content of a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def apply_umask(path: Path) -> None:
    """Give a temporary file the permissions of an ordinary new file instead of 0600."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
