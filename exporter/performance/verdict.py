"""Decide from the rounds of a bench whether the pruned model is faster, slower, or neither.

1. A block is interrupted if the system took the processor away to run another process, and that
   took more than 2 % of its time. A round with an interrupted block is left out, as long as at
   least half of the rounds are not interrupted.
2. Otherwise the machine is busy: all rounds are used, and with one thread the ratio is of CPU time,
   which does not count the time of other processes. CPU time of several threads is no latency.
3. A change is reported if the interval of the ratio excludes 1, and the ratio is farther from 1
   than the noise floor: the half-width of the interval when the original is timed against itself.
4. If no change is found on a busy machine that could not have shown 5 %, the machine is too busy to
   tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array
from exporter.performance.intervals import Ratio, detectable_change, ratio
from exporter.records import TimeBasis, Verdict

MIN_ROUNDS = 6  # fewer have no useful interval
LOST = 0.02  # part of a block
USEFUL_CHANGE = 0.05  # a busy machine that cannot show this is too busy

ORIGINAL, PRUNED, CONTROL = range(3)  # rows of times


@dataclass(frozen=True, eq=False)
class Rounds:
    """What was measured, in rounds; times of one run, in nanoseconds.

    Attributes:
        loads: (rounds,) number of the load.
        wall: (3, rounds) median time of a run in a block: original, pruned, original again.
        cpu: (3, rounds) mean CPU time of a run in the same block.
        interruptions: (3, rounds) of the block.
        lost: (3, rounds) the part of the block in which this process did not run; 1 where that is
            not known, because several threads ran.
    """

    loads: Array
    wall: Array
    cpu: Array
    interruptions: Array
    lost: Array

    def __post_init__(self) -> None:
        if len(self.loads) < MIN_ROUNDS:
            raise UsageError(f"{len(self.loads)} rounds are too few", f"at least {MIN_ROUNDS}")
        if not np.all(np.isfinite(self.wall) & (self.wall > 0)):
            raise UsageError(
                "a time is not positive", "use longer blocks than the clock resolution"
            )

    @property
    def clean(self) -> Array:
        """(rounds,) True where no block was interrupted."""
        return np.asarray(~((self.interruptions > 0) & (self.lost > LOST)).any(axis=0))

    @property
    def busy(self) -> bool:
        """Were most rounds interrupted?"""
        return bool(np.mean(self.clean) < 0.5)  # noqa: PLR2004 - more than half

    @property
    def used(self) -> Array:
        """(rounds,) True for the rounds that count."""
        enough = not self.busy and self.clean.sum() >= MIN_ROUNDS
        return self.clean if enough else np.ones_like(self.clean)


@dataclass(frozen=True)
class TimeComparison:
    """The result of a comparison.

    Attributes:
        wall: ratio of wall times.
        cpu: ratio of CPU times; None if the system's CPU clock is too coarse.
        basis: which of them decides.
        noise_floor: half-width of the interval of the original against itself, on that basis.
        detectable: the smallest relative change that this run could have detected.
    """

    wall: Ratio
    cpu: Ratio | None
    basis: TimeBasis
    noise_floor: float
    detectable: float
    verdict: Verdict

    @property
    def decisive(self) -> Ratio:
        """The ratio that decides."""
        return self.cpu if self.basis == "CPU time" and self.cpu is not None else self.wall


def compare_times(rounds: Rounds, threads: int = 1, seed: int = 0) -> TimeComparison:
    """Compare the pruned model with its original (see the module).

    Args:
        rounds: at least MIN_ROUNDS.
        threads: of the runtime.
        seed: of the bootstrap.
    """
    loads = rounds.loads[rounds.used]
    wall, cpu = rounds.wall[:, rounds.used], rounds.cpu[:, rounds.used]
    has_cpu = bool(np.all(cpu > 0))
    by_cpu = rounds.busy and has_cpu and threads == 1
    times = cpu if by_cpu else wall
    floor = ratio(times[ORIGINAL], times[CONTROL], loads, seed).half_width
    wall_ratio = ratio(wall[ORIGINAL], wall[PRUNED], loads, seed)
    cpu_ratio = ratio(cpu[ORIGINAL], cpu[PRUNED], loads, seed) if has_cpu else None
    found = cpu_ratio if by_cpu and cpu_ratio is not None else wall_ratio
    detectable = detectable_change(found.half_width, floor)
    verdict = _verdict(found, floor, busy=rounds.busy, detectable=detectable)
    basis: TimeBasis = "CPU time" if by_cpu else "wall time"
    return TimeComparison(wall_ratio, cpu_ratio, basis, floor, detectable, verdict)


def _verdict(found: Ratio, floor: float, *, busy: bool, detectable: float) -> Verdict:
    if found.low > 1 and math.log(found.value) > floor:
        return "faster"
    if found.high < 1 and math.log(found.value) < -floor:
        return "slower"
    if busy and detectable > USEFUL_CHANGE:
        return "machine too busy to tell"
    return "no measurable change"
