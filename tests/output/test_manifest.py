"""SHA256SUMS of a result folder: written, read by `sha256sum -c`, and compared."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.errors import CheckError
from exporter.output.draft import new_folder
from exporter.output.manifest import check_manifest, outside_files, write_manifest

FILES = {
    "report.json": b"{}",
    "pruned.fp32.onnx": b"model",
    "weights/layer 1.bin": b"\x00" * 9,
    "a\\b.data": b"backslash",
    "line\nend.data": b"line end",
    "carriage\rreturn.data": b"carriage return",
    "Grüße.txt": b"",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder)
    return folder


def test_format(tmp_path: Path) -> None:
    """Two blanks between digest and name, in the order of the names."""
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    write_manifest(tmp_path)
    expected = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in (("a", b"1"), ("b", b"2"))
    )
    assert (tmp_path / "SHA256SUMS").read_text() == expected


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_sha256sum_reads_it(folder: Path) -> None:
    line = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(line, cwd=folder, check=False).returncode == 0
    (folder / "line\nend.data").write_bytes(b"changed")
    done = subprocess.run(line, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "end.data: FAILED" in done.stdout


def test_as_written(folder: Path) -> None:
    found = check_manifest(folder)
    assert found.passed
    assert set(found.matching) == set(FILES)


# change -> the names in missing, changed and extra
CHANGES: dict[str, tuple[Callable[[Path], object], tuple[list[str], list[str], list[str]]]] = {
    "a file is removed": (
        lambda folder: (folder / "report.json").unlink(),
        (["report.json"], [], []),
    ),
    "one byte is changed": (
        lambda folder: (folder / "pruned.fp32.onnx").write_bytes(b"mode1"),
        ([], ["pruned.fp32.onnx"], []),
    ),
    "a file is shorter": (
        lambda folder: (folder / "weights/layer 1.bin").write_bytes(b"\x00" * 8),
        ([], ["weights/layer 1.bin"], []),
    ),
    "a file is added": (lambda folder: (folder / "new").touch(), ([], [], ["new"])),
    "a file is renamed": (
        lambda folder: (folder / "report.json").rename(folder / "report.txt"),
        (["report.json"], [], ["report.txt"]),
    ),
    "a link to nothing is added": (
        lambda folder: (folder / "link").symlink_to("nowhere"),
        ([], [], ["link"]),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_folder(name: str, folder: Path) -> None:
    change, expected = CHANGES[name]
    change(folder)
    found = check_manifest(folder)
    assert not found.passed
    assert (list(found.missing), list(found.changed), list(found.extra)) == expected


DAMAGED = {
    "no line end": (b"0" * 64 + b"  report.json", "is damaged or incomplete"),
    "half a line": (b"0" * 30 + b"\n", "is damaged or incomplete"),
    "no text": (b"\xff\xfe\n", "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_manifest(name: str, folder: Path) -> None:
    content, message = DAMAGED[name]
    (folder / "SHA256SUMS").write_bytes(content)
    with pytest.raises(CheckError, match=message):
        check_manifest(folder)
    assert outside_files(folder) == []


def test_interrupted_copy(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(CheckError, match="it was interrupted while it was written or copied"):
        check_manifest(folder)


def test_unfinished_result(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        write_manifest(folder)
        with pytest.raises(CheckError, match="is the unfinished result of an interrupted run"):
            check_manifest(folder)
