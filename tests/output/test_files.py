"""Paths that are refused, errors of the operating system, and flushes."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from exporter.errors import OutputError, UsageError, system_error
from exporter.output import files
from exporter.output.draft import new_file


def test_urls_are_refused_and_paths_are_not() -> None:
    for url in ("s3://bucket/a", "https://x.org/a", "file:///a", Path("gs://bucket/a")):
        with pytest.raises(UsageError, match="is a URL"):
            files.refuse_url(url)
    for path in ("a", "a/b", "C:/a", "/s3:/a", "a:b", "", "./x"):
        files.refuse_url(path)


def test_refused_paths(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        files.refuse_existing_file(tmp_path, force=True)
    with pytest.raises(OutputError, match="there is no folder"):
        files.refuse_missing_folder(tmp_path / "no" / "a")
    files.refuse_missing_folder(tmp_path / "a")
    files.refuse_existing_file(tmp_path / "a", force=False)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match="link exists"):
        files.refuse_existing(tmp_path / "link", force=False)


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="pipe exists"):
        files.refuse_existing(pipe, force=False)
    with pytest.raises(OutputError, match="pipe is a device, a pipe or a socket"):
        files.refuse_existing(pipe, force=True)
    assert pipe.is_fifo()


def test_errors_name_the_final_path(tmp_path: Path) -> None:
    """A prepared file is in a hidden folder, of which the user knows nothing."""
    with new_file(tmp_path / "a.onnx") as draft:
        error = files.cannot_write(draft.path, OSError(errno.EIO, "Input/output error"))
    assert error.message == f"cannot write {tmp_path / 'a.onnx'}: Input/output error"
    assert error.hint == "choose another place with -o"


def deny(*_arguments: object) -> int:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that stores no folders is accepted; a broken disk is not."""

    def fail(code: int) -> None:
        def refuse(_descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", refuse)

    fail(errno.EINVAL)
    files.flush_folder(tmp_path)
    fail(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        files.flush_folder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", deny)
        files.flush_folder(tmp_path)
    monkeypatch.delattr(os, "O_DIRECTORY")
    files.flush_folder(tmp_path)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_errors_of_the_system_and_of_the_program() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "secret.npz")
    shown = system_error(denied)
    assert shown is not None
    assert shown.message == "a file cannot be used: secret.npz: Permission denied"
    assert shown.exit_code == 6
    full = system_error(OSError(errno.ENOSPC, "No space left on device"))
    assert full is not None
    assert full.message == "a file cannot be used: No space left on device"
    assert system_error(FileNotFoundError(errno.ENOENT, "No such file")) is None


def test_a_source_that_did_not_change_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"one")
    old = time.time_ns() - 10**10
    assert files.sha256_of_source(path) == hashlib.sha256(b"one").hexdigest()
    assert str(path.stat().st_ino) not in {str(key[1]) for key in files._HASHES}  # just written
    monkeypatch.setattr(files, "_SETTLED_NS", -(10**12))
    monkeypatch.setattr(files, "_MOST_HASHES", 1)
    assert files.sha256_of_source(path) == hashlib.sha256(b"one").hexdigest()
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        assert files.sha256_of_source(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")  # of the same size, and dated back: the time of the change remains
    os.utime(path, ns=(old, old))
    assert files.sha256_of_source(path) == hashlib.sha256(b"two").hexdigest()
    assert len(files._HASHES) == 1
