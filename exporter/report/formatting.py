"""How reports write values: numbers, sizes, times, and text that comes from files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from exporter.evaluation.measures import QUALITY_STAGE, is_lower_bound
from exporter.performance.resources import HISTORY, RESOURCES
from exporter.records import Check, Interval
from exporter.verification.metrics import METRICS

NOTHING = "-"  # where there is no value


def number(value: float | None, digits: int = 2) -> str:
    """A measured value with so many significant digits: 1.2e-07, 0.83, 39, 0."""
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-0", "0")
    if value == round(value) and abs(value) < 1e6:  # noqa: PLR2004 - whole numbers stay whole
        return f"{value:.0f}"
    plain = 1e-3 <= abs(value) < 1e6  # noqa: PLR2004 - where people read decimals easily
    return f"{value:.{max(digits, 3)}g}" if plain else f"{value:.{digits - 1}e}"


def higher_is_better(check: Check) -> bool:
    """Whether the check's limit is a lower bound."""
    if check.stage == QUALITY_STAGE:
        return is_lower_bound(check.metric)
    return check.metric in METRICS and METRICS[check.metric].higher_is_better


def value_and_limit(check: Check) -> tuple[str, str]:
    """Both with enough digits to tell them apart; the limit with its direction: "<= 1.0e-06"."""
    if check.limit is None:
        return number(check.value), NOTHING
    if check.stage == HISTORY:
        return signed_percent(check.value), f"<= {signed_percent(check.limit)}"
    if check.stage == RESOURCES:
        value, limit = (_resource(check.metric, each) for each in (check.value, check.limit))
        if value == limit and check.value != check.limit:  # they are bytes
            value, limit = f"{check.value:.12g} B", f"{check.limit:.12g} B"
        return value, f"<= {limit}"
    value, limit = told_apart(check.value, check.limit)
    return value, f"{'>=' if higher_is_better(check) else '<='} {limit}"


def signed_percent(value: float | None) -> str:
    """A change: +5.2 %."""
    return NOTHING if value is None else f"{100 * value:+.1f} %"


def _resource(metric: str, value: float | None) -> str:
    """A size, a memory or a latency with its unit."""
    if metric == "latency":
        return NOTHING if value is None else f"{value:.4g} ms"
    return size(None if value is None else int(value))


def told_apart(first: float | None, second: float | None, digits: int = 2) -> tuple[str, str]:
    """Two values with so many digits, and more if they would look equal."""
    texts = ("", "")
    for count in range(digits, 18):
        texts = number(first, count), number(second, count)
        if texts[0] != texts[1] or first == second:
            break
    return texts


def size(*counts: int | None) -> str:
    """Bytes in decimal units: 512 B, 1.20 kB; before and after: 14.1 MB -> 9.01 MB."""
    return " -> ".join(_size(count) for count in counts if count is not None) or NOTHING


def _size(count: int) -> str:
    return _with_unit(count, (" B", " kB", " MB", " GB", " TB"))


def _with_unit(count: int, units: Sequence[str]) -> str:
    """Args: units: of 1, of a thousand, of a million, ..."""
    value, power = float(count), 0
    while abs(value) >= 999.5 and power < len(units) - 1:  # noqa: PLR2004 - rounds to 1000
        value, power = value / 1000, power + 1
    return f"{_three_digits(value)}{units[power]}" if power else f"{count}{units[0]}"


def count(value: int | None) -> str:
    """A large count in thousands: 512, 4.52 k, 1.20 M."""
    if value is None:
        return NOTHING
    return _with_unit(value, ("", " k", " M", " G", " T"))


def milliseconds(*values: float | None) -> str:
    """0.83 ms; before and after: 104 -> 12.3 ms."""
    texts = [_milliseconds(value) for value in values]
    return NOTHING if texts == [NOTHING] else " -> ".join(texts) + " ms"


def _milliseconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.2g}" if 0 < value < 0.1 else _three_digits(value)  # noqa: PLR2004 - 0.012


def _three_digits(value: float) -> str:
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0  # noqa: PLR2004 - digits
    return f"{value:.{decimals}f}"


def change(before: int | None, after: int | None) -> str:
    """The difference in percent of `before`: -36.2 %."""
    if not before or after is None:
        return NOTHING
    percent = 100 * (after - before) / before
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else "0.0 %"  # noqa: PLR2004 - rounds to 0


def decibels(value: float | None) -> str:
    """12.1 dB; "equal" for an infinite ratio."""
    if value is None:
        return NOTHING
    return "equal" if value == math.inf else f"{value:.1f} dB"


def percent(fraction: float | None) -> str:
    """97.2 %"""
    return NOTHING if fraction is None else f"{100 * fraction:.1f} %"


def percent_with_interval(value: float | None, interval: Interval | None) -> str:
    """97.2 % [95.1, 98.4]"""
    if value is None or interval is None:
        return percent(value)
    low, high = interval
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def points(value: float | None, interval: Interval | None) -> str:
    """A difference of two shares, in percentage points: 1.2 [0.4, 2.0]"""
    if value is None:
        return NOTHING
    if interval is None:
        return f"{100 * value:.1f}"
    low, high = interval
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def factor(value: float | None, unit: str = "x") -> str:
    """1.04x"""
    return NOTHING if value is None else f"{_three_digits(value)}{unit}"


def plural(count: int, noun: str) -> str:
    """1 check, 2 checks."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """The text with control characters and line ends escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
