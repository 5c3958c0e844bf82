"""Facts about the machine that may explain its speed, without names of people, hosts and paths."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_CPU_KEYS = ("model name", "Model", "Hardware", "cpu model")  # x86, Arm boards, older Arm, MIPS
_SYSTEM = Path("/sys")
_GOVERNOR = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
_TEMPERATURE = "class/thermal/thermal_zone*/temp"


def machine() -> dict[str, Any]:
    """Processor model, cores that this process may use, memory in bytes, system and Python."""
    return {
        "cpu": cpu_model(),
        "cores": _cores(),
        "memory_bytes": _memory_bytes(),
        "system": " ".join(filter(None, (platform.system(), platform.machine()))),
        "python": platform.python_version(),
    }


def state(system: Path = _SYSTEM) -> dict[str, Any]:
    """What changes: "governor" of the clock speed, and "temperature_c", the hottest sensor.

    A value that the system does not show is None.
    """
    governors = sorted(set(_lines(system, _GOVERNOR)))
    millidegrees = [
        int(text) for text in _lines(system, _TEMPERATURE) if text.lstrip("-").isdigit()
    ]
    return {
        "governor": ", ".join(governors) or None,
        "temperature_c": max(millidegrees) / 1000 if millidegrees else None,
    }


def _lines(folder: Path, pattern: str) -> Iterator[str]:
    for path in folder.glob(pattern):
        try:
            yield path.read_text(encoding="utf-8").strip()
        except OSError:  # a sensor that is off
            continue


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):  # Linux; a container may use fewer than exist
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        try:
            import psutil
        except ImportError:
            return None
        return int(psutil.virtual_memory().total)


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """The name of the processor."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    known = (values.get(key, "") for key in _CPU_KEYS)
    return next(filter(None, known), "") or platform.processor() or platform.machine() or "unknown"
