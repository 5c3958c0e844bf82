"""Timings against earlier ones: the arithmetic is done again here, in logarithms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from exporter.performance.trend import Timing, compare_with_earlier

BASE = Timing("2026-01-01", "a -> b", "machine", "sha", 10.0, (9.9, 10.1), 0.5, (0.495, 0.505))


def timing(relative: float = 0.5, width: float = 0.01, **changes: Any) -> Timing:
    """A timing whose ratio has an interval of this half-width (relative)."""
    ends = relative * math.exp(-width), relative * math.exp(width)
    return replace(BASE, relative=relative, relative_ci95=ends, **changes)


NOT_COMPARED = [
    pytest.param([], id="none"),
    pytest.param([timing(environment="other machine")], id="machine or versions"),
    pytest.param([timing(series="a -> c")], id="another file"),
]


@pytest.mark.parametrize("earlier", NOT_COMPARED)
def test_not_compared(earlier: list[Timing]) -> None:
    found = compare_with_earlier(BASE, earlier)
    assert (found.value, found.low, found.high, found.trend) == (None, None, None, "first")
    assert not found.exceeds(0.0)
    assert not found.can_show(1.0)


RATIOS = [
    # ratio now, its half-width, earlier ratios with theirs -> change, half-width of the change
    pytest.param(0.55, 0.01, [(0.5, 0.01)], 0.1, math.hypot(0.01, 0.01), id="one"),
    pytest.param(0.55, 0.03, [(0.5, 0.04)], 0.1, 0.05, id="both widths count"),
    pytest.param(0.5, 0.01, [(0.5, 0.01), (0.5, 0.01), (2.0, 0.01)], 0.0, None, id="an outlier"),
    pytest.param(0.4, 0.01, [(0.5, 0.01)] * 9, -0.2, math.hypot(0.01, 0.01), id="many"),
    pytest.param(0.5, 0.01, [(9.0, 0.01)] + [(0.5, 0.01)] * 5, 0.0, None, id="only the last five"),
]


@pytest.mark.parametrize(("now", "width", "before", "change", "half"), RATIOS)
def test_change(
    now: float, width: float, before: list[Any], change: float, half: float | None
) -> None:
    found = compare_with_earlier(timing(now, width), [timing(*each) for each in before])
    assert found.basis == "ratio"
    assert found.value == pytest.approx(change, abs=1e-12)
    assert found.earlier == min(5, len(before))
    if half is not None:
        assert found.low is not None
        assert found.high is not None
        assert math.log1p(found.low) == pytest.approx(math.log1p(change) - half)
        assert math.log1p(found.high) == pytest.approx(math.log1p(change) + half)


def test_spread_of_earlier_runs_widens_the_interval() -> None:
    """Three runs that differ by 10 % with narrow intervals: 1.96 * 0.1 / sqrt(3)."""
    before = [timing(0.5 * math.exp(shift), 0.001) for shift in (-0.1, 0.0, 0.1)]
    found = compare_with_earlier(timing(0.5, 0.0001), before)
    assert found.high is not None
    assert math.log1p(found.high) == pytest.approx(1.96 * 0.1 / math.sqrt(3), rel=1e-3)


def test_time_is_compared_if_the_original_is_another() -> None:
    slower = replace(BASE, original_sha256="other", p50_ms=12.0, p50_ci95_ms=(11.9, 12.1))
    found = compare_with_earlier(slower, [BASE])
    assert (found.basis, found.trend) == ("p50", "slower")
    assert found.value == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("ratio", "width", "fails", "shows", "trend"),
    [
        (0.56, 0.01, True, True, "slower"),  # +12 % +/- 1.4 %
        (0.53, 0.01, False, True, "slower"),  # +6 %: slower, but not surely by 5 %
        (0.56, 0.08, False, False, "slower"),  # +12 % +/- 8 %: perhaps by 3 %
        (0.45, 0.01, False, True, "faster"),
    ],
)
def test_the_interval_decides(
    ratio: float, width: float, fails: bool, shows: bool, trend: str
) -> None:
    found = compare_with_earlier(timing(ratio, width), [timing()])
    assert (found.exceeds(0.05), found.can_show(0.05), found.trend) == (fails, shows, trend)


def test_timing_of_a_record() -> None:
    row = {"p50_ms": 2.0, "p50_ci95_ms": None, "speedup": 2.0, "speedup_ci95": (1.6, 2.5)}
    found = Timing.of(("now", "s", "e", None), row)
    assert (found.p50_ci95_ms, found.relative, found.relative_ci95) == (
        (2.0, 2.0),
        0.5,
        (0.4, 0.625),
    )
