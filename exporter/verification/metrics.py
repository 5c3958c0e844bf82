"""How far apart two arrays are: one pure function and one row of METRICS for each metric.

Shape and finiteness are checked first and never repaired. A NaN on either side fails, because it
equals nothing. An infinity is not computed with: it must have the same position and the same sign
on both sides, and then adds no difference. A comparison of empty arrays fails too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class Metric:
    """One way to measure how far apart two arrays are. The row says all that others must know.

    Attributes:
        label: a few words for people.
        compute: (expected, actual, unit axis, tie) -> value. The arrays are float64 with the same
            shape, as `comparable` returns them; values at most `tie` apart count as tied.
        identity: the value for equal arrays.
        stages: the stages that report it.
        higher_is_better: the limit is a lower bound.
        ranks: how many units it looks for; with no more units than that it always agrees, so it is
            left out. 0 for a metric that does not rank.
    """

    label: str
    compute: Callable[[Array, Array, int, Tie], float]
    identity: float
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


def compare(
    expected: Array, actual: Array, *, axis: int, tie: Tie, metrics: Iterable[str] | None = None
) -> dict[str, float]:
    """Metric name -> value.

    Args:
        expected: any shape, any real dtype.
        actual: the same shape.
        axis: the unit axis, for the metrics that need one.
        tie: values at most this far apart count as tied for top-k; one number, or one for each
            sample, the first axis.
        metrics: keys of METRICS; the metrics of the stage "cut" if not given.

    Raises:
        MismatchError: see `comparable`.
    """
    left, right = comparable(expected, actual)
    names = metrics_of("cut") if metrics is None else metrics
    return {name: METRICS[name].compute(left, right, axis, tie) for name in names}


# --- the metrics --------------------------------------------------------------------------------


def _finite(values: Array) -> Array:
    return np.where(np.isfinite(values), values, 0.0)


def difference_of(expected: Array, actual: Array) -> Array:
    with np.errstate(over="ignore"):  # a difference that overflows is infinite
        return np.asarray(_finite(actual) - _finite(expected))


def _largest(values: Array) -> float:
    return float(np.abs(values).max())


def _max_abs(expected: Array, actual: Array, _axis: int, _tie: Tie) -> float:
    return _largest(difference_of(expected, actual))


def _max_rel(expected: Array, actual: Array, _axis: int, _tie: Tie) -> float:
    """The denominator is |expected|, at least RELATIVE_FLOOR times the largest |expected|."""
    size = np.abs(_finite(expected))
    floor = max(RELATIVE_FLOOR * float(size.max()), np.finfo(np.float64).smallest_subnormal)
    with np.errstate(over="ignore"):
        return _largest(difference_of(expected, actual) / np.maximum(size, floor))


def _rms(values: Array) -> float:
    """Root of the mean square; values are scaled first so that squares do not overflow."""
    scale = _largest(values)
    if scale in (0.0, np.inf):
        return scale
    return float(scale * np.sqrt(np.square(values / scale).mean()))


def _rmse(expected: Array, actual: Array, _axis: int, _tie: Tie) -> float:
    return _rms(difference_of(expected, actual))


def _cosine(expected: Array, actual: Array, axis: int, _tie: Tie) -> float:
    """The smallest cosine of all vectors along the unit axis; 0 if one of the two is all zeros.

    1 - |u - v|^2 / 2 for unit vectors u and v, which is exactly 1 if they are equal.
    """
    left, right = _unit_vectors(_finite(expected), axis), _unit_vectors(_finite(actual), axis)
    cosine = 1.0 - np.square(left - right).sum(axis=axis) / 2.0
    one_is_zero = left.any(axis=axis) != right.any(axis=axis)
    return float(np.where(one_is_zero, 0.0, cosine).min())


def _unit_vectors(values: Array, axis: int) -> Array:
    """Vectors along the axis, scaled to length 1; zero vectors stay zero."""
    scale = np.abs(values).max(axis=axis, keepdims=True)
    safe = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    length = np.sqrt(np.square(safe).sum(axis=axis, keepdims=True))
    return np.asarray(np.divide(safe, length, out=safe, where=length > 0))


def _top(k: int) -> Callable[[Array, Array, int, Tie], float]:
    """The fraction of vectors with the expected first k units; k = min(k, units).

    Equal values rank by index, as on a device. A vector agrees if (1) each unit that the actual
    values rank among the first k is expected there, or tied with the k-th, and (2) no unit is
    missing that is expected there and not tied with the unit after the k-th.
    """

    def agreement(expected: Array, actual: Array, axis: int, tie: Tie) -> float:
        return float(1.0 - misranked(expected, actual, k, axis, tie).mean())

    return agreement


def misranked(expected: Array, actual: Array, k: int, axis: int, tie: Tie) -> Array:
    """Which vectors along the unit axis rank other units among the first k (see `_top`)."""
    wanted, given = np.moveaxis(expected, axis, -1), np.moveaxis(actual, axis, -1)
    units = wanted.shape[-1]
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


def _sqnr_db(expected: Array, actual: Array, _axis: int, _tie: Tie) -> float:
    """20 log10(rms of expected / rms of difference) in dB; infinite for equal arrays."""
    signal, noise = _rms(_finite(expected)), _rmse(expected, actual, 0, 0.0)
    if noise == 0.0:
        return float("inf")
    with np.errstate(divide="ignore"):  # no signal: -inf dB
        return float(20.0 * (np.log10(signal) - np.log10(noise)))


_FLOAT = frozenset({"cut", "export"})  # both models have the same precision
_ALL = _FLOAT | {"quantize"}

METRICS: Mapping[str, Metric] = {  # in the order of the report
    "sqnr_db": Metric(
        "signal to quantization noise, dB",
        _sqnr_db,
        float("inf"),
        frozenset({"quantize"}),
        higher_is_better=True,
    ),
    "max_abs": Metric("largest |difference|", _max_abs, 0.0, _ALL),
    "max_rel": Metric("largest relative difference", _max_rel, 0.0, _FLOAT),
    "rmse": Metric("root mean square difference", _rmse, 0.0, _FLOAT),
    "cosine": Metric(
        "smallest cosine of the angle between two vectors of units",
        _cosine,
        1.0,
        _ALL,
        higher_is_better=True,
    ),
    "top1": Metric("same first unit", _top(1), 1.0, _ALL, higher_is_better=True, ranks=1),
    "top5": Metric("same first five units", _top(5), 1.0, _FLOAT, higher_is_better=True, ranks=5),
}


def metrics_of(stage: str) -> tuple[str, ...]:
    """The metrics that a stage reports."""
    return tuple(name for name, metric in METRICS.items() if stage in metric.stages)
