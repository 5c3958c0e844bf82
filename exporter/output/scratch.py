"""Temporary files, and an error that names their folder if it is full."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from exporter.errors import OutputError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for temporary files, which is removed when the block ends.

    Args:
        parent: the folder that it is in. Default: TMPDIR, else the one of the system.

    Raises:
        OutputError: there is no folder for temporary files, or its disk is full.
    """
    with temporary_files(), ExitStack() as stack:
        try:
            name = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="exporter-", dir=parent, ignore_cleanup_errors=True
                )
            )
        except OSError as error:
            raise no_temporary_files(error) from error
        yield Path(name)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Turn the error of a full disk into an OutputError that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise no_temporary_files(error) from error


def is_full(error: BaseException) -> bool:
    """Does an error say that a disk is full? Libraries state it in their own classes."""
    return getattr(error, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in str(error)


def no_temporary_files(error: BaseException, folder: Path | None = None) -> OutputError:
    """The error for temporary files that cannot be written.

    Args:
        folder: that contains them. Default: TMPDIR, else the one of the system.
    """
    if folder is None:
        try:
            folder = Path(tempfile.gettempdir())
        except OSError:  # none can be written
            folder = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - only named
    reason = getattr(error, "strerror", None) or os.strerror(errno.ENOSPC)
    return OutputError(
        f"cannot write temporary files in {folder}: {reason}",
        "free some space there, or set TMPDIR to another folder",
    )
