"""Print the result or the forecast of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.exit_codes import printing
from exporter.cli.stderr import say
from exporter.cli.stdout import print_json, print_printable, print_rich
from exporter.report import formatting

if TYPE_CHECKING:
    from exporter.batches.index import Batch

FAILED = 1
MOST_CELLS = 40  # that a table shows without --verbose
MOST_ERRORS = 10


def result(batch: Batch, given: Mapping[str, Any], seconds: float) -> int:
    """Print the result of a batch, and return its exit code."""
    from exporter.batches.index import headline
    from exporter.output.folder import INDEX

    with printing():
        if given["as_json"]:
            print_json(batch.to_dict())
        else:
            bad = [row for row in batch.cells if row["status"] != "passed"]
            for row in bad if given["verbose"] else bad[:MOST_ERRORS]:
                print_printable(f"{row['name']}: {_reason(row)}")
            if len(bad) > MOST_ERRORS and not given["verbose"]:
                click.echo(f"... {len(bad) - MOST_ERRORS} more: --verbose shows all")
            print_printable(headline(batch.cells))
            if batch.reused:
                click.echo(f"{len(batch.reused)} were finished before")
            print_printable(f"Written to {batch.folder} in {seconds:.0f} s")
            assert batch.folder is not None  # noqa: S101 - this is no dry run
            print_printable(f"Open {batch.folder / INDEX}")
    return 0 if batch.ok else FAILED


def _reason(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"{row['error']} ({row['hint']})" if row["hint"] else str(row["error"])
    return "; ".join(row["failed"][:1]) or row["status"]


def forecast(batch: Batch, finished: frozenset[str], given: Mapping[str, Any]) -> int:
    """Print the cells of a plan with their forecasts.

    Args:
        finished: names of cells that would not be made again.
    """
    errors = [row for row in batch.cells if row["status"] != "forecast"]
    with printing():
        if given["as_json"]:
            cells = [{**row, "finished": row["name"] in finished} for row in batch.cells]
            print_json({"schema": "exporter/batch-plan/1", "ok": not errors, "cells": cells})
        else:
            _print_cells(batch.cells, finished, verbose=given["verbose"])
            for row in errors:
                say(f"error: {formatting.printable(row['name'])}: {row['error']}")
            click.echo("\nnothing was written (--dry-run)")
    return FAILED if errors else 0


def _print_cells(
    cells: Sequence[Mapping[str, Any]], finished: frozenset[str], *, verbose: bool
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("Cell", overflow="fold")
    for title in ("Kept", "File", "Size", "Change", "State"):
        table.add_column(title, no_wrap=True, justify="right" if title != "File" else "left")
    shown = cells if verbose else cells[:MOST_CELLS]
    for row in shown:
        state = "finished" if row["name"] in finished else "to do"
        for line in _lines(row):
            table.add_row(Text(formatting.printable(row["name"])), *line, state)
    print_rich(lambda console: console.print(table))
    if len(shown) < len(cells):
        click.echo(f"... {len(cells) - len(shown)} more cells: --verbose shows all")
    files = [file for row in cells for file in row.get("forecast", {}).get("files", [])]
    total = formatting.size(sum(file["bytes"] or 0 for file in files))
    done = sum(row["name"] in finished for row in cells)
    click.echo(f"\n{len(cells)} cells, {len(files)} files, {total}; {done} cells are finished")


def _lines(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    if "forecast" not in row:
        yield ("-", "-", "-", "error")
        return
    kept = ", ".join(f"{len(h['kept'])} of {h['units']}" for h in row["forecast"]["heads"])
    for file in row["forecast"]["files"]:
        before, after = file["original"]["bytes"], file["bytes"]
        mark = "" if file["exact"] else "~"
        size = f"{mark}{formatting.size(after)}"
        yield (kept, f"{file['kind']} {file['precision']}", size, formatting.change(before, after))
