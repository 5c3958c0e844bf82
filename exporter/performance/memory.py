"""Measure the memory that a model takes in its runtime.

A process that holds only the runtime loads each model from its file and runs it once. The result
is the growth of its resident memory: weights as the runtime keeps them (mapped, copied or packed),
intermediate tensors and the state of the runtime, so about the memory that a device needs. The
result is the median of several processes, because single ones differ by up to a megabyte.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import exporter
from exporter.data.samples import to_model_inputs
from exporter.errors import ModelError
from exporter.formats import KINDS
from exporter.formats.memory_probe import NAME_PREFIX
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.records import Memory

PROCESSES = 3  # for each model
TIMEOUT_S = 600.0


@dataclass(frozen=True, eq=False)
class ModelFile:
    """An opened model, and its file."""

    model: Model
    path: Path


def measure_memory(
    original: ModelFile, pruned: ModelFile, feed: Mapping[str, Array], threads: int, engine: str
) -> Memory:
    """Measure the memory of two files of one kind, in alternating processes.

    Args:
        feed: input name -> values for one run.
        threads: within one operation.
        engine: name and version of the runtime, for the record.

    Raises:
        ModelError: a runtime could not load or run its file.
    """
    files = original, pruned
    with tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        feeds = [_save(Path(folder, f"{i}.npz"), each.model, feed) for i, each in enumerate(files)]
        growth = [
            [_memory_growth(*pair, threads) for pair in zip(files, feeds, strict=True)]
            for _ in range(PROCESSES)
        ]
    medians = [int(statistics.median(each)) for each in zip(*growth, strict=True)]
    return Memory(pruned.model.name, engine, *medians)


def _save(file: Path, model: Model, feed: Mapping[str, Array]) -> Path:
    """Write the values in the order of the model's inputs, which LiteRT needs."""
    values = to_model_inputs(feed, model.graph())
    named: dict[str, Any] = {
        NAME_PREFIX + name: values[name] for name in model.graph().inputs if name in values
    }
    np.savez(file, **named)
    return file


def _memory_growth(file: ModelFile, feeds: Path, threads: int) -> int:
    """The bytes by which a new process grows when it loads and runs the model."""
    module = f"{KINDS[file.model.kind].package}.memory_probe"
    refusal = f"the memory of {file.model.name} could not be measured"
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, a module of this package
            [sys.executable, "-P", "-m", module, str(file.path), str(feeds), str(threads)],
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
        raise ModelError(f"{refusal}: {_error_message(done.stderr) or done.returncode}")
    return int(done.stdout)


def _error_message(traceback: str) -> str:
    """The error at the end of a traceback, in one line; only its first line is not indented."""
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
