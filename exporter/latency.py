"""Time a pruned model beside its original so that the machine's mood hits both alike.

1. Both models are loaded in one process, `loads` times in turn; the last load of each stays.
2. Each side runs a few times, then its block is found: runs are doubled until the shorter of two
   blocks lasts `block_ms`. A block's mean is what is measured: a single run of a small model is
   below what a clock resolves. So p50 and p90 are those of block means, not of single runs.
3. A round is three blocks, in random order: original, pruned, and the original once more, which is
   the A/A control. The next round has the reverse order, so that a machine that slows down or
   speeds up bends neither ratio. An untimed run opens each block, so that none pays for the caches
   that the other side has filled. Garbage is not collected inside a block.
4. A round gives one ratio original / pruned. The speedup is their median; its interval is a
   percentile bootstrap. The half-width of the control's interval is the noise floor, and an
   interval that does not clear 1 by more than that is "no measurable change".

`scipy.stats.bootstrap` would do step 4, and cost a dependency of 100 MB for ten lines of NumPy.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array
from exporter.models.model import Model, Runner, RunOptions
from exporter.report.record import Latency, Verdict

MIN_PAIRS = 10  # the median of fewer has no interval worth the name
BUDGET_S = 20.0  # after this no round begins, once there are MIN_PAIRS
WARM_UP_RUNS = 3
MAX_RUNS = 1 << 20  # ends the search for a block where a clock stands still
RESAMPLES = 2000
CONFIDENCE = (2.5, 97.5)  # percentiles

Clock = Callable[[], int]
Feeds = Sequence[Mapping[str, Array]]


@dataclass(frozen=True)
class BenchOptions:
    """How to bench.

    Attributes:
        run: threads and batch, the same for both sides.
        pairs: rounds to measure, at least 10. Slow models get fewer: no round begins after 20 s
            once there are 10. A round is at least six runs, so that a model of 0.4 s a run takes
            about 30 s, and a slower one longer.
        block_ms: a block lasts at least this long, as far as calibration can tell.
        seed: of the order of the blocks, and of the bootstrap.
        loads: how often each model is loaded; the load time is the median. The first load may pay
            for the import of the runtime, so fewer than 3 say little.
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
            raise UsageError(f"a block of {self.block_ms} ms measures nothing", "10 ms is usual")
        if self.loads < 1:
            raise UsageError(f"{self.loads} loads: each model is loaded at least once")


@dataclass(frozen=True)
class Comparison:
    """What paired times say.

    Attributes:
        speedup: median of the ratios original / pruned.
        interval: 95 % bootstrap interval of that median.
        noise_floor: half-width of the interval of original / control.
    """

    speedup: float
    interval: tuple[float, float]
    noise_floor: float
    verdict: Verdict


# --- judging times ------------------------------------------------------------------------------


def compare_times(original: Array, pruned: Array, control: Array, seed: int = 0) -> Comparison:
    """Judge times that were measured in rounds.

    Args:
        original, pruned, control: (rounds,) durations of a run, in any one unit; those at the same
            place were measured in the same round. `control` is the original again.
        seed: of the bootstrap; the same times and seed give the same answer.

    Raises:
        UsageError: lengths differ, there are fewer than 10 rounds, or a time is not above zero.
    """
    _check_times(original, pruned, control)
    ratios = original / pruned
    low, high = median_interval(ratios, seed)
    control_low, control_high = median_interval(original / control, seed)
    floor = (control_high - control_low) / 2
    return Comparison(float(np.median(ratios)), (low, high), floor, _verdict(low, high, floor))


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
        raise UsageError(f"{len(sides[0])} rounds are too few to judge", f"at least {MIN_PAIRS}")
    if not all(np.all(np.isfinite(side) & (side > 0)) for side in sides):
        raise UsageError("a time is not above zero", "make the blocks longer than the clock's tick")


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
        feeds: inputs for both, batch in front. Round n begins with feed n on either side, and a
            block goes through them in turn.
        clock: nanoseconds that never go back.

    Raises:
        UsageError: there is no feed.
        ModelError: the runtime cannot load or run one of the models.
    """
    if not feeds:
        raise UsageError("there is no input to bench with")
    deadline = clock() + int(BUDGET_S * 1e9)
    (before, after), (original_load_ms, load_ms) = _load((original, pruned), options, clock)
    bench = _Bench(feeds, clock)
    block_ns = options.block_ms * 1e6
    first, second = bench.side(before, block_ns), bench.side(after, block_ns)
    before_ns, after_ns, control_ns = bench.rounds((first, second, first), options, deadline)
    result = compare_times(before_ns, after_ns, control_ns, options.seed)
    p50_ms, p90_ms = np.percentile(after_ns, (50, 90)) / 1e6
    return Latency(
        artifact=pruned.name,
        engine=after.engine,
        threads=options.run.threads,
        batch=_batch(feeds[0], options.run.batch),
        original_p50_ms=float(np.median(before_ns)) / 1e6,
        p50_ms=float(p50_ms),
        p90_ms=float(p90_ms),
        original_load_ms=original_load_ms,
        load_ms=load_ms,
        samples=len(after_ns),
        speedup=result.speedup,
        speedup_ci95=result.interval,
        noise_floor=result.noise_floor,
        verdict=result.verdict,
    )


def _load(
    models: Sequence[Model], options: BenchOptions, clock: Clock
) -> tuple[list[Runner], list[float]]:
    """The runners, and the median milliseconds that building each took."""
    runners: dict[int, Runner] = {}
    taken: list[list[int]] = [[] for _ in models]
    for _ in range(options.loads):
        for index, model in enumerate(models):
            runners.pop(index, None)  # so that a large model is never held twice
            start = clock()
            runners[index] = model.runner(options.run)
            taken[index].append(clock() - start)
    return list(runners.values()), [float(np.median(each)) / 1e6 for each in taken]


def _batch(feed: Mapping[str, Array], otherwise: int) -> int:
    """The batch that was really fed: a file with a fixed one does not take the option's."""
    return next((int(value.shape[0]) for value in feed.values() if value.ndim), otherwise)


@dataclass(frozen=True)
class _Side:
    runner: Runner
    runs: int  # in a block


@dataclass(frozen=True)
class _Bench:
    feeds: Feeds
    clock: Clock

    def side(self, runner: Runner, block_ns: float) -> _Side:
        """Warm a runner up and find its block.

        The shorter of two blocks counts, since one interruption would pass for a slow model.
        """
        for feed in self._turn(0, WARM_UP_RUNS):
            runner(feed)
        runs = 1
        while runs < MAX_RUNS:
            side = _Side(runner, runs)
            if self._block(side, 0) >= block_ns and self._block(side, 0) >= block_ns:
                break
            runs *= 2
        return _Side(runner, runs)

    def rounds(self, sides: Sequence[_Side], options: BenchOptions, deadline: int) -> Array:
        """(sides, rounds) float64 nanoseconds a run: the mean of each block."""
        orders = _orders(len(sides), options.seed)
        measured: list[list[float]] = []
        while len(measured) < options.pairs:
            if len(measured) >= MIN_PAIRS and self.clock() >= deadline:
                break
            measured.append(self._round(sides, next(orders), len(measured)))
        return np.array(measured).T

    def _round(self, sides: Sequence[_Side], order: Sequence[int], first_feed: int) -> list[float]:
        means = [0.0] * len(sides)
        for index in order:
            side = sides[index]
            side.runner(self.feeds[first_feed % len(self.feeds)])
            means[index] = self._block(side, first_feed) / side.runs
        return means

    def _block(self, side: _Side, first_feed: int) -> int:
        """Nanoseconds that one block takes."""
        feeds, runner, clock = self._turn(first_feed, side.runs), side.runner, self.clock
        with _no_collection():
            start = clock()
            for feed in feeds:
                runner(feed)
            return clock() - start

    def _turn(self, first: int, count: int) -> Feeds:
        """`count` feeds from the `first` on, around and around."""
        return [self.feeds[index % len(self.feeds)] for index in range(first, first + count)]


def _orders(sides: int, seed: int) -> Iterator[list[int]]:
    """Random orders, each followed by its reverse."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(sides).tolist()
        yield order
        yield order[::-1]


@contextmanager
def _no_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
