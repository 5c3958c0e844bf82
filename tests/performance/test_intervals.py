"""Statistics on simulated rounds with a known ratio."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from exporter.graph import Array
from exporter.performance import intervals
from exporter.performance.intervals import (
    Ratio,
    detectable_change,
    interquartile_mean,
    ratio,
    time_interval,
)


def sides(true: float, seed: int, loads: int = 10, rounds: int = 2) -> tuple[Array, Array, Array]:
    """Rounds with a common drift of 20 %, sessions that differ by 2 %, and 2 % noise."""
    random = np.random.default_rng([seed, loads, rounds])
    drift = 0.2 * np.cumsum(random.normal(size=loads * rounds)) / math.sqrt(loads * rounds)
    logs = [
        drift
        + np.repeat(random.normal(size=loads) * 0.02, rounds)
        + random.normal(size=len(drift)) * 0.02
        for _ in range(2)
    ]
    return true * np.exp(logs[0]), np.exp(logs[1]), np.repeat(np.arange(loads), rounds)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 2.5),
        ([4.0, 1.0, 3.0, 1000.0, 2.0, 5.0, 6.0, -50.0], 3.5),  # of 2, 3, 4, 5
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),
    ],
)
def test_interquartile_mean(values: list[float], expected: float) -> None:
    assert interquartile_mean(np.array(values)) == expected
    assert interquartile_mean(np.array([values, values])).tolist() == [expected, expected]


@pytest.mark.parametrize("true", [0.5, 1.0, 1.05, 20.0])
def test_interval_contains_the_truth(true: float) -> None:
    """At least 95 % of 200 simulations, within three standard errors of the count (86 to 100 %)."""
    found = [ratio(*sides(true, seed)) for seed in range(200)]
    covered = sum(each.low <= true <= each.high for each in found)
    assert covered >= 0.95 * 200 - 3 * math.sqrt(200 * 0.95 * 0.05)
    assert np.median([each.value for each in found]) == pytest.approx(true, rel=0.005)


def test_one_level_would_be_too_narrow() -> None:
    """Rounds of one load are not independent: 8 per load, as if each were a load of its own."""
    covered = {"two levels": 0, "one level": 0}
    for seed in range(100):
        original, pruned, loads = sides(1.0, seed, rounds=8)
        for name, groups in (("two levels", loads), ("one level", np.arange(len(loads)))):
            found = ratio(original, pruned, groups)
            covered[name] += found.low <= 1.0 <= found.high
    assert covered["two levels"] >= 90
    assert covered["one level"] < 80


def test_a_quarter_of_disturbed_rounds_does_not_matter() -> None:
    original, pruned, loads = sides(1.1, 0, loads=12)
    disturbed = original.copy()
    disturbed[::5] *= 4
    assert ratio(disturbed, pruned, loads).value == pytest.approx(1.1, rel=0.02)


def test_shown_times_have_the_ratio() -> None:
    """Drift between rounds may make medians of the sides disagree with the paired ratio."""
    original, pruned, loads = (
        np.array([4.0, 8, 8, 16, 1, 2, 3]),
        np.array([2.0, 4, 4, 8, 4, 8, 3]),
        np.arange(7),
    )
    found = ratio(original, pruned, loads)
    before, after = found.times
    assert before / after == pytest.approx(found.value)
    assert math.sqrt(before * after) == pytest.approx(np.median(np.sqrt(original * pruned)))


def test_without_noise_the_times_are_exact() -> None:
    found = ratio(np.full(6, 4.0), np.full(6, 2.0), np.arange(6))
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.times == pytest.approx((4.0, 2.0))


def test_unit_of_time_does_not_matter() -> None:
    original, pruned, loads = sides(1.3, 1)
    first, second = ratio(original, pruned, loads), ratio(original * 1024, pruned * 1024, loads)
    assert (first.value, first.low) == pytest.approx((second.value, second.low))


def test_loads_may_have_different_numbers_of_rounds() -> None:
    original, pruned, loads = sides(1.2, 3, loads=10, rounds=3)
    kept = np.array([True, True, False] * 5 + [True] * 15)
    found = ratio(original[kept], pruned[kept], loads[kept])
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(1.2, rel=0.05)


def test_the_interval_of_one_side_covers_its_typical_time() -> None:
    times = np.exp(np.random.default_rng(0).normal(size=20) * 0.02) * 5
    low, high = time_interval(times, np.repeat(np.arange(10), 2))
    assert 4.8 < low < float(np.median(times)) < high < 5.2


def test_one_load_gives_the_whole_range() -> None:
    found = ratio(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), np.ones(6), np.zeros(6))
    assert found.low < 2.0
    assert found.high > 5.0


@pytest.mark.parametrize(
    ("degrees", "quantile", "error"),
    [
        (2, 4.3027, 0.04),
        (4, 2.7764, 4e-3),
        (9, 2.2622, 2e-4),
        (29, 2.0452, 1e-4),
    ],
)
def test_t_quantile(degrees: int, quantile: float, error: float) -> None:
    """From printed tables; the series is accurate for ten loads, and 3 % low for three."""
    assert intervals._t_quantile(0.975, degrees) == pytest.approx(quantile, rel=error)


def test_tail_is_expanded_as_in_the_paper() -> None:
    """With t = 2.2622 for nine degrees: the normal tail of sqrt(10 / 9) * 2.2622."""
    assert intervals._expanded_tail(10) == pytest.approx(0.00855, abs=0.0001)
    assert intervals._expanded_tail(10_000) == pytest.approx(0.025, abs=0.0001)


def test_detectable_change_is_detected_in_four_of_five() -> None:
    """An estimate with this standard error, and its interval of 1.96 standard errors."""
    error = 0.01
    change = detectable_change(1.96 * error, 0.0)
    estimates = math.log1p(change) + error * np.random.default_rng(0).normal(size=20_000)
    assert np.mean(estimates > 1.96 * error) == pytest.approx(0.8, abs=0.01)
    assert detectable_change(0.01, 0.02) == detectable_change(0.02)


def test_half_width() -> None:
    assert Ratio(1.0, math.exp(-0.1), math.exp(0.3), 1.0).half_width == pytest.approx(0.2)
    assert NormalDist().inv_cdf(0.975) == pytest.approx(1.96, abs=1e-3)
