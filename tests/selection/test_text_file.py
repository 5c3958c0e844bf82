"""Text that the user names: within limits, and never from something that does not end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.selection import text_file
from exporter.selection.text_file import bounded_lines, read_text, refuse_special


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a pipe"),
    "socket": (_socket, "is a socket"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_files_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe without a writer would wait for ever, and /dev/zero never ends."""
    make, message = SPECIAL[name]
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make(Path("s"))
    for refuse in (refuse_special, read_text):
        with pytest.raises(UsageError, match=message):
            refuse("s")


def test_other_paths_are_left_to_the_caller(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", "nul\0"):
        refuse_special(path)
    refuse_special(Path(__file__))


LARGE = {
    "bytes": ("LARGEST_TEXT", 7, b"cat\ndog", b"cat\ndogs", "is larger than 0 MiB"),
    "values": ("_MOST_VALUES", 2, b"[1,2", b"[1,2]\n", "has 3 lines, commas and brackets"),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constant, limit, fits, large, message = LARGE[name]
    monkeypatch.setattr(text_file, constant, limit)
    path = tmp_path / "text.txt"
    path.write_bytes(fits)
    most = text_file.LARGEST_TEXT
    assert read_text(path, most) == fits.decode()
    path.write_bytes(large)
    with pytest.raises(UsageError, match=message):
        read_text(path, most)


def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(UsageError, match="is larger than 64 MiB"):
        read_text(path)


def test_a_shells_pipe_is_read_once_and_gives_the_same_text_again() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"cat\ndog\n")
        os.close(writing)
        for _ in range(2):
            assert read_text(f"/dev/fd/{reading}") == "cat\ndog\n"
    finally:
        os.close(reading)


def test_a_slow_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer may take a while, but not for ever."""
    reading, writing = os.pipe()

    def write() -> None:
        for _ in range(3):
            time.sleep(0.05)
            os.write(writing, b"cat\n")
        os.close(writing)

    thread = threading.Thread(target=write)
    thread.start()
    assert read_text(f"/dev/fd/{reading}") == "cat\n" * 3
    thread.join()
    os.close(reading)
    monkeypatch.setattr(text_file, "_PIPE_S", 0.1)
    reading, writing = os.pipe()
    with pytest.raises(UsageError, match=r"has not ended after 0\.1 s"):
        read_text(f"/dev/fd/{reading}")
    os.close(reading)
    os.close(writing)


def test_a_pipe_without_an_end_is_refused_at_the_limit() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"cat\ndog\n")
    with pytest.raises(UsageError, match="is larger than"):
        read_text(f"/dev/fd/{reading}", 7)
    os.close(reading)
    os.close(writing)


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_LONGEST_LINE", 5)
    assert list(bounded_lines(StringIO("one\ntwo\n"), Path("a.txt"))) == ["one\n", "two\n"]
    with pytest.raises(UsageError, match=r"a\.txt has a line of more than 5 characters"):
        list(bounded_lines(StringIO("one\nthree\n"), Path("a.txt")))
