"""Keep the output of C++ libraries off the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def no_output(*descriptors: int) -> Iterator[None]:
    """Redirect file descriptors (1: stdout, 2: stderr) to the null device.

    C++ writes to them directly, and the libraries have no option for it. Messages that other
    threads write meanwhile are lost.
    """
    _flush()
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, null)
        for descriptor in descriptors:
            with suppress(OSError):  # the process may lack the descriptor
                saved = os.dup(descriptor)
                stack.callback(_restore, saved, descriptor)
                os.dup2(null, descriptor)
        yield


def _restore(saved: int, descriptor: int) -> None:
    _flush()  # Python's buffered output goes to the null device too
    os.dup2(saved, descriptor)
    os.close(saved)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # missing or closed
            stream.flush()
