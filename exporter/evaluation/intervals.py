"""95 % intervals, by SciPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from exporter.graph import Array
from exporter.records import Interval

_LEVEL = 0.95
_AT_ONCE = 20  # bootstrap samples in memory at a time


def of_share(correct: int, count: int) -> Interval:
    """The Wilson score interval of a proportion (Wilson 1927).

    For example, 9 of 10 correct: 0.596 to 0.982.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - an optional library

    found = binomtest(correct, count).proportion_ci(_LEVEL, method="wilson")
    return float(found.low), float(found.high)


def bootstrap(
    statistic: Callable[[Array], Sequence[float]], cases: Array, resamples: int
) -> list[Interval | None]:
    """Percentile bootstrap intervals of several values of the same cases.

    All values are computed on the same resampled cases, so that the interval of a difference is
    the interval of a paired comparison. The resamples are the same in every run.

    Args:
        statistic: (cases,) indices -> the values.
        cases: (cases,) indices; each may be drawn several times.

    Returns:
        One interval per value. None for fewer than two cases, or if a value is not defined on a
        resample.
    """
    from scipy import stats  # noqa: PLC0415 - an optional library

    width = len(statistic(cases))
    if len(cases) < 2:  # noqa: PLR2004 - one case has no spread
        return [None] * width

    def vectorized(drawn: Array, axis: int = -1) -> Array:
        rows = np.moveaxis(drawn, axis, -1).reshape(-1, drawn.shape[axis])
        values = np.asarray([statistic(row) for row in rows])
        return values.T.reshape(width, *drawn.shape[:-1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # undefined values: None
        found = stats.bootstrap(
            (cases,),
            vectorized,
            vectorized=True,
            method="percentile",
            confidence_level=_LEVEL,
            n_resamples=resamples,
            batch=_AT_ONCE,
            rng=np.random.default_rng(0),
        ).confidence_interval
    pairs = zip(np.ravel(found.low), np.ravel(found.high), strict=True)
    return [(float(a), float(b)) if np.isfinite(a + b) else None for a, b in pairs]
