"""Statistics of paired times that were measured in rounds, several rounds for each load.

1. A round has one value of each side. Its ratio original / pruned cancels disturbances that affect
   both sides alike. The estimate is the interquartile mean of the logarithms of these ratios: the
   mean of their middle half. It is as robust as the median while fewer than a quarter of the rounds
   are disturbed, and varies less.
2. Rounds of one load have similar errors, because a session keeps its memory addresses. So the
   bootstrap has two levels: it draws loads, then rounds within each load. With few loads, the
   percentiles of a bootstrap are too narrow; they are expanded as in Hesterberg, "What Teachers
   Should Know About the Bootstrap" (2015), section 4.3, as a t interval is wider than a normal one.
3. The shown times have exactly the ratio that is reported: their geometric mean is the median over
   the rounds, and their quotient is the estimate.

`scipy.stats.bootstrap` draws on one level only, so step 2 would remain; SciPy is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from exporter.graph import Array

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8  # probability of seeing a change that is called detectable
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Ratio:
    """A ratio original / pruned.

    Attributes:
        value: the estimate.
        low, high: its 95 % interval.
        center: geometric mean of the two times.
    """

    value: float
    low: float
    high: float
    center: float

    @property
    def times(self) -> tuple[float, float]:
        """The times of both sides; their quotient is `value`."""
        return self.center * math.sqrt(self.value), self.center / math.sqrt(self.value)

    @property
    def half_width(self) -> float:
        """Of the interval of the logarithm; about the half-width relative to the value."""
        return math.log(self.high / self.low) / 2


def ratio(original: Array, pruned: Array, loads: Array, seed: int = 0) -> Ratio:
    """Estimate the ratio of two sides.

    Args:
        original, pruned: (rounds,) positive times, all in the same unit.
        loads: (rounds,) number of the load that each round belongs to.
        seed: of the bootstrap.
    """
    logs = np.log(original) - np.log(pruned)
    groups = [logs[loads == load] for load in np.unique(loads)]
    tail = _expanded_tail(len(groups))
    low, high = np.quantile(interquartile_mean(_resample(groups, seed)), (tail, 1 - tail))
    center = math.exp(float(np.median(np.log(original) + np.log(pruned))) / 2)
    value = float(interquartile_mean(logs))
    low, high = min(low, value), max(high, value)
    return Ratio(math.exp(value), math.exp(low), math.exp(high), center)


def time_interval(times: Array, loads: Array, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the typical time of one side, by the same bootstrap.

    Args:
        times: (rounds,) positive, in any unit.
        loads, seed: as for `ratio`.
    """
    found = ratio(times, np.ones_like(times), loads, seed)
    return found.low, found.high


def interquartile_mean(values: Array) -> Array:
    """(..., n) -> (...): the mean of the middle half of the last axis."""
    ordered = np.sort(values, axis=-1)
    quarter = values.shape[-1] // 4
    return np.asarray(ordered[..., quarter : values.shape[-1] - quarter].mean(axis=-1))


def detectable_change(*half_widths: float) -> float:
    """The smallest relative change that such a run detects in four of five attempts.

    A change is detected if it is larger than the half-width of the interval, which is 1.96 standard
    errors; one of (1.96 + 0.84) standard errors is with a probability of 80 %.
    """
    limit = _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    return math.expm1(max(half_widths) * (limit + _NORMAL.inv_cdf(POWER)) / limit)


def _resample(groups: list[Array], seed: int) -> Array:
    """(RESAMPLES, values): loads drawn with replacement, then rounds of each drawn load."""
    random = np.random.default_rng(seed)
    sizes = np.array([len(group) for group in groups])
    starts = np.cumsum(sizes) - sizes
    drawn = random.integers(len(groups), size=(RESAMPLES, len(groups)))[:, :, None]
    rounds = random.random((RESAMPLES, len(groups), int(sizes.max())))
    picks = starts[drawn] + (rounds * sizes[drawn]).astype(np.int64)
    return np.asarray(np.concatenate(groups)[picks].reshape(RESAMPLES, -1))


def _expanded_tail(count: int) -> float:
    """The tail probability at which percentiles of a bootstrap of `count` values are read."""
    if count == 1:
        return 0.0
    wider = math.sqrt(count / (count - 1)) * _t_quantile((1 + CONFIDENCE) / 2, count - 1)
    return _NORMAL.cdf(-wider)


def _t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by the series of Abramowitz and Stegun, 26.7.5."""
    z = _NORMAL.inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum((term / degrees**power for power, term in enumerate(terms, start=1)), 0.0)
