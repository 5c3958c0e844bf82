"""Keep what quantizers print away from the terminal, and turn what they raise into one line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version

from exporter.errors import ConversionError

# What onnx, onnxruntime and litert-quantizer raise on a graph that they cannot handle.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def quantizer(library: str, task: str) -> Iterator[list[warnings.WarningMessage]]:
    """Around all calls of a library that quantizes.

    They print progress to stdout and stderr, some from C++, warn of their own doings, and give the
    root logger a handler.

    Args:
        library: the distribution's name, for messages.
        task: what it is asked for, such as "make net.onnx int8".

    Yields:
        The Python warnings, filled as they come.

    Raises:
        ConversionError: the library failed.
    """
    try:
        with _silenced(), _unlogged(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield told
    except _FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConversionError(
            f"{library} {version(library)} could not {task}: {reason[:300]}",
            "choose another precision",
        ) from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """`logging.warning` would give a root logger without handlers one that stays."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


@contextmanager
def _silenced() -> Iterator[None]:
    """Point file descriptors 1 and 2 at nothing; C++ knows no other way to be quiet."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # none, or a closed one
            stream.flush()
    with ExitStack() as stack:
        nothing = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nothing)
        for descriptor in (1, 2):
            with suppress(OSError):  # a process without it shows nothing
                saved = os.dup(descriptor)
                stack.callback(_restore, saved, descriptor)
                os.dup2(nothing, descriptor)
        yield


def _restore(saved: int, descriptor: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()  # what Python still holds goes where it was meant to go: nowhere
    os.dup2(saved, descriptor)
    os.close(saved)
