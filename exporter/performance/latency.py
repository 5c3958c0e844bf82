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
5. `verdict` compares the rounds, `intervals` contains the statistics.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import numpy as np

from exporter.data.samples import to_model_inputs
from exporter.errors import UsageError
from exporter.formats.isolation import is_isolated, isolated
from exporter.formats.model import Model, TimedRunner
from exporter.graph import Array
from exporter.performance.clocks import SYSTEM, Clocks
from exporter.performance.latency_record import make_record
from exporter.performance.scenario import MIN_LOADS, BenchOptions
from exporter.performance.verdict import Rounds
from exporter.records import Latency

WARM_UP_RUNS = 2  # after each load
MAX_RUNS = 1 << 20  # limit of the search for a block size, for a clock that does not advance
ROUNDS_PER_LOAD = 2  # a random order and its reverse

Feeds = Sequence[Mapping[str, Array]]
Run = Callable[[], object]


class Block(NamedTuple):
    """One block: the wall time of each run (runs,), and the CPU time of all, in nanoseconds."""

    runs: Array
    cpu_ns: int
    interruptions: int

    def lost(self, threads: int) -> float:
        """The part of the wall time without CPU time; 1 for several threads: it is not known."""
        wall_ns = max(1, int(self.runs.sum()))
        return 1.0 if threads > 1 else max(0.0, 1 - self.cpu_ns / wall_ns)


def bench_models(
    original: Model,
    pruned: Model,
    feeds: Feeds,
    options: BenchOptions,
    clocks: Clocks = SYSTEM,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Latency:
    """Time two models of one kind side by side.

    Args:
        original, pruned: of a kind that is benchmarked.
        feeds: input name -> (batch, ...) for both models; float values are quantized for quantized
            inputs. Round n runs feed n on each side; after the last comes the first again.
        options: the scenario.
        clocks: to simulate a machine.
        progress: called with the planned loads and seconds after the first load.

    Three sessions exist at a time: two of the original, one of the pruned model.

    Raises:
        UsageError: there is no feed.
        ModelError: the runtime cannot load or run one of the models.
    """
    if not feeds:
        raise UsageError("there are no inputs to bench with")
    bench = _Bench((original, pruned, original), feeds, options, clocks)
    if is_isolated():
        bench.try_once()
    with isolated(None):  # a timed run does not pass its inputs to another process
        bench.measure(progress)
    return make_record(
        bench.rounds(),
        runs=[[row[side].runs for row in bench.blocks] for side in range(2)],
        loads_ms=np.array(bench.loads_ns) / 1e6,
        settings={
            "threads": options.run.threads,
            "batch": _batch(feeds[0], options.run.batch),
            "min_seconds": options.min_seconds,
            "min_runs": options.min_runs,
            "min_loads": options.loads,
            "max_seconds": options.max_seconds,
            "block_ms": options.block_ms,
            "runs_per_block": bench.block_runs,
            "seed": options.seed,
        },
        names=(pruned.name, bench.engine),
    )


def _batch(feed: Mapping[str, Array], otherwise: int) -> int:
    """The batch of the feed: a file with a fixed batch ignores the option."""
    return next((int(value.shape[0]) for value in feed.values() if value.ndim), otherwise)


def _inputs_of(feed: Mapping[str, Array], model: Model) -> Mapping[str, Array]:
    """The feed without inputs that the model lacks: a gate adds one to the pruned model only."""
    graph = model.graph()
    return to_model_inputs({name: feed[name] for name in graph.inputs if name in feed}, graph)


class _Bench:
    """Loads the models of all sides, finds their block sizes, and measures rounds.

    Attributes:
        blocks: for each round, the block of each side.
        load_of_round: the number of the load of each round.
        loads_ns: for each load, the time that each side took.
        block_runs: runs in a block of each side.
    """

    def __init__(
        self, models: Sequence[Model], feeds: Feeds, options: BenchOptions, clocks: Clocks
    ) -> None:
        self.blocks: list[list[Block]] = []
        self.load_of_round: list[int] = []
        self.loads_ns: list[list[int]] = []
        self.block_runs: list[int] = []
        self._models, self._options, self._clocks = models, options, clocks
        self._feeds = [[_inputs_of(feed, model) for feed in feeds] for model in models]
        self._runners: dict[int, TimedRunner] = {}
        self._timed_ns = 0  # in rounds

    @property
    def engine(self) -> str:
        return self._runners[0].engine

    def try_once(self) -> None:
        """Run each model once in a process of its own, which a damaged file may crash."""
        for index in (0, 1):
            self._models[index].runner(self._options.run)(self._feed(index, 0))

    def measure(self, progress: Callable[[str], None]) -> None:
        """Load and measure until the scenario is fulfilled."""
        start = self._clocks.wall_ns()
        orders = _orders(len(self._models), self._options.seed)
        rounds = ROUNDS_PER_LOAD
        while not self._enough(self._clocks.wall_ns() - start):
            begin = self._clocks.wall_ns()
            self._load(next(orders))
            self.block_runs = self.block_runs or self._block_sizes()
            loaded = self._clocks.wall_ns()
            self._measure_rounds(rounds, orders)
            if len(self.loads_ns) == 1:
                load_ns, rounds_ns = loaded - begin, self._clocks.wall_ns() - loaded
                rounds = self._rounds_per_load(load_ns, rounds_ns)
                self._announce(load_ns, rounds_ns, rounds, progress)

    def rounds(self) -> Rounds:
        """What was measured, as arrays (sides, rounds)."""

        def of_blocks(value: Callable[[Block], float]) -> Array:
            return np.array([[value(block) for block in row] for row in self.blocks]).T

        return Rounds(
            loads=np.array(self.load_of_round),
            wall=of_blocks(lambda block: float(np.median(block.runs))),
            cpu=of_blocks(lambda block: block.cpu_ns / len(block.runs)),
            interruptions=of_blocks(lambda block: block.interruptions),
            lost=of_blocks(lambda block: block.lost(self._options.run.threads)),
        )

    def _enough(self, elapsed_ns: int) -> bool:
        options, loads = self._options, len(self.loads_ns)
        if loads >= MIN_LOADS and elapsed_ns >= options.max_seconds * 1e9:
            return True
        runs = len(self.blocks) * min(self.block_runs, default=0)
        timed_s = self._timed_ns / 1e9
        return (
            loads >= options.loads and timed_s >= options.min_seconds and runs >= options.min_runs
        )

    def _rounds_per_load(self, load_ns: int, rounds_ns: int) -> int:
        """Rounds may last as long as a load, if that many are needed; an even number."""
        pair_ns = max(1, rounds_ns)
        share_ns = self._options.min_seconds * 1e9 / self._options.loads
        return ROUNDS_PER_LOAD * max(1, round(min(load_ns, share_ns) / pair_ns))

    def _announce(
        self, load_ns: int, rounds_ns: int, rounds: int, progress: Callable[[str], None]
    ) -> None:
        options = self._options
        each_ns = rounds_ns * rounds / ROUNDS_PER_LOAD
        runs = max(1, rounds * min(self.block_runs))
        loads = max(
            options.loads,
            math.ceil(options.min_seconds * 1e9 / max(1.0, each_ns)),
            math.ceil(options.min_runs / runs),
        )
        seconds = min(loads * (load_ns + each_ns) / 1e9, options.max_seconds)
        progress(f"timing: about {loads} loads of each model, {seconds:.0f} s")

    def _load(self, order: Sequence[int]) -> None:
        self._runners.clear()  # frees the memory of a large model before it is loaded again
        times = [0] * len(order)
        for index in order:
            start = self._clocks.wall_ns()
            runner = self._models[index].runner(self._options.run)
            times[index] = self._clocks.wall_ns() - start
            self._runners[index] = cast("TimedRunner", runner)  # its kind is benchmarked
        self.loads_ns.append(times)
        for index, runner in self._runners.items():
            for number in range(WARM_UP_RUNS):
                runner(self._feed(index, number))

    def _measure_rounds(self, count: int, orders: Iterator[list[int]]) -> None:
        """Measure an even number of rounds, each second one in the reverse order."""
        start = self._clocks.wall_ns()
        for _ in range(count // 2):
            order = next(orders)
            for each in (order, order[::-1]):
                self.blocks.append(self._round(each, len(self.blocks)))
                self.load_of_round.append(len(self.loads_ns) - 1)
        self._timed_ns += self._clocks.wall_ns() - start

    def _round(self, order: Sequence[int], number: int) -> list[Block]:
        found: dict[int, Block] = {}
        for index in order:
            run, count = self._prepare(index, number), self.block_runs[index]
            if count > 1:  # a longer run fills the caches itself
                run()
            found[index] = self._block(run, count)
        return [found[index] for index in range(len(order))]

    def _block_sizes(self) -> list[int]:
        """The runs of a block for each side; both sides of the original get the same number."""
        sides = {id(self._models[index]): index for index in self._runners}
        runs = {key: self._block_size(index) for key, index in sides.items()}
        return [runs[id(model)] for model in self._models]

    def _block_size(self, index: int) -> int:
        """Use the shorter of two blocks: an interruption must not make the model look slow."""
        run, count = self._prepare(index, 0), 1
        while count < MAX_RUNS:
            blocks = (self._block(run, count) for _ in range(2))
            if all(block.runs.sum() >= self._options.block_ms * 1e6 for block in blocks):
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
        return self._runners[index].prepare(self._feed(index, number))

    def _feed(self, index: int, number: int) -> Mapping[str, Array]:
        feeds = self._feeds[index]
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
