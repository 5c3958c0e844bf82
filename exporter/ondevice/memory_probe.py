"""Measure the memory of a model in its own process (see `exporter.performance.memory`)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from exporter.ondevice.runtimes import import_runtime, load
from exporter.ondevice.spec import NAME_PREFIX, Spec

Load = Callable[[Spec, Mapping[str, Any]], object]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# Linux's name -> ours. Of the resident memory: allocated, mapped from files, and the peak.
_FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped", "VmHWM": "peak"}
_RESET_PEAK = "5"  # https://docs.kernel.org/filesystems/proc.html


def print_memory_growth(load_and_run: Load, arguments: Sequence[str]) -> None:
    """Print by how many bytes the process grows when it loads and runs a model, as JSON.

    The keys are "resident", and on Linux also "anonymous", "mapped" and "peak".

    Args:
        load_and_run: (model, feeds by input name) -> an object that keeps the model alive.
        arguments: of the process: its name, the fields of a `Spec` as JSON, and an .npz of the
            feeds in the order of the model's inputs.
    """
    _, spec, feeds = arguments
    with np.load(feeds) as archive:
        values = {key.removeprefix(NAME_PREFIX): archive[key] for key in archive.files}
    _reset_peak()
    before = _memory()
    loaded = load_and_run(Spec(**json.loads(spec)), values)
    after = _memory()
    del loaded
    before["peak"] = before["resident"]
    growth = {key: value - before[key] for key, value in after.items()}
    print(json.dumps(growth))  # noqa: T201 - the parent reads it


def _memory() -> dict[str, int]:
    """Bytes of this process."""
    if not _STATUS.exists():
        import psutil

        return {"resident": int(psutil.Process().memory_info().rss)}
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii").splitlines())
    sizes = {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
    return {ours: int(sizes[name]) * 1024 for name, ours in _FIELDS.items() if name in sizes}


def _reset_peak() -> None:
    """Forget the peak of importing the runtime, where the system can."""
    with suppress(OSError):  # the peak then counts from the start of the process
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")


def load_and_run(spec: Spec, feeds: Mapping[str, Any]) -> object:
    """The model in its runtime, after one run."""
    runner = load(spec)
    runner(feeds)
    return runner


def main(arguments: Sequence[str]) -> None:
    """Measure; see `print_memory_growth`."""
    import_runtime(json.loads(arguments[1])["kind"])  # does not count
    print_memory_growth(load_and_run, arguments)


if __name__ == "__main__":
    main(sys.argv)
