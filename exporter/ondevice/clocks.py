"""The clocks of a measurement: wall time, CPU time, and interruptions by other processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]


class Clocks(NamedTuple):
    """Three counters of this process, with all of its threads.

    Attributes:
        wall_ns: time that passes.
        cpu_ns: time on a processor; it stops while other processes run instead.
        interruptions: how often the system took the processor away for another process
            (involuntary context switches); always 0 where the system does not count them.
    """

    wall_ns: Callable[[], int]
    cpu_ns: Callable[[], int]
    interruptions: Callable[[], int]


def _interruptions() -> int:
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


SYSTEM = Clocks(time.perf_counter_ns, time.process_time_ns, _interruptions)
