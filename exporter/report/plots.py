"""The plots of a report page: one function for each; None if the record has no data for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.output.c_source import FORMS
from exporter.records import Check, Confusion, Latency, Report, precision_rows
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
    short_label,
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
_MOST_CONFUSIONS = 6  # files
_LINES = 120  # more kept units than this are drawn without lines


def report_plots(report: Report) -> list[Plot]:
    """The plots that the record has data for.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    with drawing():
        heads = report.remap.heads if report.remap else ()
        drawn = [*map(_head, heads), *(draw(report) for draw in _DRAWERS)]
        drawn += map(_confusion, report.confusions[:_MOST_CONFUSIONS])
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
    """The units of the original above, the units of the files below, and lines between them."""
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
            text = short_label(label or new, 50 // head.new_units)
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
    name_rows(axes, [short_name(each.path) for each in models])
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
    name_rows(axes, [short_name(row.artifact) for row in rows])
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
        "Each file by its size and by how often its first answer equals the float model's answer.",
    )


def _agreement(report: Report) -> Plot | None:
    """The classes on which quantized files agree least with the float model."""
    rows = sorted(report.agreement, key=lambda row: row.share)[:_MOST_CLASSES]
    if not rows:
        return None
    several = len({row.artifact for row in rows}) > 1
    names = [class_name(row.unit, row.label) for row in rows]
    files = {each.path: f"{each.precision} {each.kind}" for each in report.artifacts}
    shown = [
        f"{short_label(name)}, {files.get(row.artifact, '')}" if several else short_label(name, 28)
        for name, row in zip(names, rows, strict=True)
    ]
    axes = new_axes(0.8 + _ROW * len(rows))
    name_rows(axes, shown)
    for place, row in enumerate(rows):
        axes.barh(place, 1, 0.6, color=BAND)
        axes.barh(place, row.share, 0.6, color=AFTER)
        other = short_label(class_name(row.instead, row.instead_label), 14)
        axes.text(1.05, place, f"{percent(row.share)}, else {other}", va="center", clip_on=False)
    axes.set_xlim(0, 4.2 if several else 3.2)
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


def _confusion(found: Confusion) -> Plot:
    """Which classes a quantized file confuses: a row for each first unit of the float model."""
    count = len(found.units)
    axes = new_axes(1.3 + 0.3 * count)
    names = [class_name(*each) for each in zip(found.units, found.labels, strict=True)]
    name_rows(axes, [short_label(name) for name in names])
    for i, row in enumerate(found.counts):
        total = max(1, sum(row))
        for j, number in enumerate(row):
            color = AFTER if i == j else BAD
            share = 0.15 + 0.55 * number / total if number else 0.0
            axes.barh(i, 0.94, 0.9, j - 0.47, color=color, alpha=share)
            axes.text(j, i, str(number) if number else "", va="center", ha="center")
    axes.set_xlim(-0.5, count - 0.5)
    tops = [str(unit) for unit in found.units]
    axes.set_xticks(range(count), tops)
    axes.tick_params(axis="x", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("first in the quantized file")
    texts = [
        f"{names[i]} became {names[j]} {number} times"
        for i, row in enumerate(found.counts)
        for j, number in enumerate(row)
        if number and i != j
    ]
    return to_plot(
        axes,
        f"Confusion in {short_name(found.artifact)}",
        "A row for each first class of the float model, a column for the first class of the "
        "quantized file. Off the diagonal, the two differ.",
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
        "Each file of each variant by its size and by how often its first answer equals the "
        "original's answer.",
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
    """The distribution of the times of single runs, of all files that were timed."""
    times = {row.artifact: _relative_times(row) for row in report.latency}
    rows = [row for row in report.latency if times[row.artifact]][:_MOST_ROWS]
    if not rows:
        return None
    axes = new_axes(0.8 + 1.5 * _ROW * len(rows))
    name_rows(axes, [short_name(row.artifact) for row in rows])
    most = 1.0
    for place, row in enumerate(rows):
        for side, offset, color in (("original", -0.18, BEFORE), ("pruned", 0.18, AFTER)):
            y, at = (place + offset,) * 2, times[row.artifact][side]
            axes.plot((at[1], at[95]), y, color=color, linewidth=1.2)
            axes.plot((at[25], at[75]), y, color=color, linewidth=6, solid_capstyle="butt")
            axes.plot(at[50], place + offset, "|", color=INK, markersize=9)
            most = max(most, at[95])
    axes.set_xlim(0, 1.05 * most)
    axes.set_xlabel("time of a run / median of the original")
    texts = [f"{row.artifact}: {milliseconds(row.original_p50_ms, row.p50_ms)}" for row in rows]
    return to_plot(
        axes,
        "Times of single runs",
        "Above: the original; below: the cut file. Mark: the median. Bar: the middle half of the "
        "runs. Line: all but the fastest 1 % and the slowest 5 %.",
        "; ".join(texts),
    )


def _relative_times(row: Latency) -> dict[str, dict[float, float]]:
    """Side -> percentile -> time, as a multiple of the original's median; empty if not known."""
    runs: Mapping[str, list[float | None]] = row.raw.get("runs_ms", {})
    sides = {side: runs.get(side, []) for side in ("original", "pruned")}
    every = [time for times in sides.values() for time in times]
    if not every or any(time is None or not 0 < time < math.inf for time in every):
        return {}
    median = row.original_p50_ms
    percentiles = runs["percentiles"]
    return {
        side: {p or 0.0: (time or 0.0) / median for p, time in zip(percentiles, times, strict=True)}
        for side, times in sides.items()
    }


_DRAWERS: tuple[Callable[[Report], Plot | None], ...] = (
    *(_sizes, _trade, _agreement, _speed, _times, _errors),
)
