"""Time a pruned model next to its original, so that disturbances affect both alike.

1. Three sides run in one process: the original, the pruned model, and the original again as the
   A/A control. All three are loaded at least ten times: two sessions of one file differ by up to
   8 % for as long as they live, depending on their memory addresses. A session that is never
   reloaded would show this as a speedup.
2. After the first load, each model gets a block size: the number of runs is doubled until the
   shorter of two blocks lasts `block_ms`. A load is followed by two rounds, or by more if loading
   takes longer than that.
3. A round is one block of each side in random order; the next round has the reverse order, so that
   a machine that becomes slower or faster does not bias the ratios. An untimed run before a block
   refills the caches. Garbage collection is off within a block.
4. Inputs are checked and fed before a block; only the runs of the runtime are timed. Each run gets
   a wall time, each block a CPU time and the number of interruptions by other processes.

`exporter.performance` compares the rounds.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from exporter.ondevice.clocks import SYSTEM, Clocks

SIDES = (0, 1, 0)  # the original, the pruned model, and the original again
WARM_UP_RUNS = 2  # after each load
MAX_RUNS = 1 << 20  # limit of the search for a block size, for a clock that does not advance
ROUNDS_PER_LOAD = 2  # a random order and its reverse
MIN_LOADS = 3  # after `max_seconds`

Feeds = Sequence[Mapping[str, Any]]
Run = Callable[[], object]


class Schedule(NamedTuple):
    """How long and how often models are run; see `exporter.performance.scenario.BenchOptions`."""

    min_seconds: float
    min_runs: int
    loads: int
    max_seconds: float
    block_ms: float
    seed: int


class Block(NamedTuple):
    """One block: the wall time of each run (runs,), and the CPU time of all, in nanoseconds."""

    runs: Any
    cpu_ns: int
    interruptions: int


class Measured(NamedTuple):
    """What was measured, in nanoseconds. Sides are in the order of `SIDES`.

    Attributes:
        engine: name and version of the runtime.
        block_runs: runs in a block of each side.
        load_of_round: (rounds,) number of the load.
        loads: (loads, 3) how long each load took.
        runs: for each side (rounds, runs in its block): the wall time of every run.
        cpu: (3, rounds) CPU time of a block.
        interruptions: (3, rounds) by other processes, in a block.
    """

    engine: str
    block_runs: Sequence[int]
    load_of_round: Any
    loads: Any
    runs: Sequence[Any]
    cpu: Any
    interruptions: Any


def measure(
    loaders: Sequence[Callable[[], Any]],
    feeds: Sequence[Feeds],
    schedule: Schedule,
    clocks: Clocks = SYSTEM,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Load and time two models side by side.

    Args:
        loaders: of the original and of the pruned model: each returns a new
            `exporter.formats.model.TimedRunner`. One function twice for a model against itself.
        feeds: of both: input name -> (batch, ...) in the dtype of the input. Round n runs feed n on
            each side; after the last comes the first again.
        clocks: to simulate a machine.
        progress: called with the planned loads and seconds after the first load.

    Three runners exist at a time: two of the original, one of the pruned model.
    """
    bench = _Bench(loaders, feeds, schedule, clocks)
    bench.measure(progress)
    return bench.measured()


class _Bench:
    """Loads the models of all sides, finds their block sizes, and measures rounds."""

    def __init__(
        self,
        loaders: Sequence[Callable[[], Any]],
        feeds: Sequence[Feeds],
        schedule: Schedule,
        clocks: Clocks,
    ) -> None:
        self._blocks: list[list[Block]] = []  # for each round, the block of each side
        self._load_of_round: list[int] = []
        self._loads_ns: list[list[int]] = []  # for each load, the time that each side took
        self._block_runs: list[int] = []
        self._loaders, self._feeds = loaders, feeds
        self._schedule, self._clocks = schedule, clocks
        self._runners: dict[int, Any] = {}
        self._timed_ns = 0  # in rounds

    def measure(self, progress: Callable[[str], None]) -> None:
        """Load and measure until the schedule is fulfilled."""
        start = self._clocks.wall_ns()
        orders = _orders(len(SIDES), self._schedule.seed)
        rounds = ROUNDS_PER_LOAD
        while not self._enough(self._clocks.wall_ns() - start):
            begin = self._clocks.wall_ns()
            self._load(next(orders))
            self._block_runs = self._block_runs or self._block_sizes()
            loaded = self._clocks.wall_ns()
            self._measure_rounds(rounds, orders)
            if len(self._loads_ns) == 1:
                load_ns, rounds_ns = loaded - begin, self._clocks.wall_ns() - loaded
                rounds = self._rounds_per_load(load_ns, rounds_ns)
                self._announce(load_ns, rounds_ns, rounds, progress)

    def measured(self) -> Measured:
        """The result."""
        sides = range(len(SIDES))
        return Measured(
            engine=self._runners[0].engine,
            block_runs=self._block_runs,
            load_of_round=np.array(self._load_of_round),
            loads=np.array(self._loads_ns),
            runs=[np.array([row[side].runs for row in self._blocks]) for side in sides],
            cpu=np.array([[row[side].cpu_ns for row in self._blocks] for side in sides]),
            interruptions=np.array(
                [[row[side].interruptions for row in self._blocks] for side in sides]
            ),
        )

    def _enough(self, elapsed_ns: int) -> bool:
        schedule, loads = self._schedule, len(self._loads_ns)
        if loads >= MIN_LOADS and elapsed_ns >= schedule.max_seconds * 1e9:
            return True
        runs = len(self._blocks) * min(self._block_runs, default=0)
        return (
            loads >= schedule.loads
            and self._timed_ns / 1e9 >= schedule.min_seconds
            and runs >= schedule.min_runs
        )

    def _rounds_per_load(self, load_ns: int, rounds_ns: int) -> int:
        """Rounds may last as long as a load, if that many are needed; an even number."""
        pair_ns = max(1, rounds_ns)
        share_ns = self._schedule.min_seconds * 1e9 / self._schedule.loads
        return ROUNDS_PER_LOAD * max(1, round(min(load_ns, share_ns) / pair_ns))

    def _announce(
        self, load_ns: int, rounds_ns: int, rounds: int, progress: Callable[[str], None]
    ) -> None:
        schedule = self._schedule
        each_ns = rounds_ns * rounds / ROUNDS_PER_LOAD
        runs = max(1, rounds * min(self._block_runs))
        loads = max(
            schedule.loads,
            math.ceil(schedule.min_seconds * 1e9 / max(1.0, each_ns)),
            math.ceil(schedule.min_runs / runs),
        )
        seconds = min(loads * (load_ns + each_ns) / 1e9, schedule.max_seconds)
        progress(f"timing: about {loads} loads of each model, {seconds:.0f} s")

    def _load(self, order: Sequence[int]) -> None:
        self._runners.clear()  # frees the memory of a large model before it is loaded again
        times = [0] * len(order)
        for index in order:
            start = self._clocks.wall_ns()
            runner = self._loaders[SIDES[index]]()
            times[index] = self._clocks.wall_ns() - start
            self._runners[index] = runner
        self._loads_ns.append(times)
        for index, runner in self._runners.items():
            for number in range(WARM_UP_RUNS):
                runner(self._feed(index, number))

    def _measure_rounds(self, count: int, orders: Iterator[list[int]]) -> None:
        """Measure an even number of rounds, each second one in the reverse order."""
        start = self._clocks.wall_ns()
        for _ in range(count // 2):
            order = next(orders)
            for each in (order, order[::-1]):
                self._blocks.append(self._round(each, len(self._blocks)))
                self._load_of_round.append(len(self._loads_ns) - 1)
        self._timed_ns += self._clocks.wall_ns() - start

    def _round(self, order: Sequence[int], number: int) -> list[Block]:
        found: dict[int, Block] = {}
        for index in order:
            run, count = self._prepare(index, number), self._block_runs[index]
            if count > 1:  # a longer run fills the caches itself
                run()
            found[index] = self._block(run, count)
        return [found[index] for index in range(len(order))]

    def _block_sizes(self) -> list[int]:
        """The runs of a block for each side; both sides of the original get the same number."""
        loaders = [id(self._loaders[model]) for model in SIDES]
        sides = {loaders[index]: index for index in self._runners}
        runs = {loader: self._block_size(index) for loader, index in sides.items()}
        return [runs[loader] for loader in loaders]

    def _block_size(self, index: int) -> int:
        """Use the shorter of two blocks: an interruption must not make the model look slow."""
        run, count = self._prepare(index, 0), 1
        while count < MAX_RUNS:
            blocks = (self._block(run, count) for _ in range(2))
            if all(block.runs.sum() >= self._schedule.block_ms * 1e6 for block in blocks):
                break
            count *= 2
        return count

    def _block(self, run: Run, count: int) -> Block:
        wall_ns, cpu_ns, interruptions = self._clocks
        with _no_garbage_collection():
            interruptions_before, cpu_before = interruptions(), cpu_ns()
            stamps = [wall_ns()]
            for _ in range(count):
                run()
                stamps.append(wall_ns())
            cpu, interrupted = cpu_ns() - cpu_before, interruptions() - interruptions_before
        return Block(np.diff(stamps), cpu, interrupted)

    def _prepare(self, index: int, number: int) -> Run:
        run: Run = self._runners[index].prepare(self._feed(index, number))
        return run

    def _feed(self, index: int, number: int) -> Mapping[str, Any]:
        feeds = self._feeds[SIDES[index]]
        return feeds[number % len(feeds)]


def _orders(sides: int, seed: int) -> Iterator[list[int]]:
    """Random orders."""
    random = np.random.default_rng(seed)
    while True:
        yield random.permutation(sides).tolist()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
