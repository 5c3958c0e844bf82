"""Measure the memory of a model in its own process (see `exporter.performance.memory`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from exporter.graph import Array

NAME_PREFIX = "="  # of names in the archive: `numpy.savez` has its own argument "file"

Load = Callable[[str, Mapping[str, Array], int], object]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Linux's name -> ours. Of the resident memory: allocated, mapped from files, and the peak.
_FIELDS = {"RssAnon": "anonymous", "RssFile": "mapped", "VmHWM": "peak"}
_RESET_PEAK = "5"  # https://docs.kernel.org/filesystems/proc.html


def print_memory_growth(load_and_run: Load, arguments: Sequence[str]) -> None:
    """Print by how many bytes the process grows when it loads and runs a model, as JSON.

    The keys are "resident", and on Linux also "anonymous", "mapped" and "peak".

    Args:
        load_and_run: (path, feeds by input name, threads) -> an object that keeps the model alive.
        arguments: of the process: its name, the path of the model, an .npz of the feeds in the
            order of the model's inputs, and the number of threads.
    """
    _, path, feeds, threads = arguments
    with np.load(feeds) as archive:
        values = {key.removeprefix(NAME_PREFIX): archive[key] for key in archive.files}
    _reset_peak()
    before = _memory()
    loaded = load_and_run(path, values, int(threads))
    after = _memory()
    del loaded
    before["peak"] = before["resident"]
    growth = {key: value - before[key] for key, value in after.items()}
    print(json.dumps(growth))  # noqa: T201 - the parent reads it


def _memory() -> dict[str, int]:
    """Bytes of this process."""
    found = {"resident": int(psutil.Process().memory_info().rss)}
    if _STATUS.exists():
        lines = (line.split() for line in _STATUS.read_text(encoding="ascii").splitlines())
        sizes = {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
        found |= {ours: int(sizes[name]) * 1024 for name, ours in _FIELDS.items() if name in sizes}
    return found


def _reset_peak() -> None:
    """Forget the peak of importing the runtime, where the system can."""
    with suppress(OSError):  # the peak then counts from the start of the process
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
