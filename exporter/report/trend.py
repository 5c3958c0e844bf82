"""Show how saved timings changed: in the terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exporter.performance.trend import Change
from exporter.report.formatting import NOTHING, milliseconds, printable, signed_percent

if TYPE_CHECKING:
    from rich.console import Console

_HEIGHT = 2.2  # inches of a series
_STYLES = {"slower": "red", "faster": "green"}
# The colors of a picture that is no part of a page, light and dark.
_LIGHT = "--ink:#1a1a1a;--quiet:#666;--before:#888;--after:#0b61a4;--good:#1a7f37;--bad:#c62828;"
_DARK = "--ink:#eee;--quiet:#aaa;--before:#999;--after:#7cb8ec;--good:#6fcf7f;--bad:#ff8a80;"
_STYLE = (
    f"<style>svg{{{_LIGHT}--band:#ddd;--paper:#fff}}"
    f"@media(prefers-color-scheme:dark){{svg{{{_DARK}--band:#444;--paper:#111}}}}</style>"
)


def print_trends(
    series: Mapping[str, Sequence[Change]], limit: float | None, console: Console
) -> None:
    """A table for each series.

    Args:
        series: name -> changes, from old to new.
        limit: the largest change that is allowed.
    """
    from rich.table import Table
    from rich.text import Text

    for name, changes in series.items():
        table = Table(box=None, pad_edge=False, title=printable(name), title_justify="left")
        for title in ("Date", "p50", "Ratio", "Change [95 %]", "Earlier", "Trend"):
            is_text = title in {"Date", "Earlier", "Trend"}
            table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
        for change in changes:
            *cells, trend = _cells(change)
            table.add_row(*cells, Text(trend, _STYLES.get(trend, "")))
        console.print(table)
        if limit is not None and changes[-1].exceeds(limit):
            found = signed_percent(changes[-1].low)
            console.print(f"FAILED: at least {found} against earlier runs; allowed is {limit:.1%}")
        console.print()


def _cells(change: Change) -> Iterator[str]:
    timing = change.timing
    yield timing.date[:16].replace("T", " ")
    yield milliseconds(timing.p50_ms)
    yield f"{timing.relative:.3f}"
    if change.value is None:
        yield NOTHING
        yield NOTHING
    else:
        low, high = ((each or 0.0) * 100 for each in (change.low, change.high))
        yield f"{signed_percent(change.value)} [{low:+.1f}, {high:+.1f}]"
        yield f"{change.earlier} by {change.basis}"
    yield change.trend


def trend_svg(series: Mapping[str, Sequence[Change]]) -> str:
    """An SVG picture with one plot for each series; lines break where machine or versions change.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    from exporter.report.svg import BEFORE, drawing, figure_text, short_name

    with drawing():
        from matplotlib.figure import Figure

        figure: Any = Figure(figsize=(7, _HEIGHT * len(series)), layout="constrained")
        rows = figure.subplots(len(series), squeeze=False)[:, 0]
        for axes, (name, changes) in zip(rows, series.items(), strict=True):
            axes.set_title(short_name(name, 70), loc="left", fontsize=10)
            axes.set_ylabel("ms")
            axes.set_xlim(-0.5, len(changes) - 0.5)
            dates = [change.timing.date[:10] for change in changes]
            shown = range(0, len(dates), 1 + len(dates) // 8)
            axes.set_xticks(list(shown), [dates[i] for i in shown])
            for group in _alike(changes):
                axes.plot(*zip(*group, strict=True), color=BEFORE, linewidth=1)
            for place, change in enumerate(changes):
                _point(axes, place, change)
        svg = figure_text(figure, "trend")
    start = svg.index(">") + 1
    return f"{svg[:start]}{_STYLE}{svg[start:]}"


def _point(axes: Any, place: int, change: Change) -> None:
    from exporter.report.svg import AFTER, BAD, GOOD

    color = {"slower": BAD, "faster": GOOD}.get(change.trend, AFTER)
    axes.plot((place, place), change.timing.p50_ci95_ms, color=color, linewidth=2)
    axes.plot(place, change.timing.p50_ms, "o", color=color, markersize=4)


def _alike(changes: Sequence[Change]) -> Iterator[list[tuple[int, float]]]:
    """The points of each environment."""
    groups: dict[str, list[tuple[int, float]]] = {}
    for place, change in enumerate(changes):
        timing = change.timing
        groups.setdefault(timing.environment, []).append((place, timing.p50_ms))
    yield from groups.values()
