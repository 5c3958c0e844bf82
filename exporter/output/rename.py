"""Renames that replace nothing, and renames that exchange two names.

Linux has one system call for both (`renameat2`), which Python does not offer.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_NO_REPLACE, _EXCHANGE = 1, 2  # flags of renameat2, linux/fs.h
_AT_FDCWD = -100  # relative paths start in the current folder
_NOT_SUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}


def move(source: Path, target: Path) -> None:
    """Rename a file or a folder; whatever has the target's name is never replaced.

    Raises:
        FileExistsError: the target exists.
    """
    if _rename(source, target, _NO_REPLACE):
        return
    if source.is_dir():
        _refuse_existing(target)
        source.rename(target)
        return
    try:
        os.link(source, target)
    except FileExistsError:
        if not source.samefile(target):  # else a process was killed before the next line
            raise
    except OSError:  # a file system without hard links: the lock keeps other writers away
        _refuse_existing(target)
        source.rename(target)
        return
    try:
        source.unlink()
    except BaseException:
        target.unlink()
        raise


def exchange(first: Path, second: Path) -> bool:
    """Let two files or folders exchange their names, at once.

    Returns:
        False if the platform or the file system cannot; nothing was done then.
    """
    return _rename(first, second, _EXCHANGE)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _rename(source: Path, target: Path, flags: int) -> bool:
    """Call renameat2; False if the platform or the file system does not support it."""
    function = _renameat2()
    if function is None:
        return False
    if not function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags):
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # no Linux, or an old C library
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    return function
