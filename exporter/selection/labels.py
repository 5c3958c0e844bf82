"""Read labels from files: one for each unit, in the order of the units."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path

from exporter.errors import UsageError
from exporter.selection.text_file import read_text, text_lines

_LABEL_COLUMNS = ("label", "name", "class", "display_name")
_INDEX_COLUMNS = ("index", "id")


Added = tuple[tuple[str, ...], tuple[str, ...]]  # first labels, last labels

ADDED_BY_READERS: tuple[Added, ...] = (((), ()), (("blank",), ()), (("blank",), (" ",)))
"""First and last labels that a dictionary of characters may leave out, because its reader adds
them: PaddleOCR the blank of CTC, and often a space.
"""


def without_added(labels: Sequence[str], around: Added) -> list[str]:
    """The entries of a dictionary: the labels without those that its reader adds."""
    first, last = around
    start = len(first) if tuple(labels[: len(first)]) == first else 0
    stop = len(labels) - (len(last) if last and tuple(labels[-len(last) :]) == last else 0)
    return list(labels[start:stop])


def read_labels(path: str | Path) -> tuple[str, ...]:
    """The labels in a file; its suffix tells the format.

    - `.csv`: comma separated. One column: one label in each row, after an optional header. Several
      columns: a header is needed, with exactly one of label, name, class, display_name, and at most
      one of index, id; the indices order the rows, and must be 0, 1, ... without a gap.
    - `.json`: a list of strings, or an object from index ("0", "1", ...) to label.
    - other files: one label in each line, commas included.

    The text is UTF-8, with or without a byte order mark. White space around a label is dropped,
    except in JSON. Blank lines at the end are dropped. A blank line in the middle is a unit without
    a label (""), as in some published label files.

    Raises:
        UsageError: the file is missing, not UTF-8, ambiguous, or contains no label.
    """
    text = read_text(path)
    labels = _READERS.get(Path(path).suffix.lower(), _from_lines)(text, str(path))
    if not labels:
        raise UsageError(f"{str(path)!r} contains no label", "write one label in each line")
    return tuple(labels)


def _from_lines(text: str, _name: str) -> list[str]:
    lines = text_lines(text)
    while lines and not lines[-1]:
        lines.pop()
    return lines


# --- JSON ---------------------------------------------------------------------------------------


class _Pairs(list[tuple[str, object]]):
    """A JSON object with all its pairs: a dict would drop duplicate keys."""


def _from_json(text: str, name: str) -> list[str]:
    try:
        value = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name!r} is not valid JSON: {error}", "check the file") from error
    named = isinstance(value, _Pairs)
    labels = [label for _, label in value] if named else value
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UsageError(
            f"{name!r} is neither a list of strings nor an object from index to label",
            'write ["cat", "dog"] or {"0": "cat", "1": "dog"}',
        )
    return _ordered([index for index, _ in value], labels, name) if named else labels


# --- CSV ----------------------------------------------------------------------------------------


def _from_csv(text: str, name: str) -> list[str]:
    rows = _rows(text, name)
    header = [cell.casefold() for cell in rows[0]] if rows else []
    if len(header) == 1:
        _refuse_other_separator(header[0], name)
        has_header = header[0] in _LABEL_COLUMNS
        return [row[0] if row else "" for row in rows[has_header:]]
    where = _column(header, _LABEL_COLUMNS, name)
    index = _column(header, _INDEX_COLUMNS, name)
    if header and where is None:
        raise UsageError(
            f"{name!r} has several columns and none is named {', '.join(_LABEL_COLUMNS)}",
            "name the label column in the first row",
        )
    labels = [row[where or 0] for row in rows[1:]]
    return labels if index is None else _ordered([row[index] for row in rows[1:]], labels, name)


def _rows(text: str, name: str) -> list[list[str]]:
    """The rows, all with as many cells as the first; in a file of one column a row may be blank."""
    reader = csv.reader(StringIO(text), strict=True)
    rows: list[list[str]] = []
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row])
            wide = len(rows[0])
            if len(row) != wide and row:
                raise UsageError(
                    f"{name}:{reader.line_num}: {len(row)} columns, where the first row has {wide}",
                    "put labels with commas into double quotes, or use a .txt file",
                )
    except csv.Error as error:
        raise UsageError(
            f"{name}:{reader.line_num}: not valid CSV: {error}", "check the quotes of that row"
        ) from error
    while rows and not any(rows[-1]):
        rows.pop()
    if rows and len(rows[0]) > 1:
        return [row for row in rows if row]
    return rows


def _refuse_other_separator(first: str, name: str) -> None:
    cells = first.replace("\t", ";").split(";")
    if len(cells) > 1 and set(cells).intersection(_LABEL_COLUMNS):
        raise UsageError(
            f"{name!r} has semicolons or tabs between its columns", "separate them by commas"
        )


def _column(header: Sequence[str], names: Sequence[str], file: str) -> int | None:
    """Index of the one column with one of these names; None if there is none."""
    found = [i for i, cell in enumerate(header) if cell in names]
    if len(found) > 1:
        shown = ", ".join(header[i] for i in found)
        raise UsageError(
            f"{file!r} has several columns of labels or indices: {shown}", "keep one of them"
        )
    return found[0] if found else None


# --- both formats -------------------------------------------------------------------------------


def _ordered(indices: Sequence[str], labels: Sequence[str], name: str) -> list[str]:
    """The labels ordered by index; the indices must be 0, 1, ... without a gap."""
    by_index: dict[str, str] = {}
    for index, label in zip(indices, labels, strict=True):
        if index in by_index:
            raise UsageError(f"{name!r} has two labels for the index {index}", "remove one of them")
        by_index[index] = label
    try:
        return [by_index[str(index)] for index in range(len(labels))]
    except KeyError as error:
        raise UsageError(
            f"{name!r} has {len(labels)} labels but none for the index {error.args[0]}",
            f"number them from 0 to {len(labels) - 1}",
        ) from error


_READERS: Mapping[str, Callable[[str, str], list[str]]] = {
    ".csv": _from_csv,
    ".json": _from_json,
}
