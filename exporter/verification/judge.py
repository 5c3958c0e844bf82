"""Compare two arrays, in blocks of samples, with what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from exporter.graph import Array
from exporter.verification.metrics import (
    METRICS,
    Block,
    Measure,
    MismatchError,
    Tie,
    TopAgreement,
    comparable,
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


_LARGEST = 3  # values of each model that a report shows of a sample


class Place(NamedTuple):
    """One value of a comparison.

    Attributes:
        sample: index of the input.
        position: on the unit axis of the compared values.
        expected, actual: the values there.
        apart: their |difference|.
    """

    sample: int
    position: int
    expected: float
    actual: float
    apart: float


class Worst(NamedTuple):
    """The sample that exceeds its limit most, or comes nearest to it.

    Attributes:
        place: the largest difference in it.
        limit: of the sample; None without one.
        excess: the difference as a multiple of the limit; without one, of the largest value.
        values: (position, expected, actual) of some units: the largest ones of both models, and
            that of the place. Only the place if the values have no unit axis.
    """

    place: Place
    limit: float | None
    excess: float
    values: tuple[tuple[int, float, float], ...]


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


class Tally:
    """Compares the samples of one output, block after block.

    Args:
        axis: the unit axis, counted with the samples.
        metrics: keys of METRICS. A metric that cannot disagree, such as the first five of three
            units, is left out.
    """

    def __init__(self, axis: int, metrics: Iterable[str]) -> None:
        self._axis, self._metrics = axis, tuple(metrics)
        self._measures: dict[str, Measure] | None = None
        self._mismatch: MismatchError | None = None
        self._allowed = Allowed()
        self._samples, self._most = 0, -1.0
        self.worst: Worst | None = None

    def add(self, expected: Array, actual: Array, allowed: Allowed) -> None:
        """Compare further samples, (samples, ...), which all have one shape.

        Args:
            allowed: in these samples.
        """
        first, self._samples, self._allowed = self._samples, self._samples + len(expected), allowed
        if self._measures is None:
            units = np.shape(expected)[self._axis] if self._axis < np.ndim(expected) else 0
            names = (name for name in self._metrics if METRICS[name].ranks < units)
            self._measures = {name: METRICS[name].start() for name in names}
        try:
            left, right = comparable(expected, actual)
        except MismatchError as error:
            self._mismatch = self._mismatch or error
            if error.kind == "finite":
                left, right = (np.asarray(v, np.float64) for v in (expected, actual))
                self._look_for_worst(left, right, _apart(left, right), first)
            return
        block = Block(left, right, self._axis, allowed.tie, first)
        self._look_for_worst(left, right, block.apart, first)
        for measure in self._measures.values():
            measure.add(block)

    def _look_for_worst(self, expected: Array, actual: Array, apart: Array, first: int) -> None:
        """The sample that exceeds its limit most, and the largest difference in it."""
        limits = self._allowed.difference
        largest = apart.reshape(len(apart), -1).max(axis=1)
        over = largest if limits is None else _excess(largest, limits)
        sample = int(np.argmax(over))
        if over[sample] <= self._most:
            return
        self._most = over[sample]
        inner = np.unravel_index(int(np.argmax(apart[sample])), apart.shape[1:])
        index = (sample, *map(int, inner))
        place = Place(
            first + sample,
            index[self._axis] if self._axis < len(index) else 0,
            float(expected[index]),
            float(actual[index]),
            float(largest[sample]),
        )
        if limits is None:
            size = np.abs(expected[sample])
            scale = size[np.isfinite(size)].max(initial=0.0)
            limit, excess = None, float(_excess(largest[[sample]], np.array([scale]))[0])
        else:
            limit, excess = float(limits[sample]), float(over[sample])
        self.worst = Worst(place, limit, excess, self._values(expected, actual, index, place))

    def _values(
        self, expected: Array, actual: Array, index: tuple[int, ...], place: Place
    ) -> tuple[tuple[int, float, float], ...]:
        """The values of a few units around a place, the largest expected ones first."""
        if not 0 < self._axis < len(index):
            return ((place.position, place.expected, place.actual),)
        before, after = index[: self._axis], index[self._axis + 1 :]
        both = [np.asarray(each[before][(slice(None), *after)]) for each in (expected, actual)]
        largest = [np.argsort(-each, kind="stable")[:_LARGEST].tolist() for each in both]
        positions = {*largest[0], *largest[1], place.position}
        order = sorted(positions, key=lambda each: (-both[0][each], each))
        return tuple((each, float(both[0][each]), float(both[1][each])) for each in order)

    def results(self) -> tuple[Result, ...]:
        """Every metric with its limit; one failed result if the arrays cannot be compared."""
        if self._mismatch is not None:
            error = self._mismatch
            return (Result(error.kind, None, None, passed=False, reason=error.reason),)
        values = {name: measure.value for name, measure in (self._measures or {}).items()}
        limits: dict[str, float] = dict(self._allowed.least)
        worst = self.worst
        if worst is not None and worst.limit is not None and "max_abs" in values:
            values["max_abs"], limits["max_abs"] = worst.place.apart, worst.limit
        by_user = self._allowed.by_user
        return tuple(
            _result(name, value, limits.get(name), by_user=name in by_user)
            for name, value in values.items()
        )

    @property
    def first_units(self) -> TopAgreement | None:
        """How often which position is first; None if that was not measured."""
        measure = (self._measures or {}).get("top1")
        if isinstance(measure, TopAgreement) and self._mismatch is None:
            return measure
        return None

    def place(self, metric: str) -> Place | None:
        """The place that shows best why a metric failed; None if the shapes differ.

        1. A value that is not finite on one side only: the first.
        2. A ranking: the first sample with another first unit, and the unit that came first there.
        3. Otherwise the sample that exceeds its limit most, and the largest difference in it.
        """
        measure = (self._measures or {}).get(metric)
        if isinstance(measure, TopAgreement) and measure.first_wrong is not None:
            expected, actual = measure.values
            place = measure.first_wrong
            return Place(place[0], place[self._axis], expected, actual, abs(actual - expected))
        return None if self.worst is None else self.worst.place


def _apart(expected: Array, actual: Array) -> Array:
    """|difference| of each value; infinite if one of the two is not finite, and not both equal."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(actual - expected)
    apart[expected == actual] = 0.0
    apart[~np.isfinite(apart)] = np.inf
    return np.asarray(apart)


def _excess(differences: Array, limits: Array) -> Array:
    """Each difference as a multiple of its limit; infinite above a limit of 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where(differences == 0.0, 0.0, differences / limits))


def _result(metric: str, value: float, limit: float | None, *, by_user: bool) -> Result:
    passed = limit is None or METRICS[metric].within(value, limit)
    return Result(metric, value, limit, passed, by_user and limit is not None)
