"""Temporary files: a full or missing folder is named."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from exporter.errors import OutputError
from exporter.output.scratch import is_full, no_temporary_files, scratch_folder

HINT = "free some space there, or set TMPDIR to another folder"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def fail_in_block(error: Exception) -> None:
    with scratch_folder() as folder:
        (folder / "file").touch()
        raise error


def test_folder_is_removed(temporary: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == temporary
    with scratch_folder(folder.parent) as inner:
        assert inner.parent == temporary
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(code: int, temporary: Path) -> None:
    with pytest.raises(OutputError) as raised:
        fail_in_block(OSError(code, os.strerror(code)))
    assert raised.value.message == (
        f"cannot write temporary files in {temporary}: {os.strerror(code)}"
    )
    assert raised.value.hint == HINT
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", [FileNotFoundError("no.npz"), OutputError("other"), KeyError()])
def test_other_errors_keep_their_class(error: Exception) -> None:
    with pytest.raises(type(error)):
        fail_in_block(error)


def test_missing_folder(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "no"))
    with pytest.raises(OutputError, match=r"temporary files in .*no: No such file"):
        scratch_folder().__enter__()


def test_no_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_found() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none_found)
    monkeypatch.setenv("TMPDIR", "mine")
    error = no_temporary_files(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert error.message == "cannot write temporary files in mine: No space left on device"


def test_errors_of_libraries() -> None:
    """TensorFlow and HDF5 state the cause in their own classes."""
    full = ValueError("Can't write data (error message = 'No space left on device')")
    assert is_full(full)
    assert not is_full(ValueError("no"))
    assert no_temporary_files(full, Path("there")).message == (
        "cannot write temporary files in there: No space left on device"
    )
