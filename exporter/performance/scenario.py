"""The scenario of a bench: how long and how often models are run, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from exporter.errors import UsageError
from exporter.formats.model import RunOptions
from exporter.ondevice.rounds import MIN_LOADS, Schedule

MAX_SECONDS = 120.0


@dataclass(frozen=True)
class BenchOptions:
    """The scenario of a bench.

    Attributes:
        run: threads and batch, the same for both sides.
        min_seconds: the smallest duration of all rounds together, without loads.
        min_runs: the smallest number of timed runs of each side.
        loads: the smallest number of loads of each side.
        max_seconds: after this time no load starts, if there were three: a large model gets fewer
            than `loads`, and a wider interval.
        block_ms: the shortest block, as far as the first load can tell.
        seed: of the order of the blocks, and of the bootstrap.
    """

    run: RunOptions = field(default_factory=RunOptions)
    min_seconds: float = 2.0
    min_runs: int = 20
    loads: int = 10
    max_seconds: float = MAX_SECONDS
    block_ms: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.block_ms > 0 and math.isfinite(self.block_ms)):
            raise UsageError(f"a block cannot last {self.block_ms} ms", "10 ms is usual")
        if not 0 <= self.min_seconds < math.inf:
            raise UsageError(f"a bench cannot last {self.min_seconds} s", "2 s is usual")
        if self.loads < MIN_LOADS:
            raise UsageError(f"{self.loads} loads are too few", f"at least {MIN_LOADS}")

    @property
    def schedule(self) -> Schedule:
        """How long and how often models are run."""
        return Schedule(*(getattr(self, name) for name in Schedule._fields))
