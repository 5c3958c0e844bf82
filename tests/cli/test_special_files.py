"""Pipes, sockets and devices instead of files: refused by name, at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.builders.commands import command, environment, exporter, listing

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")

PRUNE = "prune net.onnx -o out.onnx"
# line, in which `pipe` is the pipe with the right suffix; exit code
LINES = {
    "model": ("inspect pipe.onnx", 2),
    "compared model": ("verify net.onnx pipe.onnx", 2),
    "labels": (f"{PRUNE} --keep 0 --labels pipe.txt", 2),
    "units": (f"{PRUNE} --keep @pipe.txt", 2),
    "arrays": (f"{PRUNE} --keep 0 --data pipe.npz", 2),
    "table": (f"{PRUNE} --keep 0 --data pipe.csv", 2),
    "truth": ("verify net.onnx net.onnx --data samples.npz --truth pipe.json", 2),
    "calibration": ("quantize net.onnx -o q.onnx --precision int8 --calibration pipe.npz", 2),
    "counts": ("select net.onnx -o s.json --counts pipe.csv", 2),
    "worst case": (f"{PRUNE} --keep 0 --save-worst pipe.npz", 2),
    "output": ("run net.onnx -o pipe --keep 0 --force", 6),
    "device": (f"{PRUNE} --keep @/dev/zero", 2),
    "remap": ("verify net.onnx cut.onnx", 3),
}


@pytest.fixture
def work(shelf: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("net.onnx", "samples.npz"):
        shutil.copyfile(shelf / name, folder / name)
    return folder


@pytest.mark.parametrize("name", LINES)
def test_a_pipe_is_refused(name: str, work: Path) -> None:
    """Reading it would wait for a writer for ever."""
    line, code = LINES[name]
    shutil.copyfile(work / "net.onnx", work / "cut.onnx")
    os.mkfifo(work / "cut.onnx.remap.json")
    pipe = next((word.lstrip("@") for word in line.split() if "pipe" in word), None)
    if pipe:
        os.mkfifo(work / pipe)
    before = sorted(path.name for path in work.iterdir())
    done = exporter(line, work)
    assert done.code == code, done.err
    (error,) = (each for each in done.err.splitlines() if each.startswith("error: "))
    assert (pipe or {"device": "/dev/zero", "remap": "cut.onnx.remap.json"}[name]) in error
    assert ("device" if name == "device" else "pipe") in error
    assert sorted(path.name for path in work.iterdir()) == before


SHELL = {
    "process substitution": "{exporter} prune net.onnx -o out.onnx --keep @<(printf '0\\n2\\n')",
    "stdin": "printf '0\\n2\\n' | {exporter} prune net.onnx -o out.onnx --keep @/dev/stdin",
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no shell that has <(command)")
@pytest.mark.parametrize("name", SHELL)
def test_the_pipes_of_a_shell_are_read(name: str, work: Path) -> None:
    line = SHELL[name].replace("{exporter}", " ".join(command()))
    subprocess.run(["bash", "-c", line], cwd=work, env=environment(), check=True, timeout=120)  # noqa: S607
    found = listing(work)["out.onnx"]
    assert exporter("prune net.onnx -o again.onnx --keep 0,2", work).code == 0
    assert listing(work)["again.onnx"] == found
