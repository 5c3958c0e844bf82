"""Files that appear whole or not at all."""

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


def write_atomically(target: Path, write: Callable[[Path], None], *, force: bool = False) -> None:
    """Let `write` fill a temporary file beside the target, then put it in the target's place.

    Args:
        target: where the file shall stand. The temporary one has the same suffix.
        write: called with the temporary path.
        force: replace an existing file.

    Raises:
        OutputError: the target exists, its folder does not, or it cannot be written. No partial
            file stays behind, whatever `write` raises.
    """
    if target.exists() and not force:
        raise OutputError(f"{target} exists", "use --force to replace it")
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


def byte_chunks(values: Array) -> Iterator[bytes]:
    """The bytes of an array in its order, a part at a time: a map or a view is not copied whole."""
    whole = values.reshape(1) if not values.ndim else values
    rows = max(1, _PART_BYTES * len(whole) // max(1, whole.nbytes))
    for start in range(0, len(whole), rows):
        yield whole[start : start + rows].tobytes()


_PART_BYTES = 1 << 24


def cannot_write(target: Path, error: OSError) -> OutputError:
    """The error for a target that the system refuses to write."""
    hint = "free some space" if error.errno == errno.ENOSPC else "choose another place with -o"
    return OutputError(f"cannot write {target}: {error.strerror or error}", hint)


def flush_to_disk(path: Path) -> None:
    """Have the system put a file's contents on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def apply_umask(path: Path) -> None:
    """Give a temporary file, which is its owner's alone, the permissions of any new file."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
