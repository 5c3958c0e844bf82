"""Compare a timing with earlier ones of one artifact on the same machine with the same versions.

1. If the original is the same file in both runs, the ratio pruned / original is compared: a machine
   that became slower since then slows both sides. Otherwise the time of the artifact is compared.
2. The baseline is the median of the last five earlier runs: one disturbed run does not move it.
3. The interval of the change combines that of this run with that of the baseline: the median of its
   intervals, or the spread of its runs if that is larger.
4. A change counts as a regression only if its whole interval is above the limit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Trend = Literal["first", "slower", "faster", "unchanged"]

MOST_EARLIER = 5
_NORMAL_95 = 1.96
_FEW = 3  # runs that have a spread


@dataclass(frozen=True)
class Timing:
    """One saved timing.

    Attributes:
        date: in UTC and ISO 8601.
        series: what is measured: the names of both files, and the device.
        environment: everything that must be equal to compare: machine, versions, settings.
        original_sha256: of the original file.
        p50_ms: of the artifact.
        p50_ci95_ms: its 95 % interval.
        relative: time of the artifact over that of the original, from the same rounds.
        relative_ci95: its 95 % interval.
    """

    date: str
    series: str
    environment: str
    original_sha256: str | None
    p50_ms: float
    p50_ci95_ms: tuple[float, float]
    relative: float
    relative_ci95: tuple[float, float]

    @classmethod
    def of(cls, key: tuple[str, str, str, str | None], row: Mapping[str, Any]) -> Timing:
        """The timing of a `Latency` as a mapping.

        Args:
            key: date, series, environment, and SHA-256 of the original.
        """
        p50 = float(row["p50_ms"])
        low, high = row["speedup_ci95"]
        return cls(
            *key,
            p50,
            tuple(row["p50_ci95_ms"] or (p50, p50)),
            1 / row["speedup"],
            (1 / high, 1 / low),
        )


@dataclass(frozen=True)
class Change:
    """A timing against earlier ones.

    Attributes:
        timing: that is compared.
        earlier: number of runs in the baseline.
        basis: "ratio", to the original, or "p50".
        value: relative change; 0.05 is 5 % slower. None without earlier runs.
        low, high: its 95 % interval.
    """

    timing: Timing
    earlier: int = 0
    basis: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def trend(self) -> Trend:
        """What the interval shows."""
        if self.low is None or self.high is None:
            return "first"
        if self.low > 0:
            return "slower"
        return "faster" if self.high < 0 else "unchanged"

    def exceeds(self, limit: float) -> bool:
        """Whether the whole interval is above a limit, such as 0.05."""
        return self.low is not None and self.low > limit

    def can_show(self, limit: float) -> bool:
        """Whether the interval is narrow enough to show a change of that size."""
        if self.low is None or self.high is None:
            return False
        return (math.log1p(self.high) - math.log1p(self.low)) / 2 <= math.log1p(limit)


def compare_with_earlier(timing: Timing, earlier: Sequence[Timing]) -> Change:
    """Compare with earlier runs of the same series and environment (see the module).

    Args:
        earlier: from old to new; others are left out.
    """
    alike = [
        each
        for each in earlier
        if (each.series, each.environment) == (timing.series, timing.environment)
    ]
    same = [each for each in alike if each.original_sha256 == timing.original_sha256]
    by_ratio = bool(same) and timing.original_sha256 is not None
    known = (same if by_ratio else alike)[-MOST_EARLIER:]
    if not known:
        return Change(timing)
    values = [_logs(each, by_ratio) for each in known]
    center = statistics.median(value for value, _ in values)
    half = statistics.median(width for _, width in values)
    if len(values) >= _FEW:
        spread = statistics.stdev(value for value, _ in values)
        half = max(half, _NORMAL_95 * spread / math.sqrt(len(values)))
    now, own = _logs(timing, by_ratio)
    change, width = now - center, math.hypot(own, half)
    low, value, high = (math.expm1(change + shift) for shift in (-width, 0.0, width))
    basis = "ratio" if by_ratio else "p50"
    return Change(timing, len(known), basis, value, low, high)


def _logs(timing: Timing, by_ratio: bool) -> tuple[float, float]:
    """The logarithm of the compared value, and the half-width of its interval."""
    value = timing.relative if by_ratio else timing.p50_ms
    low, high = timing.relative_ci95 if by_ratio else timing.p50_ci95_ms
    return math.log(value), math.log(high / low) / 2
