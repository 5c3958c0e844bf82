"""File calls that fail, or a process that ends, at the nth call."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from exporter.output import rename

_CALLS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "open", "fsync", "chmod")


class Killed(BaseException):
    """Stands for SIGKILL: no file call after it has an effect."""


class FileCalls:
    """Count the calls that change files, and fail at one of them.

    Attributes:
        count: of the calls so far.
        names: of the calls so far.
    """

    def __init__(self, nth: int, error: int | None) -> None:
        """Args: nth: from 1 on; 0 for no failure. error: an errno; None ends the process."""
        self.count, self.names = 0, list[str]()
        self._nth, self._error = nth, error

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            if name == "open" and _only_reads(arguments, keywords):
                return call(*arguments, **keywords)
            self.count += 1
            self.names.append(name)
            if self._nth and self._error is None and self.count >= self._nth:
                raise Killed
            if self.count == self._nth and self._error is not None:
                raise OSError(self._error, os.strerror(self._error))
            return call(*arguments, **keywords)

        return counted


def _only_reads(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    mode = arguments[1] if len(arguments) > 1 else keywords.get("mode", "r")
    if isinstance(mode, int):
        return not mode & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return set(mode) <= set("rbt")


@contextmanager
def failing(nth: int, error: int | None = None) -> Iterator[FileCalls]:
    """Let the nth call that changes files fail, or let the process end there."""
    calls = FileCalls(nth, error)
    renameat2 = rename._renameat2()
    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, calls.wrap(name, getattr(os, name)))
        patch.setattr(io, "open", calls.wrap("open", io.open))
        if renameat2 is not None:
            wrapped = calls.wrap("renameat2", renameat2)
            patch.setattr(rename, "_renameat2", lambda: wrapped)
        yield calls
