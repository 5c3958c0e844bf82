"""Where a failed comparison differs most: the sample, the unit, and both values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exporter.graph import Array
from exporter.verification.judge import Allowed, excess
from exporter.verification.metrics import METRICS, misranked
from exporter.verification.roles import Comparison


class Place(NamedTuple):
    """One value of a comparison.

    Attributes:
        sample: index of the input.
        position: on the unit axis of the compared values.
        expected, actual: the values there.
    """

    sample: int
    position: int
    expected: float
    actual: float


def worst_place(each: Comparison, allowed: Allowed, metric: str) -> Place | None:
    """The place that shows best why a metric of a comparison failed; None if the shapes differ.

    1. A value that is not finite on one side only: the first.
    2. A ranking: the first sample with another first unit, and the unit that came first there.
    3. Otherwise the sample that exceeds its limit most, and the largest difference in it.
    """
    expected, actual = (np.asarray(v, np.float64) for v in (each.expected, each.actual))
    if expected.shape != actual.shape or not expected.size:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(actual - expected)
    apart[expected == actual] = 0.0  # infinities
    apart[~np.isfinite(apart)] = np.inf
    ranks = METRICS[metric].ranks if metric in METRICS else 0
    if ranks:
        index = _first_misranked(expected, actual, each.axis, ranks, allowed)
    else:
        largest = apart.reshape(len(apart), -1).max(axis=1)
        limits = np.ones(len(apart)) if allowed.difference is None else allowed.difference
        sample = int(np.argmax(excess(largest, limits)))
        inner = np.unravel_index(int(np.argmax(apart[sample])), apart.shape[1:])
        index = (sample, *map(int, inner))
    return Place(index[0], index[each.axis], float(expected[index]), float(actual[index]))


def _first_misranked(
    expected: Array, actual: Array, axis: int, ranks: int, allowed: Allowed
) -> tuple[int, ...]:
    """The index of the value that ranks first in the first vector that ranks other units."""
    wrong = misranked(expected, actual, ranks, axis, allowed.tie)
    place = tuple(map(int, np.unravel_index(int(np.argmax(wrong)), wrong.shape)))
    unit = int(np.argmax(np.moveaxis(actual, axis, -1)[place]))
    return (*place[:axis], unit, *place[axis:])
