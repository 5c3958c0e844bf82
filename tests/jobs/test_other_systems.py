"""Systems without `fork`: libraries run in the process of the caller, with the same results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.planning.options import CutOptions
from tests.builders.commands import environment, listing

# Libraries look at the system when they are imported, and have no parts for another one here.
PROGRAM = """
import os, sys
import ai_edge_litert.interpreter, filelock, multiprocessing.connection, onnxruntime
import multiprocessing.shared_memory, psutil, tempfile
platform, source, target = sys.argv[1:]
sys.platform = platform
sys.modules["resource"] = None
del os.fork
from pathlib import Path
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.planning.options import CutOptions
prune_file(Path(source), Path(target), CutOptions(keep=[0, 2]), Job(samples=2))
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_prune(platform: str, suffix: str, shelf: Path, tmp_path: Path) -> None:
    """Without the module `resource` too."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    source, name = shelf / f"net.{suffix}", f"out.{suffix}"
    prune_file(source, here / name, CutOptions(keep=[0, 2]), Job(samples=2))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, platform, str(source), str(there / name)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert listing(there) == listing(here)
