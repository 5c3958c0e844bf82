"""Keep the output of quantization libraries off the terminal, and shorten their errors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from exporter.errors import ConversionError
from exporter.output.silence import no_output

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
        with no_output(1, 2), _no_logging(), warnings.catch_warnings(record=True) as messages:
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
