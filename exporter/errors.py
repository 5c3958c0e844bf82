"""What can go wrong, sorted by what the user has to change; each class knows its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class ExporterError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        message: one line that states the fact, with the operation, tensor or option by name.
        hint: one line that says what to do, or "".
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckError(ExporterError):
    """A check of the result failed, where a result that failed cannot be returned."""

    exit_code = 1


class UsageError(ExporterError):
    """The command line, or the Python arguments, must change."""

    exit_code = 2


class ModelError(ExporterError):
    """The model must change: a damaged or foreign file, no head, an operation with no rule."""

    exit_code = 3


class NotAllowedError(ExporterError):
    """Refused unless an `--allow-...` option says otherwise."""

    exit_code = 4


class ConversionError(ExporterError):
    """A conversion failed, ran out of time or memory, or its process died."""

    exit_code = 5


class OutputError(ExporterError):
    """The result cannot be written: it exists, or the place is not writable or full."""

    exit_code = 6


def missing_library(error: ImportError) -> UsageError | None:
    """What to tell the user when a library cannot be imported; None where it is none of ours."""
    module = (error.name or "").partition(".")[0]
    if module not in LIBRARIES:
        return None
    if isinstance(error, ModuleNotFoundError):
        message = f"{module} is not installed"
    else:
        message = f"{module} cannot be imported: {str(error).partition(chr(10))[0]}"
    return UsageError(message, f"install it: pip install {LIBRARIES[module]}")


# Module -> the distribution that holds it. One that is left out of an installation is missed only
# by the commands and kinds of model that need it.
LIBRARIES: Mapping[str, str] = {
    "ai_edge_litert": "ai-edge-litert",
    "click": "click",
    "flatbuffers": "flatbuffers",
    "h5py": "h5py",
    "keras": "keras",
    "litert_quantizer": "litert-quantizer",
    "markdown_it": "markdown-it-py",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "onnxconverter_common": "onnxconverter-common",
    "onnxruntime": "onnxruntime",
    "psutil": "psutil",
    "rich": "rich",
    "tensorflow": "tensorflow",
    "tf2onnx": "tf2onnx",
}
