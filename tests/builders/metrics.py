"""The metrics and results of two arrays that are in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from exporter.graph import Array
from exporter.verification.judge import Allowed, Result, Tally
from exporter.verification.metrics import Block, Tie, comparable, measure, metrics_of


def compare(
    expected: Array, actual: Array, *, axis: int, tie: Tie, metrics: Iterable[str] | None = None
) -> dict[str, float]:
    """Metric -> value; the metrics of a cut if none are given."""
    block = Block(*comparable(expected, actual), axis, tie)
    names = metrics_of("cut") if metrics is None else metrics
    return {name: measure(name, block) for name in names}


def judge(
    expected: Array,
    actual: Array,
    allowed: Allowed,
    *,
    axis: int,
    metrics: Iterable[str] | None = None,
) -> tuple[Result, ...]:
    """The results of a `Tally` of one block."""
    tally = Tally(axis, metrics_of("cut") if metrics is None else metrics)
    tally.add(np.asarray(expected), np.asarray(actual), allowed)
    return tally.results()
