"""Timings with a simulated machine: no test depends on real time."""

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
from exporter.ondevice import rounds
from exporter.ondevice.clocks import SYSTEM, Clocks
from exporter.performance.latency import bench_models
from exporter.performance.scenario import BenchOptions
from exporter.records import Latency

MS = 1_000_000  # nanoseconds
FEEDS = [{"x": np.full((2, 3), index)} for index in range(3)]
SAME = "no measurable change"
QUICK: dict[str, Any] = {"min_seconds": 0.0, "min_runs": 1}


@dataclass
class Machine:
    """Clocks that advance only while a fake model loads or runs.

    Attributes:
        drift: by how much a run becomes slower in one second.
        session_noise: standard deviation of a factor that a session keeps as long as it lives.
        run_noise: standard deviation of a factor of each run.
        neighbor: the part of the runs during which another process takes the processor, for as long
            as the run needs itself.
        first_run_ms: by which the first run takes longer.
        prepare_ms: for checking and feeding inputs.
        events: (model, session, feed) of each run.
        collects: for each reading of the clock: was garbage collection on?
    """

    drift: float = 0.0
    session_noise: float = 0.0
    run_noise: float = 0.0
    neighbor: float = 0.0
    first_run_ms: float = 0.0
    prepare_ms: float = 0.0
    seed: int = 0
    wall: int = 0
    cpu: int = 0
    interruptions: int = 0
    alive: int = 0
    most_alive: int = 0
    events: list[tuple[str, int, int]] = field(default_factory=list)
    collects: list[bool] = field(default_factory=list)
    loads: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    @property
    def clocks(self) -> Clocks:
        return Clocks(self.read_wall, lambda: self.cpu, lambda: self.interruptions)

    def read_wall(self) -> int:
        self.collects.append(gc.isenabled())
        return self.wall

    def work(self, milliseconds: float) -> None:
        self.wall += int(milliseconds * MS)
        self.cpu += int(milliseconds * MS)
        if self.random.random() < self.neighbor:
            self.wall += int(milliseconds * MS)
            self.interruptions += 1

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
        self.machine.wall += int(self.load_ms * MS)
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
        self.prepare(inputs)()
        return {}

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        self.machine.wall += int(self.machine.prepare_ms * MS)
        feed = int(inputs["x"].flat[0])

        def run() -> None:
            machine = self.machine
            machine.events.append((self.model.name, self.number, feed))
            noise = float(np.exp(machine.random.normal() * machine.run_noise))
            slowed = (1 + machine.drift * machine.wall / 1e9) * self.factor * noise
            machine.work(self.model.run_ms * slowed + machine.first_run_ms)
            machine.first_run_ms = 0.0

        return run


def bench(machine: Machine, original_ms: float, pruned_ms: float, **options: Any) -> Latency:
    original, pruned = machine.model("original", original_ms), machine.model("pruned", pruned_ms)
    return bench_models(original, pruned, FEEDS, BenchOptions(**options), machine.clocks)


# --- refused ------------------------------------------------------------------------------------

REFUSED: list[Any] = [
    pytest.param(lambda: BenchOptions(block_ms=0.0), r"0\.0 ms", id="block of 0 ms"),
    pytest.param(lambda: BenchOptions(block_ms=float("nan")), "nan ms", id="block of NaN ms"),
    pytest.param(lambda: BenchOptions(block_ms=float("inf")), "inf ms", id="infinite block"),
    pytest.param(lambda: BenchOptions(loads=2), "2 loads", id="too few loads"),
    pytest.param(lambda: BenchOptions(min_seconds=-1.0), r"-1\.0 s", id="negative duration"),
    pytest.param(lambda: BenchOptions(min_seconds=float("nan")), "nan s", id="duration NaN"),
    pytest.param(lambda: BenchOptions(min_seconds=float("inf")), "inf s", id="no end"),
    pytest.param(
        lambda: bench_models(
            Machine().model("a", 1), Machine().model("b", 1), [], BenchOptions(), SYSTEM
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
    monkeypatch.setattr(rounds, "MAX_RUNS", 8)
    with pytest.raises(UsageError, match="not positive"):
        bench(Machine(), 0.0, 0.0, **QUICK)


# --- results ------------------------------------------------------------------------------------


def test_differences_between_sessions_are_no_change() -> None:
    """In real runtimes, two sessions of one file differ by up to 8 %."""
    verdicts = Counter[str](
        bench(Machine(session_noise=0.04, run_noise=0.003, seed=seed), 4.0, 4.0).verdict
        for seed in range(40)
    )
    assert verdicts[SAME] >= 38


@pytest.mark.parametrize("drift", [-0.1, 0.0, 0.5, 3.0], ids="drift {}".format)
@pytest.mark.parametrize(
    ("original_ms", "pruned_ms", "verdict"),
    [(4.0, 4.0, SAME), (4.0, 2.0, "faster"), (2.0, 4.0, "slower")],
)
def test_drift_does_not_bias_the_ratio(
    original_ms: float, pruned_ms: float, verdict: str, drift: float
) -> None:
    result = bench(Machine(drift=drift, run_noise=0.01), original_ms, pruned_ms)
    assert result.verdict == verdict
    assert result.speedup == pytest.approx(original_ms / pruned_ms, rel=0.02)
    assert result.original_p50_ms / result.p50_ms == pytest.approx(result.speedup)


def test_checking_inputs_is_not_timed() -> None:
    """3 ms of checks before runs of 0.2 and 0.1 ms: the ratio of the runs is 2, not 1.03."""
    result = bench(Machine(prepare_ms=3.0), 0.2, 0.1, **QUICK)
    assert result.speedup == pytest.approx(2.0)
    assert result.p50_ms == pytest.approx(0.1)


def test_rounds_with_interruptions_are_left_out() -> None:
    """The longer blocks of the original are interrupted more often."""
    result = bench(Machine(neighbor=0.02, seed=1), 4.0, 4.0)
    assert result.interrupted_rounds is not None
    assert result.rounds is not None
    assert 0 < result.interrupted_rounds < result.rounds / 2
    assert result.samples == result.rounds - result.interrupted_rounds
    assert result.p99_ms == pytest.approx(4.0)
    assert (result.verdict, result.basis) == (SAME, "wall time")


@pytest.mark.parametrize(("original_ms", "verdict"), [(20.0, SAME), (21.0, "faster")])
def test_busy_machine(original_ms: float, verdict: str) -> None:
    """Other processes take half of the time: CPU times show 5 %."""
    result = bench(Machine(neighbor=0.5, run_noise=0.01, seed=2), original_ms, 20.0)
    assert (result.verdict, result.basis) == (verdict, "CPU time")
    assert result.speedup == pytest.approx(original_ms / 20.0, abs=0.02)
    assert result.original_cpu_ms is not None
    assert result.cpu_ms is not None
    assert result.original_cpu_ms / result.cpu_ms == pytest.approx(result.speedup)
    assert result.p90_ms > 30, "wall times contain the other processes"


def test_percentiles_are_of_single_runs() -> None:
    """One run in ten takes twice as long: blocks of a hundred runs hide it, percentiles do not."""
    result = bench(Machine(neighbor=0.08, seed=3), 0.1, 0.1)
    assert result.basis == "CPU time"
    assert (result.p50_ms, result.p90_ms) == pytest.approx((0.1, 0.1))
    assert (result.original_p99_ms, result.p99_ms) == pytest.approx((0.2, 0.2))
    assert result.runs == result.samples * result.settings["runs_per_block"][1]


# --- the record ---------------------------------------------------------------------------------


def test_record_without_noise() -> None:
    machine = Machine()
    options = BenchOptions(RunOptions(threads=2, batch=5), min_seconds=1.0)
    result = bench_models(
        machine.model("original", 4.0, load_ms=7.0),
        machine.model("pruned.bin", 2.0, load_ms=3.0),
        FEEDS,
        options,
        machine.clocks,
    )
    raw = result.raw
    assert result.engine == "fake 1.0"
    assert (result.artifact, result.threads) == ("pruned.bin", 2)
    assert result.batch == 2, "of the feed, not of the option"
    assert (result.original_p50_ms, result.p50_ms) == pytest.approx((4.0, 2.0))
    assert (result.original_cpu_ms, result.cpu_ms) == pytest.approx((4.0, 2.0))
    assert (result.original_p90_ms, result.p90_ms, result.p99_ms) == pytest.approx((4.0, 2.0, 2.0))
    assert (result.original_load_ms, result.load_ms) == (7.0, 3.0)
    assert (result.speedup, *result.speedup_ci95) == pytest.approx((2.0, 2.0, 2.0))
    assert (result.noise_floor, result.detectable_change) == pytest.approx((0.0, 0.0))
    assert (result.verdict, result.interrupted_rounds) == ("faster", 0)
    assert result.rounds == result.samples == len(raw["load"])
    assert result.loads == len(set(raw["load"])) == len(raw["load_ms"]["control"])
    assert set(raw["p50_ms"]["original"]) == set(raw["p50_ms"]["control"]) == {4.0}
    assert set(raw["cpu_ms"]["pruned"]) == {2.0}
    assert raw["used"] == [True] * result.rounds
    assert result.settings == {
        "threads": 2,
        "batch": 2,
        "min_seconds": 1.0,
        "min_runs": 20,
        "min_loads": 10,
        "max_seconds": 120.0,
        "block_ms": 10.0,
        "runs_per_block": [4, 8, 4],
        "seed": 0,
        "resamples": 2000,
        "confidence": 0.95,
    }


def test_batch_comes_from_the_option_if_no_input_has_one() -> None:
    machine = Machine()
    model = machine.model("scalar", 4.0)
    options = BenchOptions(RunOptions(batch=3), **QUICK)
    feeds = [{"x": np.array(0)}]
    assert bench_models(model, model, feeds, options, machine.clocks).batch == 3


def test_same_seed_gives_same_record() -> None:
    first, second, other = (
        bench(Machine(run_noise=0.05, session_noise=0.02), 4.0, 3.9, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first.raw != other.raw


# --- measuring ----------------------------------------------------------------------------------


def test_each_random_order_is_followed_by_its_reverse() -> None:
    """Four untimed runs precede the first load's rounds: blocks have one run of 10 ms."""
    machine = Machine()
    bench(machine, 10.0, 10.0, **QUICK)
    timed: dict[int, list[int]] = {}
    for _, session, _ in machine.events:
        timed.setdefault((session - 1) // 3, []).append((session - 1) % 3)
    orders = [(each[-6:-3], each[-3:]) for each in timed.values()]
    assert len(orders) == 10
    assert all(sorted(first) == [0, 1, 2] and second == first[::-1] for first, second in orders)
    assert len({tuple(first) for first, _ in orders}) > 2


def test_every_load_has_three_new_sessions() -> None:
    machine = Machine()
    result = bench(machine, 4.0, 4.0)
    assert result.loads == machine.loads / 3 >= 10
    assert machine.most_alive == 3


@pytest.mark.parametrize(
    ("run_ms", "load_ms", "options", "loads", "rounds"),
    [
        pytest.param(10.0, 1.0, QUICK, 10, 20, id="ten loads, two rounds each"),
        pytest.param(10.0, 1.0, {"min_seconds": 6.0}, 100, 200, id="until the duration is reached"),
        pytest.param(
            10.0, 1.0, {"min_runs": 50, "min_seconds": 0.0}, 25, 50, id="until the count is"
        ),
        pytest.param(
            10.0, 200.0, {"min_seconds": 2.4}, 11, 82, id="costly loads: more rounds each"
        ),
        pytest.param(3000.0, 1.0, {}, 4, 8, id="very slow: two minutes"),
        pytest.param(10.0, 20_000.0, QUICK, 3, 6, id="very slow to load: three times"),
    ],
)
def test_scenario(
    run_ms: float, load_ms: float, options: dict[str, Any], loads: int, rounds: int
) -> None:
    machine = Machine()
    model = machine.model("any", run_ms, load_ms)
    result = bench_models(model, model, FEEDS, BenchOptions(**options), machine.clocks)
    assert (result.loads, result.rounds) == (loads, rounds)


def test_budget_is_announced() -> None:
    machine = Machine()
    model, lines = machine.model("any", 10.0), list[str]()
    result = bench_models(
        model, model, FEEDS, BenchOptions(min_seconds=3.0), machine.clocks, progress=lines.append
    )
    (line,) = lines
    assert line == "timing: about 50 loads of each model, 7 s"
    assert result.loads == 50
    assert machine.wall / 1e9 == pytest.approx(7, abs=1)


@pytest.mark.parametrize(
    ("run_ms", "runs"),
    [(10.0, 1), (9.9, 2), (5.0, 2), (1.0, 16), (0.3, 64)],
    ids="{} ms".format,
)
def test_block_size_is_doubled_until_blocks_are_long_enough(run_ms: float, runs: int) -> None:
    result = bench(Machine(), run_ms, 10.0, **QUICK)
    assert result.settings["runs_per_block"] == [runs, 1, runs]


def test_interruption_does_not_shorten_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "WARM_UP_RUNS", 0)
    result = bench(Machine(first_run_ms=50.0), 1.0, 1.0, **QUICK)
    assert result.settings["runs_per_block"] == [16, 16, 16]


def test_a_round_uses_one_feed_on_all_sides() -> None:
    machine = Machine()
    bench(machine, 10.0, 10.0, **QUICK)
    feeds = [feed for _, _, feed in machine.events[-6:]]
    assert feeds == [0, 0, 0, 1, 1, 1]  # rounds 18 and 19 of three feeds


@pytest.mark.parametrize("enabled", [True, False], ids=["on", "off"])
def test_garbage_collection_is_off_in_a_block(enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        machine = Machine()
        bench(machine, 10.0, 10.0, **QUICK)
        timed = 20 * 3 * 2 + 4 * 2  # two readings a block; the blocks that find the size
        assert machine.collects.count(False) >= timed
        assert machine.collects.count(True) == 0 if not enabled else machine.collects[0]
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()


def test_garbage_collection_is_on_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_machine: Machine, _milliseconds: float) -> None:
        raise KeyError

    monkeypatch.setattr(rounds, "WARM_UP_RUNS", 0)
    monkeypatch.setattr(Machine, "work", fail)
    with pytest.raises(KeyError):
        bench(Machine(), 10.0, 10.0)
    assert gc.isenabled()


def test_real_clocks_advance() -> None:
    before = [clock() for clock in SYSTEM]
    sum(range(200_000))
    after = [clock() for clock in SYSTEM]
    assert after[0] > before[0]
    assert after[1] > before[1]
    assert after[2] >= before[2]
