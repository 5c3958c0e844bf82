"""Print forecasts: the verdict first, then the numbers, then the edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate, groupby
from typing import Any

import click
from rich.table import Table

from exporter.cli.exit_codes import printing
from exporter.cli.stderr import say
from exporter.cli.stdout import print_json, print_printable, print_rich
from exporter.forecast.forecast import Counts, FileForecast, Forecast
from exporter.forecast.verdict import LatencyBound
from exporter.formats import KINDS
from exporter.report import formatting
from exporter.selection import Selection

LABEL_COLUMNS = 70  # of the kept labels, without --verbose


def plans(forecasts: Mapping[str, Forecast], given: Mapping[str, Any]) -> int:
    """Print the forecasts of `--dry-run`, by name of the variant."""
    with printing():
        if given["as_json"]:
            records = {name: forecast.to_dict() for name, forecast in forecasts.items()}
            print_json({"schema": "exporter/plan/1", "ok": True, "plans": records})
        else:
            for name, forecast in forecasts.items():
                print_forecast(name, forecast, verbose=given["verbose"])
                click.echo()
            click.echo("nothing was written (--dry-run)")
    return 0


def print_forecast(name: str, forecast: Forecast, *, verbose: bool) -> None:
    """Print one forecast as text. Args: name: of the variant, or "" """
    cut = forecast.cut
    title = f"{name}: " if name else ""
    for part in cut.parts:
        name, kept, units = part.heads[0].name, len(part.selection.kept), part.selection.units
        print_printable(f"{title}head {name!r}, {cut.mode}: {kept} of {units} units kept")
        print_printable(f"kept: {_kept(part.selection, verbose=verbose)}")
    for line in forecast.verdict:
        print_printable(line)
    click.echo()
    print_rich(lambda console: console.print(_table(forecast.files)))
    for note in _notes(forecast.files):
        click.echo(note)
    title = KINDS[forecast.kind].title
    edits = cut.plan.every_edit
    click.echo(f"\nedits of the {title} model:" if edits else "\nno edits")
    for edit in edits:
        print_printable(f"  {edit}")
    for warning in forecast.warnings:
        say(f"warning: {formatting.printable(warning)}")


def _kept(selection: Selection, *, verbose: bool) -> str:
    """The labels of the kept units, or their indices in ranges."""
    texts = list(selection.kept_labels or _ranges(selection.kept))
    ends = accumulate(len(text) + 2 for text in texts)
    shown = len(texts) if verbose else max(1, sum(end <= LABEL_COLUMNS for end in ends))
    more = len(texts) - shown
    return ", ".join(texts[:shown]) + (f" and {more} more" if more else "")


def _ranges(kept: tuple[int, ...]) -> Iterator[str]:
    """1, 7, 100-103"""
    for _, group in groupby(enumerate(kept), lambda pair: pair[1] - pair[0]):
        units = [unit for _, unit in group]
        yield str(units[0]) if len(units) == 1 else f"{units[0]}-{units[-1]}"


def _table(files: tuple[FileForecast, ...]) -> Table:
    """The uncut model of each kind, then its files."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("File", no_wrap=True)
    for title in ("Size", "Change", "Parameters", "Multiply-adds", "Memory", "Speedup"):
        table.add_column(title, no_wrap=True, justify="right")
    for kind, group in groupby(files, lambda file: file.kind):
        rows = list(group)
        table.add_row(f"{kind}, uncut", *_cells(rows[0].original, ""), "")
        for row in rows:
            change = formatting.change(row.original.bytes, row.counts.bytes)
            exact = "" if row.is_exact else "~"
            cells = _cells(row.counts, change, exact)
            table.add_row(row.name, *cells, _speedup(row.bound))
    return table


def _speedup(bound: LatencyBound) -> str:
    if bound.speedup is None:
        return "unknown"
    return f"{'<=' if bound.is_strict else '~'} {formatting.factor(bound.speedup)}"


def _cells(counts: Counts, change: str, mark: str = "") -> Iterator[str]:
    yield f"{mark}{formatting.size(counts.bytes)}"
    yield change
    yield formatting.count(counts.parameters)
    yield formatting.count(counts.multiply_adds)
    yield f"{'' if counts.memory.is_complete else '>= '}{formatting.size(counts.memory.bytes)}"


def _notes(files: tuple[FileForecast, ...]) -> Iterator[str]:
    if not all(file.is_exact for file in files):
        yield "A size with ~ is within 1 %: it depends on the calibration. Others are exact."
    measured = any(file.bound.source == "measured" for file in files)
    yield "Memory is an estimate: weights, and the activations that exist at the same time."
    share = "the latency" if measured else "the multiply-adds"
    yield f"Speedup is the most that the head's share of {share} allows."
    if not all(file.bound.is_strict for file in files):
        yield "With ~ it can be larger: the processor waits for the weights of the head."
