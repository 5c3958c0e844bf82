"""The errors of the package, by what the user has to change; each class has its exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # `exporter --help` needs no pathlib
    from pathlib import Path


class ExporterError(Exception):
    """Base class of the errors that this package raises on purpose.

    Attributes:
        message: one line that states the fact and names the operation, tensor or option.
        hint: one line that says what to do, or "". `str(error)` contains both.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class CheckError(ExporterError):
    """A check of the result failed."""

    exit_code = 1


class UsageError(ExporterError):
    """The command line, or the Python arguments, must change."""

    exit_code = 2


class ModelError(ExporterError):
    """The model must change: it is damaged, has no head, or has an operation without a rule."""

    exit_code = 3


class NotAllowedError(ExporterError):
    """Refused unless an `--allow-...` option permits it."""

    exit_code = 4


class ConversionError(ExporterError):
    """A conversion failed, ran out of time or memory, or its process ended."""

    exit_code = 5


class DeviceError(ExporterError):
    """A device cannot be reached, lacks something, or its process ended."""

    exit_code = 5


class OutputError(ExporterError):
    """The result cannot be written: it exists, or the folder is full or read-only."""

    exit_code = 6


@contextmanager
def interpreting(action: str) -> Iterator[None]:
    """Report any error of a step that interprets the content of a model file as the file's fault.

    Model files are not trusted. A damaged one can contradict itself in more ways than checks can
    list, so that some later line fails, here or in a library, with an error about that line.

    Args:
        action: names the step and the file, such as "opening net.onnx".

    Raises:
        ModelError: instead of any exception that is not an `ExporterError`. A missing library stays
            an ImportError.
    """
    try:
        yield
    except (ExporterError, ImportError):
        raise
    except Exception as error:
        raise uninterpretable(action, error) from error


def uninterpretable(action: str, error: Exception) -> ModelError:
    """The error for a file on which `action` failed; its note, the traceback, is for `--debug`."""
    import traceback  # noqa: PLC0415 - `exporter --help` does not need it

    reason = " ".join(str(error).split())[:_MOST_CHARACTERS]
    result = ModelError(
        f"{action} failed: {type(error).__name__}{f': {reason}' if reason else ''}",
        "the file is probably damaged; if its runtime runs it, report the output with --debug",
    )
    result.add_note("".join(traceback.format_exception(error)))
    return result


_MOST_CHARACTERS = 200  # of a library's message


def refuse_pointer(path: object, start: bytes) -> None:
    """ModelError if a file is only the text that Git LFS or git-annex puts in place of it.

    Args:
        path: of the file, for the message.
        start: its first bytes, at least 64 if it has so many.
    """
    for prefix, tool, command in _POINTERS:
        if start.startswith(prefix):
            raise ModelError(
                f"{path} is a pointer of {tool}: the file itself was not downloaded",
                f"run `{command}` in its repository",
            )


_POINTERS = (
    (b"version https://git-lfs.github.com/", "Git LFS", "git lfs pull"),
    (b"version https://hawser.github.com/", "Git LFS", "git lfs pull"),
    (b"/annex/objects/", "git-annex", "git annex get"),
)


def first_line(error: BaseException) -> str:
    """The first line of an error of a library, which may be long; "" if it has no message."""
    return str(error).strip().partition("\n")[0]


def nearest(wrong: str, known: Iterable[str], similarity: float = 0.6) -> str:
    """The known name that is spelled most like a wrong one; "" if none is so similar, of 1."""
    import difflib  # noqa: PLC0415 - `exporter --help` does not need it

    return next(iter(difflib.get_close_matches(wrong, list(known), 1, similarity)), "")


_FILES = 0.85  # equal suffixes make other names similar


def no_such_file(path: Path, hint: str = "check the path") -> UsageError:
    """The error for a file that does not exist; the hint names a similar file of its folder.

    There is no file digits.kers; did you mean digits.keras?
    """
    try:
        found = nearest(path.name, (each.name for each in path.parent.iterdir()), _FILES)
    except OSError:
        return UsageError(f"there is no folder {path.parent}", hint)
    return UsageError(
        f"there is no file {path}", f"did you mean {path.with_name(found)}?" if found else hint
    )


def missing_library(error: ImportError) -> UsageError | None:
    """The error to show if a library of `LIBRARIES` cannot be imported; None for other modules."""
    module = (error.name or "").partition(".")[0]
    if module not in LIBRARIES:
        return None
    if isinstance(error, ModuleNotFoundError):
        message = f"{module} is not installed"
    else:
        message = f"{module} cannot be imported: {first_line(error)}"
    return UsageError(message, f"install it: pip install {LIBRARIES[module]}")


def system_error(error: OSError) -> OutputError | None:
    """The error to show if the operating system refuses a file call; None for other causes."""
    if error.errno not in _REFUSALS:
        return None
    path = "" if error.filename is None else f"{error.filename}: "
    shown = OutputError(
        f"a file cannot be used: {path}{error.strerror}",
        "check the path, its permissions and the space on its disk",
    )
    shown.__cause__ = error  # --debug shows it
    return shown


_REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),  # not permitted
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE),  # used up
    *(errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP),
}


# Module -> the distribution to install. A library that is not installed is missed only by the
# commands and the kinds of model that need it.
LIBRARIES: Mapping[str, str] = {
    "PIL": "unit-exporter[data]",
    "ai_edge_litert": "ai-edge-litert",
    "click": "click",
    "distributed": "unit-exporter[batch]",
    "filelock": "filelock",
    "flatbuffers": "flatbuffers",
    "aiohttp": "unit-exporter[storage]",
    "fsspec": "unit-exporter[storage]",
    "h5py": "unit-exporter[convert]",
    "keras": "unit-exporter[convert]",
    "litert_quantizer": "unit-exporter[quantize]",
    "jinja2": "jinja2",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnx_ir": "unit-exporter[quantize]",
    "onnxconverter_common": "onnxconverter-common",
    "onnxruntime": "onnxruntime",
    "pandas": "unit-exporter[pandas]",
    "psutil": "psutil",
    "matplotlib": "unit-exporter[report]",
    "pyarrow": "unit-exporter[tables]",
    "pycocotools": "unit-exporter[quality]",
    "rapidfuzz": "unit-exporter[quality]",
    "rich": "rich",
    "scipy": "unit-exporter[data]",
    "sentencepiece": "unit-exporter[text]",
    "sklearn": "unit-exporter[data]",
    "soundfile": "unit-exporter[audio]",
    "tensorflow": "unit-exporter[convert]",
    "tf2onnx": "unit-exporter[convert]",
    "tokenizers": "unit-exporter[text]",
}
