"""The memory that a model takes in its runtime, measured where nothing else is held.

Each model is loaded from its file and run once by a process of its own, which imports the runtime,
notes its resident size, and notes it again afterwards. What it grew by holds all that a device has
to find for the model: weights as the runtime keeps them (mapped, copied or packed), tensors in
between, and the runtime's own state. The median of a few processes is told: one alone may differ
by a megabyte, by how the allocator was left by what came before.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import exporter
from exporter.data.samples import to_model_inputs
from exporter.errors import ModelError
from exporter.formats import KINDS
from exporter.formats.memory_probe import MARK
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.records import Memory

PROCESSES = 3  # for each side
TIMEOUT_S = 600.0

Sides = Sequence[tuple[Model, Path]]  # the original, and the pruned model, each with its file


def measure_memory(sides: Sides, feed: Mapping[str, Array], threads: int, engine: str) -> Memory:
    """What two files of one kind take, measured in turns.

    Args:
        sides: the original first.
        feed: input name -> values for one run.
        threads: within one operation.
        engine: name and version, for the record.

    Raises:
        ModelError: a runtime could not load or run its file.
    """
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        files = [_feeds(Path(folder, f"{i}.npz"), side[0], feed) for i, side in enumerate(sides)]
        grown = [
            [_resident(*side, file, threads) for side, file in zip(sides, files, strict=True)]
            for _ in range(PROCESSES)
        ]
    original, pruned = (int(statistics.median(each)) for each in zip(*grown, strict=True))
    return Memory(sides[1][0].name, engine, original, pruned)


def _feeds(file: Path, model: Model, feed: Mapping[str, Array]) -> Path:
    """In the order of the model's inputs, by which some runtimes are fed."""
    values = to_model_inputs(feed, model.graph())
    named: dict[str, Any] = {
        MARK + name: values[name] for name in model.graph().inputs if name in values
    }
    np.savez(file, **named)
    return file


def _resident(model: Model, path: Path, feeds: Path, threads: int) -> int:
    """Bytes that a fresh process grew by."""
    module = f"{KINDS[model.kind].package}.memory_probe"
    refusal = f"the memory of {model.name} could not be measured"
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, a module of this package
            [sys.executable, "-P", "-m", module, str(path), str(feeds), str(threads)],
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{refusal}: one run took more than {TIMEOUT_S:g} s") from error
    if done.returncode:
        raise ModelError(f"{refusal}: {_last_words(done.stderr) or done.returncode}")
    return int(done.stdout)


def _last_words(traceback: str) -> str:
    """The error at the end of a traceback; what it goes on with is indented, as its frames are."""
    lines = traceback.rstrip().splitlines()
    start = max((i for i, line in enumerate(lines) if not line.startswith(" ")), default=0)
    return " ".join(" ".join(lines[start:]).split())


def _environment() -> dict[str, str]:
    package = str(Path(exporter.__file__).parent.parent)
    others = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package, others]) if others else package,
        "PYTHONWARNINGS": "ignore",
    }
