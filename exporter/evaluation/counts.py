"""Read how often each unit occurs, from a CSV file of counts or a log of predictions."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from exporter.errors import UsageError
from exporter.evaluation.labels import is_whole, units_of_labels
from exporter.evaluation.unit_table import UNLABELED
from exporter.selection.text_file import read_text, text_lines

_SHOWN = 60  # characters of a label in a message


def read_counts(path: Path, units: int, names: Sequence[str] | None) -> Mapping[int, int]:
    """Unit -> count.

    Args:
        path: a CSV file with the columns label (or index) and count, or a log with one label or
            index per line.
        units: how many units the model has.
        names: one label per unit; None if there are none.

    Raises:
        UsageError: the file cannot be read, names an unknown unit, or a count is not a number.
    """
    named = _named_counts(path)
    counts: Counter[int] = Counter()
    wanted = units_of_labels(list(named), units, names).tolist()
    for (name, count), unit in zip(named.items(), wanted, strict=True):
        if unit == UNLABELED:
            raise UsageError(
                f"{path}: no unit is called {_shown(name)}",
                "check the labels of the model; for words of a text, use --occurs-in",
            )
        counts[unit] += count
    return counts


def _named_counts(path: Path) -> Mapping[str, int]:
    """Label or index, as the file names it -> count."""
    text = read_text(path)
    log = Counter(filter(None, text_lines(text)))
    if not log:
        raise UsageError(f"{path} is empty", "give one label per line, or the columns label,count")
    try:
        rows = (row for row in csv.reader(StringIO(text)) if any(map(str.strip, row)))
        header = [cell.strip().lower() for cell in next(rows, [])]
        if "count" not in header:
            return log
        key = next((each for each in ("label", "index") if each in header), None)
        if key is None:
            raise UsageError(f"{path} has no column label or index", "write a header: label,count")
        counts: Counter[str] = Counter()
        for row in rows:
            cells = dict(zip(header, map(str.strip, row), strict=False))
            name, count = cells.get(key, ""), cells.get("count", "")
            if not is_whole(count):
                raise UsageError(
                    f"{path}: the count of {_shown(name)} is {_shown(count)}",
                    "write a whole number",
                )
            counts[name] += int(count)
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}", "check its quotes") from error
    return counts


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
