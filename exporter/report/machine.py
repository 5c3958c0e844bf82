"""The machine and the library versions of a job, without names of people, hosts and paths."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from exporter.formats import KINDS
from exporter.quantization import PRECISIONS

DISTRIBUTIONS = tuple(
    dict.fromkeys(
        (
            *("unit-exporter", "numpy"),
            *(library for kind in KINDS.values() for library in kind.libraries),
            *(each.library for row in PRECISIONS.values() for each in row.quantizers.values()),
        )
    )
)

_CPUINFO = Path("/proc/cpuinfo")
_CPU_KEYS = ("model name", "Model", "Hardware", "cpu model")  # x86, Arm boards, older Arm, MIPS


class OnDemand(Mapping[str, Any]):
    """Facts that are collected when one of them is read first: a terminal shows none of them."""

    def __init__(self, collect: Callable[[], Mapping[str, Any]]) -> None:
        self._collect = collect

    @cached_property
    def _facts(self) -> Mapping[str, Any]:
        return self._collect()

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def versions() -> dict[str, str]:
    """Distribution -> installed version, and "python"; imports none of these libraries."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor model, cores that this process may use, memory in bytes, system and Python."""
    import psutil

    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "system": " ".join(filter(None, (platform.system(), platform.machine()))),
        "python": platform.python_version(),
    }


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may use fewer than exist
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    known = (values.get(key, "") for key in _CPU_KEYS)
    return next(filter(None, known), "") or platform.processor() or platform.machine() or "unknown"
