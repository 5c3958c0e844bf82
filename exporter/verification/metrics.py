"""How far apart two arrays are: one class and one row of METRICS for each metric.

A metric sees the samples in blocks, so that they need not be in memory at once. Its value is that
of all samples, whatever the blocks.

Shape and finiteness are checked first and never repaired. A NaN on either side fails, because it
equals nothing. An infinity is not computed with: it must have the same position and the same sign
on both sides, and then adds no difference. A comparison of empty arrays fails too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, Protocol

import numpy as np

from exporter.graph import Array

Tie = float | Array  # one number, or one for each sample

# Share of the largest expected value: a smaller denominator would turn rounding into "100 %".
RELATIVE_FLOOR = 1e-3


class MismatchError(Exception):
    """Two arrays that no metric can compare.

    Attributes:
        kind: "shape" or "finite"; a report shows it in place of the metric's name.
        reason: one line for people.
    """

    def __init__(self, kind: Literal["shape", "finite"], reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Block:
    """Some samples of a comparison.

    Attributes:
        expected, actual: (samples, ...) float64 with one shape, as `comparable` returns them.
        axis: the unit axis.
        tie: values at most this far apart count as tied; one number, or one for each sample.
        first: how many samples are in the blocks before.
    """

    expected: Array
    actual: Array
    axis: int
    tie: Tie = 0.0
    first: int = 0

    @cached_property
    def finite(self) -> tuple[Array, Array]:
        """Both arrays with 0 for infinities."""
        return _finite(self.expected), _finite(self.actual)

    @cached_property
    def apart(self) -> Array:
        """|difference| of each value; infinite if it overflows, 0 for equal infinities."""
        with np.errstate(over="ignore"):
            return np.asarray(np.abs(self.finite[1] - self.finite[0]))


class Measure(Protocol):
    """A metric that is being computed."""

    def add(self, block: Block) -> None:
        """Count further samples."""

    @property
    def value(self) -> float:
        """Of all samples so far."""


@dataclass(frozen=True)
class Metric:
    """One way to measure how far apart two arrays are. The row says all that others must know.

    Attributes:
        label: a few words for people.
        start: begins to compute it.
        stages: the stages that report it.
        higher_is_better: the limit is a lower bound.
        ranks: how many units it looks for; with no more units than that it always agrees, so it is
            left out. 0 for a metric that does not rank.
    """

    label: str
    start: Callable[[], Measure]
    stages: frozenset[str]
    higher_is_better: bool = False
    ranks: int = 0

    def within(self, value: float, limit: float) -> bool:
        """Whether a value is within a limit; NaN never is."""
        return value >= limit if self.higher_is_better else value <= limit


# --- comparing ----------------------------------------------------------------------------------


def comparable(expected: Array, actual: Array) -> tuple[Array, Array]:
    """Both arrays in float64, after a check that they can be compared.

    Raises:
        MismatchError: the shapes differ or are empty, a value is NaN, or an infinity is on one side
            only.
    """
    left, right = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    if left.shape != right.shape:
        shapes = f"the shape is {list(right.shape)}, expected {list(left.shape)}"
        raise MismatchError("shape", shapes)
    if not left.size:
        raise MismatchError("shape", f"nothing to compare: the shape is {list(left.shape)}")
    if broken := int(np.isnan(left).sum()):
        raise MismatchError("finite", f"{broken} of {left.size} expected values are NaN")
    unequal = (left != right) & ~(np.isfinite(left) & np.isfinite(right))
    if broken := int(unequal.sum()):
        raise MismatchError(
            "finite", f"{broken} of {left.size} values are NaN, or infinite on one side only"
        )
    return left, right


def measure(name: str, block: Block) -> float:
    """The value of a metric on one block; `name` is a key of METRICS."""
    measured = METRICS[name].start()
    measured.add(block)
    return measured.value


# --- the metrics --------------------------------------------------------------------------------


def _finite(values: Array) -> Array:
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, 0.0)


class _MaxAbs:
    value = 0.0

    def add(self, block: Block) -> None:
        self.value = max(self.value, float(block.apart.max()))


class _MaxRel:
    """The denominator is |expected|, at least RELATIVE_FLOOR times the largest |expected| of all.

    That floor may rise until the last sample, and then other values decide. `_front` are the
    (|expected|, |difference|) that may: no other one has as large a difference of as small a value,
    or as large a ratio of as large a value.
    """

    def __init__(self) -> None:
        self._largest = 0.0
        self._front = np.zeros((2, 1))

    def _floor(self) -> float:
        return max(RELATIVE_FLOOR * self._largest, np.finfo(np.float64).smallest_subnormal)

    def add(self, block: Block) -> None:
        size = np.abs(block.finite[0]).ravel()
        self._largest = max(self._largest, float(size.max()))
        both = np.stack([size, block.apart.ravel()])
        self._front = _front(np.concatenate([self._front, both], axis=1), self._floor())

    @property
    def value(self) -> float:
        return float(_ratios(self._front, self._floor()).max())


def _ratios(points: Array, floor: float) -> Array:
    size, apart = points
    with np.errstate(over="ignore"):
        return np.asarray(apart / np.maximum(size, floor))


def _front(points: Array, floor: float) -> Array:
    """The (2, points) that decide the largest ratio at this floor, or at a higher one."""
    size, apart = points
    ratio = _ratios(points, floor)
    best = int(np.argmax(ratio))  # decides until the floor is above its value
    start = max(size[best], floor)
    later = np.flatnonzero((apart > apart[best]) & (size > start))
    order = later[np.argsort(size[later], kind="stable")]
    # each further one is above all smaller values in difference, and above all larger ones in ratio
    above = apart[order] > np.maximum.accumulate(np.concatenate([apart[[best]], apart[order]]))[:-1]
    order = order[above]
    after = np.maximum.accumulate(ratio[order][::-1])[::-1]
    return points[:, [best, *order[ratio[order] >= after]]]


class _RootMeanSquare:
    """Values are scaled so that squares do not overflow."""

    def __init__(self) -> None:
        self._scale, self._squares, self._count = 0.0, 0.0, 0

    def add(self, values: Array) -> None:
        largest = float(np.abs(values).max())
        if largest > self._scale:
            self._squares *= (self._scale / largest) ** 2
            self._scale = largest
        if self._scale not in {0.0, np.inf}:
            self._squares += float(np.square(values / self._scale).sum())
        self._count += values.size

    @property
    def value(self) -> float:
        if self._scale in {0.0, np.inf}:
            return self._scale
        return float(self._scale * np.sqrt(self._squares / self._count))


class _Rmse:
    def __init__(self) -> None:
        self._noise = _RootMeanSquare()

    def add(self, block: Block) -> None:
        self._noise.add(block.apart)

    @property
    def value(self) -> float:
        return self._noise.value


class _SqnrDb:
    """20 log10(rms of expected / rms of difference) in dB; infinite for equal arrays."""

    def __init__(self) -> None:
        self._signal, self._noise = _RootMeanSquare(), _RootMeanSquare()

    def add(self, block: Block) -> None:
        self._signal.add(block.finite[0])
        self._noise.add(block.apart)

    @property
    def value(self) -> float:
        if self._noise.value == 0.0:
            return float("inf")
        with np.errstate(divide="ignore"):  # no signal: -inf dB
            return float(20.0 * (np.log10(self._signal.value) - np.log10(self._noise.value)))


class _Cosine:
    """The smallest cosine of all vectors along the unit axis; 0 if one of the two is all zeros.

    1 - |u - v|^2 / 2 for unit vectors u and v, which is exactly 1 if they are equal.
    """

    value = np.inf

    def add(self, block: Block) -> None:
        left, right = (_unit_vectors(values, block.axis) for values in block.finite)
        cosine = 1.0 - np.square(left - right).sum(axis=block.axis) / 2.0
        one_is_zero = left.any(axis=block.axis) != right.any(axis=block.axis)
        self.value = min(self.value, float(np.where(one_is_zero, 0.0, cosine).min()))


def _unit_vectors(values: Array, axis: int) -> Array:
    """Vectors along the axis, scaled to length 1; zero vectors stay zero."""
    scale = np.abs(values).max(axis=axis, keepdims=True)
    safe = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    length = np.sqrt(np.square(safe).sum(axis=axis, keepdims=True))
    return np.asarray(np.divide(safe, length, out=safe, where=length > 0))


class TopAgreement:
    """The fraction of vectors with the expected first k units; k = min(k, units).

    Equal values rank by index, as on a device. A vector agrees if (1) each unit that the actual
    values rank among the first k is expected there, or tied with the k-th, and (2) no unit is
    missing that is expected there and not tied with the unit after the k-th.

    Attributes:
        first_wrong: of the first vector that does not agree, the place of the unit that comes
            first: (sample, ...), with the axes of the arrays; None so far.
        values: expected and actual there.
        firsts: position on the unit axis -> how often it is expected first; with k = 1 only.
        confused: (position expected first, position that is first) -> how often, where the vector
            does not agree; with k = 1 only.
    """

    def __init__(self, k: int) -> None:
        self._k, self._wrong, self._count = k, 0, 0
        self.firsts: Counter[int] = Counter()
        self.confused: Counter[tuple[int, int]] = Counter()
        self.first_wrong: tuple[int, ...] | None = None
        self.values = 0.0, 0.0

    def add(self, block: Block) -> None:
        wrong = _misranked(block, self._k)
        self._wrong += int(wrong.sum())
        self._count += wrong.size
        if self._k == 1:
            self._count_first(block, wrong)
        if self.first_wrong is None and wrong.any():
            axis, place = block.axis % block.actual.ndim, np.argwhere(wrong)[0].tolist()
            unit = int(np.argmax(np.moveaxis(block.actual, axis, -1)[tuple(place)]))
            index = (*place[:axis], unit, *place[axis:])
            self.values = float(block.expected[index]), float(block.actual[index])
            self.first_wrong = (block.first + index[0], *index[1:])

    def _count_first(self, block: Block, wrong: Array) -> None:
        wanted, given = (np.argmax(v, axis=block.axis) for v in (block.expected, block.actual))
        self.firsts.update(dict(enumerate(np.bincount(wanted.ravel()).tolist())))
        self.confused.update(zip(wanted[wrong].tolist(), given[wrong].tolist(), strict=True))

    @property
    def value(self) -> float:
        return 1.0 - self._wrong / self._count


def _misranked(block: Block, k: int) -> Array:
    """Which vectors along the unit axis rank other units among the first k."""
    wanted, given = (np.moveaxis(v, block.axis, -1) for v in (block.expected, block.actual))
    units, tie = wanted.shape[-1], block.tie
    if k >= units:
        return np.zeros(wanted.shape[:-1], bool)
    if np.ndim(tie):
        tie = np.reshape(tie, (-1, *[1] * (wanted.ndim - 1)))
    chosen = _first(given, k)
    ranked = np.partition(wanted, (units - k - 1, units - k), axis=-1)
    after, last = ranked[..., [units - k - 1]], ranked[..., [units - k]]
    wrong = chosen & (wanted < last - tie)
    missing = ~chosen & (wanted > after + tie)
    return np.asarray((wrong | missing).any(axis=-1))


def _first(values: Array, k: int) -> Array:
    """A mask of the k largest values along the last axis; of equal values the first."""
    last = np.partition(values, -k, axis=-1)[..., [-k]]
    above, equal = values > last, values == last
    room = k - above.sum(axis=-1, keepdims=True)
    return np.asarray(above | (equal & (equal.cumsum(axis=-1) <= room)))


_FLOAT = frozenset({"cut", "export"})  # both models have the same precision
_ALL = _FLOAT | {"quantize"}

METRICS: Mapping[str, Metric] = {  # in the order of the report
    "sqnr_db": Metric(
        "signal to quantization noise, dB",
        _SqnrDb,
        frozenset({"quantize"}),
        higher_is_better=True,
    ),
    "max_abs": Metric("largest |difference|", _MaxAbs, _ALL),
    "max_rel": Metric("largest relative difference", _MaxRel, _FLOAT),
    "rmse": Metric("root mean square difference", _Rmse, _FLOAT),
    "cosine": Metric(
        "smallest cosine of the angle between two vectors of units",
        _Cosine,
        _ALL,
        higher_is_better=True,
    ),
    "top1": Metric(
        "same first unit", partial(TopAgreement, 1), _ALL, higher_is_better=True, ranks=1
    ),
    "top5": Metric(
        "same first five units",
        partial(TopAgreement, 5),
        _FLOAT,
        higher_is_better=True,
        ranks=5,
    ),
}


def metrics_of(stage: str) -> tuple[str, ...]:
    """The metrics that a stage reports."""
    return tuple(name for name, metric in METRICS.items() if stage in metric.stages)
