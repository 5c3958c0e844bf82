"""The plots of a report page: one function for each; None if the record has no data for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.output.c_source import FORMS
from exporter.records import Check, Latency, Report, precision_rows
from exporter.remap.head_remap import HeadRemap
from exporter.report import describe
from exporter.report.check_groups import gated
from exporter.report.formatting import higher_is_better, milliseconds, percent, size
from exporter.report.svg import (
    AFTER,
    BAD,
    BAND,
    BEFORE,
    GOOD,
    INK,
    QUIET,
    Plot,
    drawing,
    log_scale,
    name_rows,
    new_axes,
    short_name,
    to_plot,
)
from exporter.report.tables import class_name
from exporter.report.view import agreement

_ROW = 0.34
_MOST_ROWS = 24
_MOST_CELLS, _WITH_GAPS = 200, 60  # units of a head
_NAMED = 10  # the names of more units would overlap
_MOST_NAMES = 6  # of points; more would overlap
_MOST_CLASSES = 12  # the worst ones
_LINES = 120  # more kept units than this are drawn without lines


def report_plots(report: Report) -> list[Plot]:
    """The plots that the record has data for.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    with drawing():
        heads = report.remap.heads if report.remap else ()
        drawn = [*map(_head, heads), *(draw(report) for draw in _DRAWERS)]
    return [plot for plot in drawn if plot is not None]


def variant_plots(reports: Mapping[str, Report]) -> list[Plot]:
    """The plots that compare variants.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    with drawing():
        plot = _compared(reports)
    return [plot] if plot else []


def _head(head: HeadRemap) -> Plot:
    """The units of the original above, those of the files below, and lines between them."""
    axes = new_axes(1.5)
    rows = list(describe.remap_rows(head))
    _strip(axes, 1.0, head.old_units, set(head.kept), BEFORE)
    _strip(axes, 0.0, head.new_units, {int(new) for new, _, _ in rows}, AFTER)
    lines: list[tuple[float, float]] = [(math.nan, math.nan)]
    for new, old, label in rows if len(rows) <= _LINES else ():
        middle = (int(new) + 0.5) / head.new_units
        for place in map(int, old.split(" + ")):
            starts = (place + 0.5) / head.old_units
            lines += [(starts, 1.0), (middle, 0.3), (math.nan, math.nan)]  # a gap after each line
        if head.new_units <= _NAMED:
            text = short_name(label or new, 50 // head.new_units)
            axes.text(middle, -0.06, text, va="top", ha="center")
    axes.plot(*zip(*lines, strict=True), color=QUIET, linewidth=0.6)
    axes.text(0, 1.36, f"original: {head.old_units} units", va="bottom")
    axes.set(xlim=(0, 1), ylim=(-0.3, 1.6))
    axes.axis("off")
    return to_plot(
        axes,
        f"Head {short_name(head.name)}",
        "Above: the units of the original; colored ones are kept. Below: the units of the files.",
        f"{describe.describe_kept(head)}.",
    )


def _strip(axes: Any, bottom: float, count: int, kept: set[int], color: str) -> None:
    """A row of cells; of a large head each cell is several units, colored if one is kept."""
    cells = min(count, _MOST_CELLS)
    width = 1 / cells
    gap = 0.1 * width if count <= _WITH_GAPS else 0.0
    colored = {unit * cells // count for unit in kept}
    places = [(cell * width + gap / 2, width - gap) for cell in range(cells)]
    fills = [color if cell in colored else BAND for cell in range(cells)]
    axes.broken_barh(places, (bottom, 0.3), facecolors=fills, linewidth=0)  # one object: fast


def _sizes(report: Report) -> Plot | None:
    models = [each for each in report.artifacts if each.kind not in FORMS]
    models = [each for each in models if each.original_bytes][:_MOST_ROWS]
    if not models:
        return None
    axes = new_axes(0.6 + 1.5 * _ROW * len(models))
    name_rows(axes, [each.path for each in models])
    most = max(max(each.bytes, each.original_bytes or 0) for each in models)
    for row, each in enumerate(models):
        before = each.original_bytes or 0
        axes.barh(row - 0.18, before / most, 0.3, color=BEFORE, label="original"[: 8 * (not row)])
        axes.barh(row + 0.18, each.bytes / most, 0.3, color=AFTER, label="cut"[: 3 * (not row)])
        axes.text(before / most + 0.01, row - 0.18, size(before), va="center")
        axes.text(each.bytes / most + 0.01, row + 0.18, size(each.bytes), va="center")
    axes.set_xlim(0, 1.22)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.0 + 0.5 / len(models)), ncols=2)
    texts = [f"{each.path}: {size(each.original_bytes, each.bytes)}" for each in models]
    return to_plot(
        axes, "Size of the files", "Against the uncut file of the same kind.", "; ".join(texts)
    )


def _speed(report: Report) -> Plot | None:
    rows = report.latency[:_MOST_ROWS]
    if not rows:
        return None
    axes = new_axes(0.8 + _ROW * len(rows))
    name_rows(axes, [row.artifact for row in rows])
    for place, row in enumerate(rows):
        low, high = row.speedup_ci95
        axes.barh(place, 2 * row.noise_floor, 0.7, 1 - row.noise_floor, color=BAND)
        color = {"faster": GOOD, "slower": BAD}.get(row.verdict, INK)
        axes.plot((low, high), (place, place), color=color, linewidth=2)
        axes.plot(row.speedup, place, "o", color=color, markersize=5)
    axes.axvline(1.0, color=QUIET, linewidth=0.8)
    axes.set_xlabel("original / cut: right of 1 is faster")
    texts = [f"{row.artifact}: {row.speedup:.2f} times as fast, {row.verdict}" for row in rows]
    return to_plot(
        axes,
        "Speed-up",
        "Point: the ratio of the times. Line: its 95 % interval. Band: the noise of this machine; "
        "an interval inside of it shows no change.",
        "; ".join(texts),
    )


def _errors(report: Report) -> Plot | None:
    """The share of its limit that each check with an upper limit uses."""
    worst: dict[str, Check] = {}
    for check in gated(report.checks):
        if check.value is None or not check.limit or higher_is_better(check):
            continue
        key = f"{short_name(check.artifact)}, {check.stage}"
        if key not in worst or _used(check) > _used(worst[key]):
            worst[key] = check
    rows = dict(list(worst.items())[:_MOST_ROWS])
    if not rows:
        return None
    axes = new_axes(0.8 + _ROW * len(rows))
    name_rows(axes, list(rows))
    shares = [_used(check) for check in rows.values()]
    left = min(1e-3, *(share / 3 for share in shares if share), 1e-3)
    for place, (check, share) in enumerate(zip(rows.values(), shares, strict=True)):
        color = GOOD if check.passed else BAD
        axes.plot((left, max(share, left)), (place, place), color=color, linewidth=2)
        axes.plot(max(share, left), place, "o", color=color, markersize=5)
    axes.axvline(1.0, color=BAD, linewidth=1)
    log_scale(axes)
    axes.set_xlim(left, max(3.0, *(3 * share for share in shares), 3.0))
    axes.set_xlabel("difference / limit (1 is the limit)")
    texts = [f"{name}: {share:.2g} of its limit" for name, share in zip(rows, shares, strict=True)]
    return to_plot(
        axes,
        "Difference against its limit",
        "The check of each file and stage that is nearest to its limit, on a logarithmic scale. "
        "A point at the left edge has no difference at all.",
        "; ".join(texts),
    )


def _used(check: Check) -> float:
    return abs(check.value or 0.0) / abs(check.limit or 1.0)


def _trade(report: Report) -> Plot | None:
    rows = [row for row in precision_rows(report) if row.top1 is not None]
    if not rows:
        return None
    floats = [row for row in precision_rows(report) if row.top1 is None and row.sqnr_db is None]
    points = [_Point(row.bytes, row.top1 or 0.0, f"{row.precision} {row.kind}") for row in rows]
    points += [_Point(row.bytes, 1.0, f"{row.precision} {row.kind}", BEFORE) for row in floats]
    return _scatter(
        points,
        "Each file by its size and by how often its first answer is that of the float model.",
    )


def _agreement(report: Report) -> Plot | None:
    """The classes on which quantized files agree least with the float model."""
    rows = sorted(report.agreement, key=lambda row: row.share)[:_MOST_CLASSES]
    if not rows:
        return None
    several = len({row.artifact for row in rows}) > 1
    names = [class_name(row.unit, row.label) for row in rows]
    shown = [f"{n}, {r.artifact}" if several else n for n, r in zip(names, rows, strict=True)]
    axes = new_axes(0.8 + _ROW * len(rows))
    name_rows(axes, shown)
    for place, row in enumerate(rows):
        axes.barh(place, 1, 0.6, color=BAND)
        axes.barh(place, row.share, 0.6, color=AFTER)
        other = short_name(class_name(row.instead, row.instead_label))
        axes.text(1.02, place, f"{percent(row.share)}, else {other}", va="center")
    axes.set_xlim(0, 1.8)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    texts = [
        f"{name}: {percent(row.share)} of {row.count}"
        for name, row in zip(shown, rows, strict=True)
    ]
    return to_plot(
        axes,
        "Agreement by class",
        "How often a quantized file has the same first answer as the float model, worst classes "
        "first, and its most frequent other answer.",
        "; ".join(texts),
    )


def _compared(reports: Mapping[str, Report]) -> Plot | None:
    """The files of all variants by size and agreement."""
    points = [
        _Point(each.bytes, share, f"{name}, {each.precision} {each.kind}")
        for name, report in reports.items()
        for each in report.artifacts
        if each.kind not in FORMS and (share := agreement(report, each)) is not None
    ]
    if not points:
        return None
    return _scatter(
        points,
        "Each file of each variant by its size and by how often its first answer is that of the "
        "original.",
    )


@dataclass(frozen=True)
class _Point:
    bytes: int
    share: float
    name: str
    color: str = AFTER


def _scatter(points: Sequence[_Point], caption: str) -> Plot:
    """Files by size and agreement; a few of them with their names."""
    points = sorted(points, key=lambda point: point.bytes)
    axes = new_axes(2.6)
    for place, point in enumerate(points):
        at = point.bytes / 1000, 100 * point.share
        axes.plot(*at, "o", color=point.color, markersize=6)
        if len(points) > _MOST_NAMES:
            continue
        others = [other for other in points if other is not point] or [point]
        near = min(others, key=lambda other: abs(other.bytes - point.bytes)).share
        above = point.share > near or (point.share == near and place % 2 == 1)  # away from it
        axes.annotate(
            short_name(point.name),
            at,
            (0, 5 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
        )
    lowest = 100 * min(point.share for point in points)
    room = max(1.0, 100 - lowest)
    axes.set(xlabel="kB", ylabel="same first answer, %")
    axes.set_ylim(lowest - 0.7 * room, 100 + 0.5 * room)
    ticks = [tick for tick in axes.get_yticks() if tick <= 100]  # noqa: PLR2004 - percent
    axes.set_yticks([tick for tick in ticks if tick >= lowest - room / 2])
    axes.margins(x=0.25)
    axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
    texts = [f"{point.name}: {size(point.bytes)}, {percent(point.share)}" for point in points]
    return to_plot(axes, "Size against quality", caption, "; ".join(texts))


def _times(report: Report) -> Plot | None:
    """The distribution of the times, of all files that were timed."""
    rows = [row for row in report.latency if row.raw.get("p50_ms")][:_MOST_ROWS]
    if not rows:
        return None
    axes = new_axes(0.8 + 1.5 * _ROW * len(rows))
    name_rows(axes, [row.artifact for row in rows])
    for place, row in enumerate(rows):
        for side, offset, color in (("original", -0.18, BEFORE), ("pruned", 0.18, AFTER)):
            times = _counted(row, side)
            axes.plot(times, [place + offset] * len(times), "|", color=color, markersize=8)
    log_scale(axes)
    axes.set_xlabel("ms for one run")
    texts = [f"{row.artifact}: {milliseconds(row.original_p50_ms, row.p50_ms)}" for row in rows]
    return to_plot(
        axes,
        "Spread of the times",
        "Each mark is the median of one round. Above: the original. Below: the cut file.",
        "; ".join(texts),
    )


def _counted(row: Latency, side: str) -> list[float]:
    raw: Mapping[str, Any] = row.raw
    used = raw.get("used") or [True] * len(raw["p50_ms"][side])
    pairs = zip(raw["p50_ms"][side], used, strict=True)
    return [time for time, counts in pairs if counts and math.isfinite(time) and time > 0]


_DRAWERS: tuple[Callable[[Report], Plot | None], ...] = (
    *(_sizes, _trade, _agreement, _speed, _times, _errors),
)
