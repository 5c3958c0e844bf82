"""Where a failed comparison differs most, in small arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from exporter.graph import Array
from exporter.verification.judge import Allowed, Tally
from exporter.verification.metrics import METRICS

EXPECTED = np.array([[1.0, 2.0, 9.0], [5.0, 4.0, 3.0], [0.0, 1.0, 0.5]])


def off(sample: int, unit: int, value: float) -> Array:
    changed = EXPECTED.copy()
    changed[sample, unit] = value
    return changed


def several() -> Array:
    changed = off(0, 2, 8.0)  # the largest difference, within the limit of its sample
    changed[2, 1] = 0.8
    return changed


PLACES: list[Any] = [
    pytest.param(np.zeros((3, 2)), "shape", None, id="another shape"),
    pytest.param(off(1, 2, np.nan), "finite", (1, 2, 3.0, np.nan), id="NaN"),
    pytest.param(off(2, 0, np.inf), "max_abs", (2, 0, 0.0, np.inf), id="an infinity"),
    pytest.param(off(1, 1, 4.5), "max_abs", (1, 1, 4.0, 4.5), id="one value"),
    pytest.param(several(), "max_abs", (2, 1, 1.0, 0.8), id="beyond the limit of its sample"),
    pytest.param(off(2, 2, 3.0), "top1", (2, 2, 0.5, 3.0), id="another unit is first"),
]


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize(("actual", "metric", "place"), PLACES)
def test_the_worst_place(actual: Array, metric: str, place: Any, samples: int) -> None:
    """The same from blocks of any number of samples."""
    limits = np.array([10.0, 0.1, 0.1])
    tally = Tally(1, METRICS)
    for i in range(0, 3, samples):
        each = slice(i, i + samples)
        tally.add(EXPECTED[each], actual[each], Allowed(limits[each], np.zeros(len(limits[each]))))
    found = tally.place(metric)
    np.testing.assert_equal(found and tuple(found)[:4], place)


def test_units_on_another_axis() -> None:
    """(samples, batch, units, places): the index has the unit at its axis."""
    expected = np.zeros((2, 1, 3, 4))
    expected[:, :, 0] = 0.5
    actual = expected.copy()
    actual[1, 0, 2, 3] = 1.0
    tallies = [Tally(2, METRICS) for _ in range(2)]
    for tally, allowed in zip(tallies, (Allowed(np.ones(2)), Allowed()), strict=True):
        tally.add(expected, actual, allowed)
    assert [tally.place("max_abs") for tally in tallies] == [(1, 2, 0.0, 1.0, 1.0)] * 2
    assert [tally.place("top1") for tally in tallies] == [(1, 2, 0.0, 1.0, 1.0)] * 2


@pytest.mark.parametrize("samples", [1, 3])
def test_the_values_around_the_worst_place(samples: int) -> None:
    """(samples, units, places): the three largest units of both sides, at the worst place."""
    random = np.random.default_rng(3)
    expected = random.normal(size=(3, 9, 2))
    actual = expected + random.normal(size=(3, 9, 2)) / 100
    actual[1, 4, 1] = expected[1, 4, 1] - 5
    tally = Tally(1, METRICS)
    for i in range(0, 3, samples):
        tally.add(
            expected[i : i + samples], actual[i : i + samples], Allowed(np.full(samples, 2.0))
        )
    left, right = expected[1, :, 1], actual[1, :, 1]
    units = {*np.argsort(-left)[:3].tolist(), *np.argsort(-right)[:3].tolist(), 4}
    order = sorted(units, key=lambda unit: -left[unit])
    assert tally.worst is not None
    assert tally.worst.values == tuple((unit, left[unit], right[unit]) for unit in order)
    assert tally.worst.limit == 2
    assert tally.worst.excess == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("expected", "actual", "excess"),
    [
        ([[4.0, 2.0]], [[4.0, 1.0]], 0.25),
        ([[0.0, 0.0]], [[0.0, 1.0]], np.inf),
        ([[3.0]], [[3.0]], 0),
    ],
)
def test_without_a_limit_the_largest_value_is_the_scale(
    expected: Any, actual: Any, excess: float
) -> None:
    tally = Tally(1, METRICS)
    tally.add(np.array(expected), np.array(actual), Allowed())
    assert tally.worst is not None
    assert (tally.worst.limit, tally.worst.excess) == (None, excess)


def test_values_without_a_unit_axis() -> None:
    tally = Tally(1, ("max_abs",))
    tally.add(np.array([1.0, 2.0]), np.array([1.0, 2.5]), Allowed(np.ones(2)))
    assert tally.worst is not None
    assert tally.worst.values == ((0, 2.0, 2.5),)
