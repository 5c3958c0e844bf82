"""Records in a notebook: HTML with the cards and tables of the report, and data frames.

A fragment is shown between other cells. So its style is scoped to it, and it has no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any

from exporter.errors import missing_library
from exporter.records import Check, Report
from exporter.remap import Remap
from exporter.report import describe, view
from exporter.report.check_groups import describe_failure, failed
from exporter.report.html import fragment_template, report_parts
from exporter.report.sections import Section
from exporter.report.tables import Cell, Column
from exporter.selection import Selection

MOST_ROWS = 50  # of a table in a fragment; a data frame has all

Row = Mapping[str, Any]


def data_frame(rows: Iterable[Row]) -> Any:
    """A `pandas.DataFrame` of the rows. Integers stay integers next to missing values ("Int64").

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        from pandas import DataFrame  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_library(error) or error from error
    found = list(rows)
    frame = DataFrame(found)
    for name in frame:
        types = {type(row.get(name)) for row in found}
        if types == {int, type(None)}:
            frame[name] = frame[name].astype("Int64")
    return frame


def fragment(title: str, rows: Iterable[Row] = (), notes: Sequence[str] = ()) -> str:
    """A title, a table and sentences. The keys of the first row are the columns.

    Args:
        rows: of the table, the first MOST_ROWS of which are shown; kept units first, if the rows
            say which those are.
    """
    found = [dict(row) for row in rows]
    if len(found) > MOST_ROWS:
        found.sort(key=lambda row: not row.get("kept", False))
        notes = (f"{len(found) - MOST_ROWS} more rows: to_pandas() has all.", *notes)
    known = [key for key in (found[0] if found else ()) if any(_has(row[key]) for row in found)]
    columns = [Column(key.replace("_", " ").capitalize(), _cell(key)) for key in known]
    table = Section("", columns=columns, records=found[:MOST_ROWS], notes=notes)
    return fragment_template().render(headline=title, sections=[table])


def report_fragment(report: Report) -> str:
    """The verdict, a card for each file, and the plots."""
    return fragment_template().render(
        sections=[Section("", items=report.warnings)], **report_parts(report)
    )


def report_rows(report: Report) -> Iterator[Row]:
    """A row for each model file, with its size, latency, memory and agreement."""
    times = {each.artifact: each for each in report.latency}
    memory = {each.artifact: each for each in report.memory}
    for card in view.cards(report):
        artifact = card.artifact
        time, used = times.get(artifact.path), memory.get(artifact.path)
        yield {
            "file": artifact.path,
            "kind": artifact.kind,
            "precision": artifact.precision,
            "result": card.verdict.result,
            "shown_by": card.verdict.shown_by,
            "bytes": artifact.bytes,
            "original_bytes": artifact.original_bytes,
            "top1": view.agreement(report, artifact),
            "p50_ms": time and time.p50_ms,
            "original_p50_ms": time and time.original_p50_ms,
            "speedup": time and time.speedup,
            "memory_bytes": used and used.bytes,
            "original_memory_bytes": used and used.original_bytes,
        }


def remap_fragment(remap: Remap) -> str:
    """Every unit of each head: where it is now, or that it was removed."""
    title = ", ".join(f"{describe.describe_kept(head)} of {head.name}" for head in remap.heads)
    return fragment(title, remap_rows(remap))


def remap_rows(remap: Remap) -> Iterator[Row]:
    """A row for each unit of the original."""
    for head in remap.heads:
        for row in view.unit_rows(head, range(head.old_units)):
            new = int(row.new) if row.new else None
            named = {"head": head.name, "old": row.old, "new": new, "label": row.label}
            yield {**named, "kept": new is not None}


def selection_fragment(selection: Selection) -> str:
    """The kept units, and why."""
    title = f"{len(selection.kept)} of {selection.units} units kept"
    return fragment(title, selection_rows(selection))


def selection_rows(selection: Selection) -> Iterator[Row]:
    """A row for each unit."""
    labels, kept = selection.labels or (), frozenset(selection.kept)
    for unit in range(selection.units):
        label = labels[unit] if labels else ""
        reason = selection.reasons.get(unit, "")
        yield {"unit": unit, "label": label, "kept": unit in kept, "reason": reason}


def pruned_fragment(remap: Remap, checks: Iterable[Check], warnings: Sequence[str]) -> str:
    """The remap, and what the checks found."""
    found = list(checks)
    bad = [describe_failure(check) for check in failed(found)]
    words = "every check passed" if found else "not verified"
    title = f"{len(bad)} of {len(found)} checks failed" if bad else words
    kept = ", ".join(describe.describe_kept(head) for head in remap.heads)
    return fragment(f"{kept}: {title}", remap_rows(remap), [*bad, *warnings])


def check_rows(checks: Iterable[Check]) -> list[Row]:
    """A row for each check."""
    return [asdict(check) for check in checks]


def _has(value: Any) -> bool:
    return value is not None and value != ""


def _cell(key: str) -> Any:
    get = itemgetter(key)

    def text(row: Row) -> str | Cell:
        value = get(row)
        if isinstance(value, bool):
            return Cell("yes", "good") if value else Cell("no")
        return f"{value:.4g}" if isinstance(value, float) else str(value if _has(value) else "")

    return text
