"""Intervals: held against formulas that are written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from exporter.evaluation.intervals import bootstrap, of_share

Z = 1.959963984540054  # of a standard normal distribution, 97.5 %


@pytest.mark.parametrize(("correct", "count"), [(9, 10), (0, 7), (7, 7), (450, 1000)])
def test_a_proportion_has_wilsons_interval(correct: int, count: int) -> None:
    p = correct / count
    center = (p + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    assert of_share(correct, count) == pytest.approx((center - half, center + half), abs=1e-9)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=400)
    (found,) = bootstrap(lambda cases: [float(values[cases].mean())], np.arange(400), 1000)
    assert found is not None
    half = Z * values.std() / math.sqrt(400)
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


def test_a_difference_is_paired() -> None:
    """Two models that are wrong on the same samples differ by exactly nothing."""
    hits = np.random.default_rng(2).random(50) < 0.5
    one, other, difference = bootstrap(
        lambda cases: [hits[cases].mean(), hits[cases].mean(), 0.0], np.arange(50), 100
    )
    assert one == other
    assert one is not None
    assert one[0] < one[1]
    assert difference == (0.0, 0.0)


@pytest.mark.parametrize(
    ("cases", "value"),
    [
        pytest.param(np.arange(1), 1.0, id="one case"),
        pytest.param(np.arange(9), math.nan, id="an undefined value"),
    ],
)
def test_no_interval(cases: np.ndarray, value: float) -> None:
    assert bootstrap(lambda _: [value], cases, 20) == [None]
