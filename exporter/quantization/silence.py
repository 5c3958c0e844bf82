"""Keep the output of quantization libraries off the terminal, and shorten their errors."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version

from exporter.errors import ConversionError

# onnx, onnxruntime and litert-quantizer raise these on a graph that they cannot handle.
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
def silenced(library: str, task: str) -> Iterator[list[warnings.WarningMessage]]:
    """Silence a library that quantizes, and convert its exceptions.

    The libraries print progress to stdout and stderr, some from C++, warn of details, and add a
    handler to the root logger.

    Args:
        library: the distribution's name, for messages.
        task: for messages, such as "quantize net.onnx to int8".

    Yields:
        The Python warnings, filled as they are raised.

    Raises:
        ConversionError: the library failed.
    """
    try:
        with _no_output(), _no_logging(), warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            yield messages
    except _FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConversionError(
            f"{library} {version(library)} could not {task}: {reason[:300]}",
            "choose another precision",
        ) from error


@contextmanager
def _no_logging() -> Iterator[None]:
    """`logging.warning` adds a handler to a root logger without one: it gets one meanwhile."""
    root, handler, before = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)


@contextmanager
def _no_output() -> Iterator[None]:
    """Redirect file descriptors 1 and 2 to the null device; C++ writes to them directly."""
    _flush()
    with ExitStack() as stack:
        null = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, null)
        for descriptor in (1, 2):
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
