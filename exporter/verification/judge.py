"""Compare the metrics of two arrays with what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from exporter.graph import Array
from exporter.verification.metrics import (
    METRICS,
    MismatchError,
    Tie,
    comparable,
    compare,
    difference_of,
    metrics_of,
)


@dataclass(frozen=True, eq=False)
class Allowed:
    """How far apart two arrays may be.

    Attributes:
        difference: (samples,) the largest |difference| in each sample; None if there is no limit.
        tie: (samples,) expected values at most this far apart count as tied when units are ranked.
        least: metric -> its smallest value, for metrics that are better if they are higher.
        by_user: the metrics whose limit the user gave; the others are built in.
    """

    difference: Array | None = None
    tie: Tie = 0.0
    least: Mapping[str, float] = field(default_factory=dict)
    by_user: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Result:
    """The value of one metric, and its limit.

    Attributes:
        metric: key of METRICS; "shape" or "finite" if nothing could be measured.
        value: None if nothing could be measured. If each sample has a limit of its own, the value
            of the sample that comes nearest to it, or exceeds it most.
        limit: of that sample; None if the value is only reported.
        by_user: the user gave the limit.
        reason: why nothing could be measured, else "".
    """

    metric: str
    value: float | None
    limit: float | None
    passed: bool
    by_user: bool = False
    reason: str = ""


def judge(
    expected: Array,
    actual: Array,
    allowed: Allowed,
    *,
    axis: int,
    metrics: Iterable[str] | None = None,
) -> tuple[Result, ...]:
    """Every metric with its limit; one failed result if the arrays cannot be compared.

    A metric that cannot disagree, such as the first five of three units, is left out.
    """
    names = metrics_of("cut") if metrics is None else metrics
    units = np.shape(expected)[axis] if axis < np.ndim(expected) else 0
    names = [name for name in names if METRICS[name].ranks < units]
    try:
        values = compare(expected, actual, axis=axis, tie=allowed.tie, metrics=names)
    except MismatchError as error:
        return (Result(error.kind, None, None, passed=False, reason=error.reason),)
    limits: dict[str, float] = dict(allowed.least)
    if allowed.difference is not None and "max_abs" in values:
        each = sample_differences(expected, actual)
        worst = int(np.argmax(excess(each, allowed.difference)))
        values["max_abs"], limits["max_abs"] = float(each[worst]), float(allowed.difference[worst])
    return tuple(
        _result(name, value, limits.get(name), by_user=name in allowed.by_user)
        for name, value in values.items()
    )


def sample_differences(expected: Array, actual: Array) -> Array:
    """(samples,) the largest |difference| in each sample of comparable arrays."""
    each = np.abs(difference_of(*comparable(expected, actual)))
    return np.asarray(each.reshape(len(each), -1).max(axis=1))


def excess(differences: Array, limits: Array) -> Array:
    """Each difference as a multiple of its limit; infinite above a limit of 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where(differences == 0.0, 0.0, differences / limits))


def _result(metric: str, value: float, limit: float | None, *, by_user: bool) -> Result:
    passed = limit is None or METRICS[metric].within(value, limit)
    return Result(metric, value, limit, passed, by_user and limit is not None)
