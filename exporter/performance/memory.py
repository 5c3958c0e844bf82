"""Measure the memory that a model takes in its runtime.

A process that contains only the runtime loads a model from its file and runs it once. The result
is the growth of its resident memory: weights as the runtime keeps them (mapped, copied or packed),
intermediate tensors and the state of the runtime, so about the memory that a device needs.

Each round starts three processes: the original, the pruned model, and the original again as the A/A
control. A job that writes several files of one original measures it with the first of them. Values
are medians over the rounds. The noise is the largest spread (maximum - minimum) of one model; a
change that is not larger is reported as no measurable change.

The C library keeps freed memory, by rules that adapt to what a process freed before, so that three
in ten processes with the same file were 1.3 MB larger than the others. With fixed rules (blocks of
64 KiB and more are returned to the system at once) they differ by a few pages.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import exporter
from exporter.data.samples import to_model_inputs
from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.ondevice.spec import ENVIRONMENT, NAME_PREFIX, RETURNED_AT_ONCE, Spec
from exporter.output.scratch import scratch_folder
from exporter.records import Memory, MemoryVerdict

ROUNDS = 3
TIMEOUT_S = 600.0
PROBE = "exporter.ondevice.memory_probe"

Growth = Mapping[str, int]  # "resident" and further keys of `memory_probe` -> bytes


@dataclass(frozen=True, eq=False)
class ModelFile:
    """An opened model, and its file."""

    model: Model
    path: Path


# Path of an original -> its repetitions, and those of its A/A control.
Originals = dict[Path, tuple[Sequence[Growth], Sequence[Growth]]]


def measure_memory(
    original: ModelFile,
    pruned: ModelFile,
    feed: Mapping[str, Array],
    options: RunOptions,
    engine: str,
    *,
    known: Originals | None = None,
) -> Memory:
    """Measure the memory of two files of one kind, in alternating processes.

    Args:
        original, pruned: of one kind.
        feed: input name -> values for one run.
        options: threads and provider.
        engine: name and version of the runtime, for the record.
        known: originals of this job that were measured, with the same options: they are not
            measured again. The original is added.

    Raises:
        ModelError: a runtime could not load or run its file.
    """
    with scratch_folder() as folder:
        feeds = {
            each.path: _save(folder / f"{i}.npz", each.model, feed)
            for i, each in enumerate((original, pruned))
        }
        return compare_growth(
            lambda file: _memory_growth(file, feeds[file.path], options),
            original,
            pruned,
            engine,
            {} if known is None else known,
        )


def compare_growth(  # noqa: PLR0917 - in the order of `measure_memory`
    grow: Callable[[ModelFile], Growth],
    original: ModelFile,
    pruned: ModelFile,
    engine: str,
    known: Originals,
    device: str = "",
) -> Memory:
    """Measure two files in turns; see `measure_memory`.

    Args:
        grow: starts a process that loads and runs a file; returns by how much it grew.
    """
    repeated = original.path in known
    sides = [pruned] if repeated else [original, pruned, original]
    rounds = [[grow(side) for side in sides] for _ in range(ROUNDS)]
    if not repeated:
        known[original.path] = [each[0] for each in rounds], [each[2] for each in rounds]
    before, control = known[original.path]
    after = [each[0 if repeated else 1] for each in rounds]
    return summarize(pruned.model.name, engine, before, after, control, device)


def summarize(  # noqa: PLR0917 - in the order of the fields
    artifact: str,
    engine: str,
    original: Sequence[Growth],
    pruned: Sequence[Growth],
    control: Sequence[Growth],
    device: str = "",
) -> Memory:
    """The record of repeated measurements; `control` is the original again.

    Args:
        device: that was measured; "" for this machine.
    """
    before, after = [*original, *control], list(pruned)
    noise = max(_spread(before), _spread(after), RETURNED_AT_ONCE)
    bytes_before, bytes_after = _median(before, "resident") or 0, _median(after, "resident") or 0
    return Memory(
        artifact=artifact,
        engine=engine,
        original_bytes=bytes_before,
        bytes=bytes_after,
        original_anonymous_bytes=_median(before, "anonymous"),
        anonymous_bytes=_median(after, "anonymous"),
        original_mapped_bytes=_median(before, "mapped"),
        mapped_bytes=_median(after, "mapped"),
        original_peak_bytes=_median(before, "peak"),
        peak_bytes=_median(after, "peak"),
        noise_bytes=noise,
        verdict=_verdict(bytes_after - bytes_before, noise),
        raw={"original": list(original), "pruned": after, "control": list(control)},
        device=device,
    )


def _median(growth: Sequence[Growth], key: str) -> int | None:
    values = [each[key] for each in growth if key in each]
    return int(statistics.median(values)) if values else None


def _spread(growth: Sequence[Growth]) -> int:
    values = [each["resident"] for each in growth]
    return max(values) - min(values)


def _verdict(change: int, noise: int) -> MemoryVerdict:
    if abs(change) <= noise:
        return "no measurable change"
    return "smaller" if change < 0 else "larger"


def _save(file: Path, model: Model, feed: Mapping[str, Array]) -> Path:
    """Write the values in the order of the model's inputs, which LiteRT needs."""
    values = to_model_inputs(feed, model.graph())
    named: dict[str, Any] = {
        NAME_PREFIX + name: values[name] for name in model.graph().inputs if name in values
    }
    np.savez(file, **named)
    return file


def _memory_growth(file: ModelFile, feeds: Path, options: RunOptions) -> Growth:
    """The bytes by which a new process grows when it loads and runs the model."""
    spec = Spec(file.model.kind, str(file.path), options.threads, options.provider)
    refusal = f"the memory of {file.model.name} could not be measured"
    try:
        done = run_probe([json.dumps(spec._asdict()), str(feeds)])
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{refusal}: one run took more than {TIMEOUT_S:g} s") from error
    if done.returncode:
        raise ModelError(f"{refusal}: {_error_message(done.stderr) or done.returncode}")
    growth: dict[str, int] = json.loads(done.stdout)
    return growth


def run_probe(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the probe in a new process.

    Raises:
        TimeoutExpired: it took more than TIMEOUT_S.
    """
    return subprocess.run(  # noqa: S603 - this interpreter, a module of this package
        [sys.executable, "-P", "-m", PROBE, *arguments],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
        env=_environment(),
        timeout=TIMEOUT_S,
    )


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
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join([package, others]) if others else package,
        "PYTHONWARNINGS": "ignore",
    }
