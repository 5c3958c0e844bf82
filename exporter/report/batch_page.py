"""The page of a batch: a table of all files, which can be searched and sorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.report.formatting import NOTHING, change, factor, milliseconds, percent, size

MOST_ROWS = 5000  # about 2 MB; the records have all
TITLES = ("Cell", "Model", "Selection", "Result", "File", "Precision", "Note")
NUMBERS = (
    *("Kept", "Units", "Size", "Change"),
    *("Top-1 agreement", "Latency, p50", "Speedup", "Memory"),
)
_WORDS = {  # status of a cell, or result of a file -> words, style
    "pass": ("Pass", "good"),
    "warning": ("Look closer", "warning"),
    "fail": ("Do not use", "bad"),
    "error": ("Not made", "bad"),
    "lost": ("Process died", "bad"),
    "open": ("Not done", "warning"),
}


@dataclass(frozen=True)
class BatchRow:
    """One row of the table.

    Attributes:
        href: of the cell's page; "" if there is none.
        note: the error, or the first failed check or warning.
        numbers: title of a right-aligned column -> its text, and the value to sort by.
    """

    name: str
    model: str
    selection: str
    word: str
    style: str
    href: str
    file: str
    precision: str
    note: str
    numbers: Mapping[str, tuple[str, float | None]]


def batch_rows(rows: Sequence[Mapping[str, Any]]) -> list[BatchRow]:
    """The rows of the page, from those of the index; the worst first if there are too many."""
    shown = list(rows)
    if len(shown) > MOST_ROWS:
        shown.sort(key=lambda row: row["status"] == "passed")
    return [_row(row) for row in shown[:MOST_ROWS]]


def filled(rows: Sequence[BatchRow]) -> list[str]:
    """The titles of the columns of numbers in which some row has a value."""
    return [title for title in NUMBERS if any(row.numbers[title][1] is not None for row in rows)]


def _row(row: Mapping[str, Any]) -> BatchRow:
    word, style = _WORDS[row["result"] or row["status"]]
    notes = (row["error"], row["failed"], row["warnings"])
    note = next(filter(None, notes), "").partition("\n")[0]
    before, after = row["original_bytes"], row["bytes"]
    made = row["file"] is not None
    numbers = (
        (_text(row["kept"]), row["kept"]),
        (_text(row["units"]), row["units"]),
        (size(after) if made else NOTHING, after),
        (change(before, after) if made else NOTHING, after / before if before else None),
        (percent(row["top1"]), row["top1"]),
        (milliseconds(row["p50_ms"]), row["p50_ms"]),
        (factor(row["speedup"]), row["speedup"]),
        (size(row["memory_bytes"]), row["memory_bytes"]),
    )
    return BatchRow(
        row["name"],
        row["model"],
        row["selection"],
        word,
        style,
        f"{row['name']}/report.html" if made else "",
        row["file"] or NOTHING,
        row["precision"] or NOTHING,
        note,
        dict(zip(NUMBERS, numbers, strict=True)),
    )


def _text(value: int | None) -> str:
    return NOTHING if value is None else str(value)
