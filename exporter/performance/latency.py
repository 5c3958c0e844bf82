"""Time a pruned model next to its original, so that disturbances affect both alike.

1. Three sides run in one process: the original, the pruned model, and the original again as the
   A/A control. Each side has its own session, and as far as time allows, every round loads all
   three again: two sessions of one file differ by up to 8 % for as long as they live, depending on
   their memory addresses. A session that is never reloaded would show this as a speedup.
2. The first round finds the block size of each model: it doubles the number of runs until the
   shorter of two blocks lasts `block_ms`. Only the mean of a block is measured, because one run of
   a small model is shorter than the resolution of the clock. So p50 and p90 are percentiles of
   block means, not of single runs.
3. A round is one block of each side in random order; the next round has the reverse order, so that
   a machine that becomes slower or faster does not bias the ratios. An untimed run before each
   block refills the caches. Garbage collection is off within a block.
4. Each round gives one ratio original / pruned. The speedup is the median of these ratios, with a
   percentile bootstrap interval. The half-width of the control's interval is the noise floor. If
   the interval is not farther from 1 than the noise floor, the verdict is "no measurable change".

`scipy.stats.bootstrap` could do step 4, but needs a dependency of 100 MB for ten lines of NumPy.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from exporter.data.samples import to_model_inputs
from exporter.errors import UsageError
from exporter.formats.model import Model, Runner, RunOptions
from exporter.graph import Array
from exporter.records import Latency, Verdict

MIN_PAIRS = 10  # the median of fewer ratios has no useful interval
BUDGET_S = 20.0  # no round starts after this time, once there are MIN_PAIRS
LOAD_BUDGET_S = 3.0  # for loads that `loads` does not demand
WARM_UP_RUNS = 2  # after each load
MAX_RUNS = 1 << 20  # limit of the search for a block size, for a clock that does not advance
RESAMPLES = 2000
CONFIDENCE = (2.5, 97.5)  # percentiles

Clock = Callable[[], int]
Feeds = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class BenchOptions:
    """How to bench.

    Attributes:
        run: threads and batch, the same for both sides.
        pairs: rounds to measure, at least 10; an odd number is rounded up. Slow models get fewer:
            after 20 s and 10 rounds no other starts. Ten rounds are about 80 runs, so a model with
            0.35 s per run takes half a minute.
        block_ms: the shortest block, as far as the first round can tell.
        seed: of the order of the blocks, and of the bootstrap.
        loads: the minimum number of loads of each side in ten rounds, 1 to 10. Cheap loads are
            repeated more often. Load times are medians, because the first may import a runtime.
    """

    run: RunOptions = field(default_factory=RunOptions)
    pairs: int = 30
    block_ms: float = 10.0
    seed: int = 0
    loads: int = 3

    def __post_init__(self) -> None:
        if self.pairs < MIN_PAIRS:
            raise UsageError(f"{self.pairs} pairs are too few to bench", f"at least {MIN_PAIRS}")
        if not (self.block_ms > 0 and math.isfinite(self.block_ms)):
            raise UsageError(f"a block cannot last {self.block_ms} ms", "10 ms is usual")
        if not 1 <= self.loads <= MIN_PAIRS:
            raise UsageError(f"{self.loads} loads in {MIN_PAIRS} rounds", f"1 to {MIN_PAIRS}")


@dataclass(frozen=True)
class TimeComparison:
    """The result of a comparison of paired times.

    Attributes:
        speedup: median of the ratios original / pruned.
        speedup_ci95: 95 % bootstrap interval of that median.
        noise_floor: half-width of the interval of original / control.
    """

    speedup: float
    speedup_ci95: tuple[float, float]
    noise_floor: float
    verdict: Verdict


# --- comparing times ----------------------------------------------------------------------------


def compare_times(original: Array, pruned: Array, control: Array, seed: int = 0) -> TimeComparison:
    """Compare times that were measured in rounds.

    Args:
        original, pruned, control: (rounds,) durations of a run, all in the same unit. `control` is
            the original again.
        seed: of the bootstrap.

    Raises:
        UsageError: lengths differ, there are fewer than 10 rounds, or a time is not positive.
    """
    _check_times(original, pruned, control)
    ratios = original / pruned
    low, high = median_interval(ratios, seed)
    control_low, control_high = median_interval(original / control, seed)
    floor = (control_high - control_low) / 2
    return TimeComparison(float(np.median(ratios)), (low, high), floor, _verdict(low, high, floor))


def median_interval(values: Array, seed: int) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the median of `values` (n,), 2,000 resamples."""
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(np.median(values[picks], axis=1), CONFIDENCE)
    return float(low), float(high)


def _verdict(low: float, high: float, floor: float) -> Verdict:
    if low > 1 + floor:
        return "faster"
    if high < 1 - floor:
        return "slower"
    return "no measurable change"


def _check_times(*sides: Array) -> None:
    if len({len(side) for side in sides}) > 1:
        raise UsageError(f"paired times differ in number: {[len(side) for side in sides]}")
    if len(sides[0]) < MIN_PAIRS:
        raise UsageError(f"{len(sides[0])} rounds are too few", f"at least {MIN_PAIRS}")
    if not all(np.all(np.isfinite(side) & (side > 0)) for side in sides):
        raise UsageError("a time is not positive", "use longer blocks than the clock resolution")


# --- measuring ----------------------------------------------------------------------------------


def bench_models(
    original: Model,
    pruned: Model,
    feeds: Feeds,
    options: BenchOptions,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """Time two models of one kind side by side.

    Args:
        feeds: input name -> (batch, ...) for both models; float values are quantized for quantized
            inputs. Round n starts with feed n on each side, and a block goes through them in turn.
        clock: monotonic, in nanoseconds.

    Three sessions exist at a time: two of the original, one of the pruned model.

    Raises:
        UsageError: there is no feed.
        ModelError: the runtime cannot load or run one of the models.
    """
    if not feeds:
        raise UsageError("there are no inputs to bench with")
    bench = _Bench((original, pruned, original), feeds, options, clock)
    before_ns, after_ns, control_ns = bench.rounds()
    result = compare_times(before_ns, after_ns, control_ns, options.seed)
    p50_ms, p90_ms = np.percentile(after_ns, (50, 90)) / 1e6
    return Latency(
        artifact=pruned.name,
        engine=bench.engine,
        threads=options.run.threads,
        batch=_batch(feeds[0], options.run.batch),
        original_p50_ms=float(np.median(before_ns)) / 1e6,
        p50_ms=float(p50_ms),
        p90_ms=float(p90_ms),
        original_load_ms=bench.load_ms(0),
        load_ms=bench.load_ms(1),
        samples=len(after_ns),
        **vars(result),
    )


def _batch(feed: Mapping[str, Array], otherwise: int) -> int:
    """The batch of the feed: a file with a fixed batch ignores the option."""
    return next((int(value.shape[0]) for value in feed.values() if value.ndim), otherwise)


def _inputs_of(feed: Mapping[str, Array], model: Model) -> Mapping[str, Array]:
    """The feed without inputs that the model lacks: a gate adds one to the pruned model only."""
    graph = model.graph()
    return to_model_inputs({name: feed[name] for name in graph.inputs if name in feed}, graph)


class _Bench:
    """Loads the models of all sides, finds their block sizes, and measures rounds."""

    def __init__(
        self, models: Sequence[Model], feeds: Feeds, options: BenchOptions, clock: Clock
    ) -> None:
        self._models, self._options, self._clock = models, options, clock
        self._feeds = [[_inputs_of(feed, model) for feed in feeds] for model in models]
        self._runners: dict[int, Runner] = {}
        self._runs: list[int] = []  # in a block, for each side
        self._loads_ns: list[list[int]] = []  # (loads, sides)
        self._load_cost_ns = 0  # of the last load of all sides, with the warm-up

    @property
    def engine(self) -> str:
        return self._runners[0].engine

    def load_ms(self, index: int) -> float:
        """The median load time of a side."""
        return float(np.median([row[index] for row in self._loads_ns])) / 1e6

    def rounds(self) -> Array:
        """(sides, rounds) float64: nanoseconds of a run, as the mean of a block."""
        deadline = self._clock() + int(BUDGET_S * 1e9)
        orders = _orders(len(self._models), self._options.seed)
        measured: list[list[float]] = []
        while not self._enough(len(measured), deadline):
            order = next(orders)
            if self._load_is_due(len(measured)):
                self._load(order)
            self._runs = self._runs or self._block_sizes()
            measured.append(self._round(order, len(measured)))
        return np.array(measured).T

    def _enough(self, done: int, deadline: int) -> bool:
        """Stop only after a reverse order: a drift would bias the median otherwise."""
        if done % 2:
            return False
        out_of_time = done >= MIN_PAIRS and self._clock() >= deadline
        return out_of_time or done >= self._options.pairs

    def _load_is_due(self, done: int) -> bool:
        """Load every round while loads are cheap; else `loads` times in ten rounds."""
        affordable = LOAD_BUDGET_S * 1e9 / max(1, self._load_cost_ns) / self._options.pairs
        share = max(self._options.loads / MIN_PAIRS, affordable)
        return len(self._loads_ns) <= done * share

    def _load(self, order: Sequence[int]) -> None:
        begin = self._clock()
        self._runners.clear()  # frees the memory of a large model before it is loaded again
        times = [0] * len(order)
        for index in order:
            start = self._clock()
            self._runners[index] = self._models[index].runner(self._options.run)
            times[index] = self._clock() - start
        self._loads_ns.append(times)
        for index, runner in self._runners.items():
            for feed in self._turn(index, 0, WARM_UP_RUNS):
                runner(feed)
        self._load_cost_ns = self._clock() - begin

    def _block_sizes(self) -> list[int]:
        """The runs of a block for each side; both sides of the original get the same number."""
        sides = {id(self._models[index]): index for index in self._runners}
        runs = {key: self._block_size(self._runners[i], i) for key, i in sides.items()}
        return [runs[id(model)] for model in self._models]

    def _block_size(self, runner: Runner, index: int = 0) -> int:
        """Use the shorter of two blocks: an interruption must not make the model look slow."""
        runs = 1
        while runs < MAX_RUNS:
            times = (self._block(runner, self._turn(index, 0, runs)) for _ in range(2))
            if all(time_ns >= self._options.block_ms * 1e6 for time_ns in times):
                break
            runs *= 2
        return runs

    def _round(self, order: Sequence[int], number: int) -> list[float]:
        means = [0.0] * len(order)
        for index in order:
            runner, runs = self._runners[index], self._runs[index]
            runner(*self._turn(index, number, 1))
            means[index] = self._block(runner, self._turn(index, number, runs)) / runs
        return means

    def _block(self, runner: Runner, feeds: Feeds) -> int:
        """The time of one run for each feed, in nanoseconds."""
        clock = self._clock
        with _no_garbage_collection():
            start = clock()
            for feed in feeds:
                runner(feed)
            return clock() - start

    def _turn(self, index: int, first: int, count: int) -> Feeds:
        """`count` feeds of a side from the `first` on; after the last comes the first again."""
        feeds = self._feeds[index]
        return [feeds[n % len(feeds)] for n in range(first, first + count)]


def _orders(sides: int, seed: int) -> Iterator[list[int]]:
    """Random orders, each followed by its reverse."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(sides).tolist()
        yield order
        yield order[::-1]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
