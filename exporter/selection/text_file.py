"""Read files that the user names: text within limits, and no pipes or devices that never end."""

from __future__ import annotations

import os
import re
import select
import stat
import time
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

from exporter.errors import UsageError, refuse_pointer

LARGEST_TEXT = 1 << 26  # bytes; a million labels take about 20 MB
LARGEST_RECORDS = 1 << 30  # of a file of ground truth; COCO's training set has 0.45 GB
_MOST_VALUES = 1 << 23  # line ends, commas and brackets: a value takes 100 bytes when parsed
_LONGEST_LINE = 1 << 24  # characters
_PIPE_S = 20.0  # the time that the writer of a pipe may take
# What a shell passes for `<(command)` and `command |`.
_DESCRIPTOR = re.compile(r"/dev/stdin|/(?:dev|proc/self)/fd/[0-9]+")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_special(path: str | Path, hint: str = "write the content to a file first") -> None:
    """Raise a UsageError for a pipe, a socket or a device: reading may wait, or never end.

    A path that does not exist, or that may not be looked at, is left to the code that opens it.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise UsageError(f"{str(path)!r} is {kind} and no regular file", hint)


def read_text(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """A file's text without a byte order mark.

    The pipes that a shell names, as in `--labels <(command)` and `--labels /dev/stdin`, are read
    too, for 20 seconds at most and once: a second reader gets the same text.

    Args:
        largest: size in bytes.

    Raises:
        UsageError: the file cannot be read, is not UTF-8 or too large.
    """
    try:
        content = _read(Path(path), largest)
        refuse_pointer(path, content)
        text = TextIOWrapper(BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{str(path)!r} is not UTF-8 text: byte {error.start} is invalid",
            "save the file as UTF-8",
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"cannot read {str(path)!r}: {reason}",
            "check the path; it is relative to the current folder",
        ) from error
    except ValueError as error:  # a NUL character in the path
        raise UsageError(f"cannot read {str(path)!r}: {error}", "check the path") from error
    values = sum(map(text.count, "\n,[{"))
    if largest == LARGEST_TEXT and values > _MOST_VALUES:
        raise UsageError(
            f"{str(path)!r} has {values:,} lines, commas and brackets, more than {_MOST_VALUES:,}",
            "give a file of labels or units",
        )
    return text


def text_lines(text: str) -> list[str]:
    """The stripped lines; only a line feed, or carriage return and line feed, ends a line.

    `str.splitlines` also splits at form feeds and other characters that labels may contain.
    """
    return [line.strip() for line in text.split("\n")]


def bounded_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file with their ends; UsageError for a line that would take all memory."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise UsageError(
                f"{path} has a line of more than {_LONGEST_LINE:,} characters",
                "check that it is a text file",
            )
        yield line


# --- content ------------------------------------------------------------------------------------

_from_pipes: dict[tuple[int, int], bytes] = {}  # device and inode -> content: it comes only once


def _read(path: Path, largest: int) -> bytes:
    if _DESCRIPTOR.fullmatch(str(path)) and stat.S_ISFIFO((found := path.stat()).st_mode):
        key = (found.st_dev, found.st_ino)
        if key not in _from_pipes:
            _from_pipes[key] = _read_pipe(path, largest)
        return _from_pipes[key]
    refuse_special(path)
    with path.open("rb") as file:
        _refuse_larger(os.fstat(file.fileno()).st_size, path, largest)
        content = file.read(largest + 1)  # the size of files in /proc is 0
    _refuse_larger(len(content), path, largest)
    return content


def _read_pipe(path: Path, largest: int) -> bytes:
    content, ends = bytearray(), time.monotonic() + _PIPE_S
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))[0]:
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return bytes(content)
            content += piece
            _refuse_larger(len(content), path, largest)
    finally:
        os.close(descriptor)
    raise UsageError(
        f"the command that writes {str(path)!r} has not ended after {_PIPE_S:g} s",
        "write its output to a file first",
    )


def _refuse_larger(size: int, path: Path, largest: int) -> None:
    if size > largest:
        raise UsageError(
            f"{str(path)!r} is larger than {largest >> 20} MiB", "give a file of labels or units"
        )
