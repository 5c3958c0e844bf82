"""Timings with a simulated clock: no test depends on real time."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.formats.model import RunOptions
from exporter.graph import Array, Graph
from exporter.performance import latency
from exporter.performance.latency import BenchOptions, bench_models, compare_times, median_interval
from exporter.records import Latency

MS = 1_000_000  # nanoseconds
FEEDS = [{"x": np.full((2, 3), index)} for index in range(3)]
SAME = "no measurable change"


@dataclass
class Machine:
    """A clock that advances only while a fake model loads or runs.

    Attributes:
        drift: by how much a run becomes slower in one second.
        session_noise: standard deviation of a factor that a session keeps as long as it lives.
        run_noise: standard deviation of a factor of each run.
        interrupted_ms: by which the first run takes longer.
        events: (model, session, feed) of each run.
        collects: for each reading of the clock: was garbage collection on?
    """

    drift: float = 0.0
    session_noise: float = 0.0
    run_noise: float = 0.0
    interrupted_ms: float = 0.0
    seed: int = 0
    now: int = 0
    alive: int = 0
    most_alive: int = 0
    events: list[tuple[str, int, int]] = field(default_factory=list)
    collects: list[bool] = field(default_factory=list)
    loads: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def __call__(self) -> int:
        self.collects.append(gc.isenabled())
        return self.now

    def model(self, name: str, run_ms: float, load_ms: float = 1.0) -> Any:
        return Fake(self, name, run_ms, load_ms)


@dataclass(frozen=True)
class Fake:
    machine: Machine
    name: str
    run_ms: float
    load_ms: float

    def graph(self) -> Graph:
        return Graph((), {}, ("x",), ())

    def runner(self, _options: RunOptions) -> Session:
        self.machine.now += int(self.load_ms * MS)
        return Session(self)


class Session:
    engine = "fake 1.0"

    def __init__(self, model: Fake) -> None:
        self.model, self.machine = model, model.machine
        self.number = self.machine.loads = self.machine.loads + 1
        self.factor = float(np.exp(self.machine.random.normal() * self.machine.session_noise))
        self.machine.alive += 1
        self.machine.most_alive = max(self.machine.most_alive, self.machine.alive)

    def __del__(self) -> None:
        self.machine.alive -= 1

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        machine = self.machine
        machine.events.append((self.model.name, self.number, int(inputs["x"].flat[0])))
        noise = float(np.exp(machine.random.normal() * machine.run_noise))
        slowed = (1 + machine.drift * machine.now / 1e9) * self.factor * noise
        machine.now += int((self.model.run_ms * slowed + machine.interrupted_ms) * MS)
        machine.interrupted_ms = 0.0
        return {}


def bench(machine: Machine, original_ms: float, pruned_ms: float, **options: Any) -> Latency:
    original, pruned = machine.model("original", original_ms), machine.model("pruned", pruned_ms)
    return bench_models(original, pruned, FEEDS, BenchOptions(**options), machine)


def times(mean: float, noise: float, seed: int, rounds: int = 30) -> Array:
    """Log-normal durations, like real ones."""
    return mean * np.exp(np.random.default_rng([seed, rounds]).normal(size=rounds) * noise)


# --- refused ------------------------------------------------------------------------------------

ONES = np.ones(10)
REFUSED: list[Any] = [
    pytest.param(lambda: BenchOptions(pairs=9), "9 pairs", id="too few pairs for an interval"),
    pytest.param(lambda: BenchOptions(block_ms=0.0), r"0\.0 ms", id="block of 0 ms"),
    pytest.param(lambda: BenchOptions(block_ms=float("nan")), "nan ms", id="block of NaN ms"),
    pytest.param(lambda: BenchOptions(block_ms=float("inf")), "inf ms", id="infinite block"),
    pytest.param(lambda: BenchOptions(loads=0), "0 loads", id="no loads"),
    pytest.param(lambda: BenchOptions(loads=11), "11 loads", id="more loads than rounds"),
    pytest.param(lambda: compare_times(ONES, ONES[:9], ONES), r"\[10, 9, 10\]", id="unpaired"),
    pytest.param(
        lambda: compare_times(ONES[:9], ONES[:9], ONES[:9]), "9 rounds", id="too few rounds"
    ),
    pytest.param(
        lambda: compare_times(ONES, ONES * 0, ONES), "not positive", id="clock did not advance"
    ),
    pytest.param(
        lambda: compare_times(ONES, -ONES, ONES), "not positive", id="clock went backward"
    ),
    pytest.param(
        lambda: compare_times(ONES, ONES, ONES * np.nan), "not positive", id="time is NaN"
    ),
    pytest.param(
        lambda: bench_models(
            Machine().model("a", 1), Machine().model("b", 1), [], BenchOptions(), Machine()
        ),
        "no inputs",
        id="no feeds",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_clock_that_never_advances_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MAX_RUNS", 8)
    with pytest.raises(UsageError, match="not positive"):
        bench(Machine(), 0.0, 0.0)


# --- no measurable change -----------------------------------------------------------------------

UNCHANGED = [
    pytest.param(1.0, 0.001, 0.001, id="quiet machine"),
    pytest.param(1.0, 0.02, 0.02, id="2 % noise"),
    pytest.param(1.0, 0.3, 0.3, id="busy machine"),
    pytest.param(1.001, 0.02, 0.02, id="faster, far below the noise"),
    pytest.param(0.999, 0.02, 0.02, id="slower, far below the noise"),
    pytest.param(1.01, 0.0, 0.1, id="faster, below the noise floor"),
    pytest.param(0.99, 0.0, 0.1, id="slower, below the noise floor"),
]


@pytest.mark.parametrize(("ratio", "noise", "control_noise"), UNCHANGED)
def test_unchanged(ratio: float, noise: float, control_noise: float) -> None:
    verdicts = Counter(
        compare_times(
            times(ratio, noise, 3 * seed),
            times(1.0, noise, 3 * seed + 1),
            times(1.0, control_noise, 3 * seed + 2),
        ).verdict
        for seed in range(100)
    )
    assert verdicts == {SAME: 100}


def test_differences_between_sessions_are_no_change() -> None:
    """In real runtimes, two sessions of one file differ by up to 8 %."""
    verdicts = Counter(
        bench(Machine(session_noise=0.04, run_noise=0.003, seed=seed), 4.0, 4.0).verdict
        for seed in range(50)
    )
    assert verdicts == {SAME: 50}


@pytest.mark.parametrize("drift", [-0.2, 0.0, 0.5, 3.0], ids="drift {}".format)
def test_drift_is_no_change(drift: float) -> None:
    result = bench(Machine(drift=drift), 4.0, 4.0)
    assert result.verdict == SAME
    assert result.speedup == pytest.approx(1.0, abs=0.01)


# --- a change -----------------------------------------------------------------------------------

CHANGED = [
    pytest.param(2.0, 0.02, "faster", id="twice as fast"),
    pytest.param(0.5, 0.02, "slower", id="twice as slow"),
    pytest.param(23.0, 0.3, "faster", id="23 times as fast on a busy machine"),
    pytest.param(1.1, 0.02, "faster", id="10 % faster"),
    pytest.param(0.9, 0.02, "slower", id="10 % slower"),
    pytest.param(1.01, 0.0, "faster", id="1 % faster without noise"),
]


@pytest.mark.parametrize(("ratio", "noise", "verdict"), CHANGED)
def test_changed(ratio: float, noise: float, verdict: str) -> None:
    for seed in range(20):
        before, after, again = (times(1.0, noise, 3 * seed + side) for side in range(3))
        result = compare_times(before * ratio, after, again * ratio)
        assert result.verdict == verdict
        assert result.speedup == np.median(before * ratio / after)
        assert result.speedup_ci95[0] <= result.speedup <= result.speedup_ci95[1]
        assert result.speedup == pytest.approx(ratio, rel=2 * noise + 1e-9)


@pytest.mark.parametrize("drift", [-0.2, 0.0, 0.5, 3.0], ids="drift {}".format)
@pytest.mark.parametrize(
    ("original_ms", "pruned_ms", "verdict"), [(4.0, 2.0, "faster"), (2.0, 4.0, "slower")]
)
def test_drift_does_not_bias_the_ratio(
    original_ms: float, pruned_ms: float, verdict: str, drift: float
) -> None:
    result = bench(Machine(drift=drift, run_noise=0.01), original_ms, pruned_ms)
    assert result.verdict == verdict
    assert result.speedup == pytest.approx(original_ms / pruned_ms, rel=0.02)


def test_unit_of_time_does_not_matter() -> None:
    before, after, again = (times(1.0, 0.1, seed) for seed in range(3))
    result = compare_times(before, after, again)
    assert result == compare_times(before * 1024, after * 1024, again * 1024)


def test_interval_agrees_with_order_statistics() -> None:
    """The median is between the 10th and 21st of 30 values with 95.7 % (binomial distribution)."""
    low, high = median_interval(np.random.default_rng(5).permutation(np.arange(1.0, 31.0)), 0)
    assert low == pytest.approx(10, abs=1)
    assert high == pytest.approx(21, abs=1)


def test_noise_floor_is_half_the_interval_of_the_control() -> None:
    before, after, again = (times(1.0, 0.1, seed) for seed in range(3))
    low, high = median_interval(before / again, 7)
    assert compare_times(before, after, again, 7).noise_floor == (high - low) / 2


# --- the record ---------------------------------------------------------------------------------


def test_record_without_noise() -> None:
    machine = Machine()
    result = bench_models(
        machine.model("original", 4.0, load_ms=7.0),
        machine.model("pruned.bin", 2.0, load_ms=3.0),
        FEEDS,
        BenchOptions(RunOptions(threads=2, batch=5)),
        machine,
    )
    assert result == Latency(
        artifact="pruned.bin",
        engine="fake 1.0",
        threads=2,
        batch=2,  # of the feed, not of the option
        original_p50_ms=4.0,
        p50_ms=2.0,
        p90_ms=2.0,
        original_load_ms=7.0,
        load_ms=3.0,
        samples=30,
        speedup=2.0,
        speedup_ci95=(2.0, 2.0),
        noise_floor=0.0,
        verdict="faster",
    )


def test_percentiles_are_of_block_means() -> None:
    result = bench(Machine(run_noise=0.1), 4.0, 0.01, pairs=40)
    assert result.p50_ms < result.p90_ms < 0.0105  # means of 1,024 runs; single runs vary by 10 %


def test_batch_comes_from_the_option_if_no_input_has_one() -> None:
    machine = Machine()
    model = machine.model("scalar", 4.0)
    options = BenchOptions(RunOptions(batch=3))
    assert bench_models(model, model, [{"x": np.array(0)}], options, machine).batch == 3


def test_same_seed_gives_same_record() -> None:
    first, second, other = (
        bench(Machine(run_noise=0.05, session_noise=0.02), 4.0, 3.9, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


# --- measuring ----------------------------------------------------------------------------------


def rounds_of(machine: Machine, runs: int) -> list[list[int]]:
    """For each round, its three sessions in the order in which their blocks ran."""
    measured: dict[int, list[int]] = {}
    for _, session, _ in machine.events:
        measured.setdefault((session - 1) // 3, []).append(session)
    tails = (sessions[-3 * (runs + 1) :: runs + 1] for sessions in measured.values())
    return [[(session - 1) % 3 for session in tail] for tail in tails]


def test_each_random_order_is_followed_by_its_reverse() -> None:
    random = latency._orders(3, 0)
    orders = [next(random) for _ in range(40)]
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert [order[::-1] for order in orders[::2]] == orders[1::2]
    assert len({tuple(order) for order in orders}) == 6


def test_each_round_has_new_sessions_and_one_block_of_each() -> None:
    machine = Machine()
    result = bench(machine, 4.0, 4.0)
    blocks = rounds_of(machine, runs=4)
    assert len(blocks) == result.samples == 30
    assert all(sorted(each) == [0, 1, 2] for each in blocks)
    names = Counter(name for name, session, _ in machine.events if session > 3)
    assert names["original"] == 2 * names["pruned"]


@pytest.mark.parametrize(
    ("load_ms", "sessions"),
    [
        pytest.param(1.0, 90, id="cheap: in every round"),
        pytest.param(50.0, 51, id="until 3 s were spent on loading"),
        pytest.param(1000.0, 27, id="expensive: 3 in 10 rounds"),
    ],
)
def test_loads(load_ms: float, sessions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "BUDGET_S", 1e6)
    machine = Machine()
    model = machine.model("any", 4.0, load_ms)
    bench_models(model, model, FEEDS, BenchOptions(), machine)
    assert machine.loads == sessions
    assert machine.most_alive == 3


@pytest.mark.parametrize(
    ("run_ms", "pairs"),
    [
        pytest.param(0.5, 30, id="quick"),
        pytest.param(150.0, 18, id="slow: until the time is over"),
        pytest.param(3000.0, 10, id="very slow: 10"),
    ],
)
def test_slow_models_get_fewer_rounds(run_ms: float, pairs: int) -> None:
    machine = Machine()
    assert bench(machine, run_ms, run_ms).samples == pairs
    assert machine.now < max(30_000, 90 * run_ms) * MS


@pytest.mark.parametrize(
    ("run_ms", "runs"),
    [(10.0, 1), (9.9, 2), (5.0, 2), (1.0, 16), (0.3, 64)],
    ids="{} ms".format,
)
def test_block_size_is_doubled_until_blocks_are_long_enough(run_ms: float, runs: int) -> None:
    session = Machine().model("any", run_ms).runner(RunOptions())
    options = BenchOptions()
    runs_found = latency._Bench([session.model], FEEDS, options, session.machine)._block_size(
        session
    )
    assert runs_found == runs


def test_interruption_does_not_shorten_the_blocks() -> None:
    machine = Machine(interrupted_ms=50.0)
    session = machine.model("any", 1.0).runner(RunOptions())
    bench = latency._Bench([session.model], FEEDS, BenchOptions(), machine)
    assert bench._block_size(session) == 16


@pytest.mark.parametrize(("pairs", "samples"), [(10, 10), (11, 12), (30, 30)])
def test_odd_number_of_pairs_is_rounded_up(pairs: int, samples: int) -> None:
    assert bench(Machine(), 4.0, 4.0, pairs=pairs).samples == samples


def test_feeds_are_used_in_turn() -> None:
    machine = Machine()
    bench(machine, 4.0, 2.0)
    measured = [feed for name, session, feed in machine.events if name == "original"][-5:]
    assert measured == [2, 2, 0, 1, 2]  # round 29: an untimed run, then four from feed 29 % 3 on


@pytest.mark.parametrize("enabled", [True, False], ids=["on", "off"])
def test_garbage_collection_is_off_in_a_block(enabled: bool) -> None:
    machine = Machine()
    session = machine.model("any", 10.0).runner(RunOptions())
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        latency._Bench([session.model], FEEDS, BenchOptions(), machine)._block(session, FEEDS)
        assert machine.collects == [False, False]
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_garbage_collection_is_on_after_an_error() -> None:
    machine = Machine()
    session = machine.model("any", 10.0).runner(RunOptions())
    with pytest.raises(KeyError):
        latency._Bench([session.model], FEEDS, BenchOptions(), machine)._block(session, [{}])
    assert gc.isenabled()
