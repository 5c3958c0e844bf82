"""The file that `exporter select` writes: which units to keep, with a reason for each.

{"schema": "exporter/selection/1", "model": {"name": "net.onnx", "sha256": "..."},
 "head": "scores", "units": 5, "kept": [0, 3],
 "table": [{"unit": 0, "label": "rose", "kept": true, "reason": "f1 0.91 >= 0.6", ...}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import UsageError

SCHEMA = "exporter/selection/1"


@dataclass(frozen=True)
class SelectionFile:
    """The content of a selection file.

    Attributes:
        kept: indices of the kept units.
        units: how many units its model has; None if not stated.
        reasons: kept or removed unit -> why, such as "f1 0.91 >= 0.6".
        model, sha256: of the file of its model; "" if not stated.
        labels: unit -> label, for the units that have one.
    """

    kept: tuple[int, ...]
    units: int | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    model: str = ""
    sha256: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)


def is_selection(text: str) -> bool:
    """Is this the text of a selection file, rather than one entry a line?"""
    return text.lstrip().startswith("{")


def read_selection(text: str) -> SelectionFile:
    """Read a selection file. Unknown keys are ignored, and rows of the table without a reason.

    Raises:
        UsageError: not JSON, another schema, or no list of unit indices.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"not valid JSON: {error}",
            "write it with `exporter select`; in a list of labels, write ={ for a label with {",
        ) from error
    if record.get("schema") != SCHEMA:
        raise UsageError(
            f"not a selection file: its schema is {record.get('schema')!r}", f"{SCHEMA}"
        )
    kept, units = record.get("kept"), record.get("units")
    if not isinstance(kept, list) or not all(map(_is_count, kept)):
        raise UsageError("`kept` is not a list of unit indices", "write it with `exporter select`")
    if units is not None and not _is_count(units):
        raise UsageError("`units` is not a number of units", "write it with `exporter select`")
    table, model = record.get("table"), record.get("model")
    rows = [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []
    chosen = frozenset(kept)
    agreeing = [row for row in rows if row.get("kept") is (row.get("unit") in chosen)]
    model = model if isinstance(model, dict) else {}
    name, sha256 = (value if isinstance(value, str) else "" for value in map(model.get, _MODEL))
    return SelectionFile(
        tuple(kept), units, _texts(agreeing, "reason"), name, sha256, _texts(rows, "label")
    )


def difference(file: SelectionFile, labels: Sequence[str] | None, hashes: Collection[str]) -> str:
    """What shows that a selection file was written for another model; "" if nothing does.

    1. A file with the same SHA-256 is the same model.
    2. Of another file, such as an export to another format, the labels decide. They are compared
       where both models have one, and none may differ.
    3. Without labels to compare, nothing is known; see `is_unproved`.

    Args:
        labels: of the units of the model.
        hashes: SHA-256 of the model, and of the files that it was made from.
    """
    if file.sha256 in hashes:
        return ""
    for unit, label in file.labels.items():
        if labels and unit < len(labels) and labels[unit] not in {label, ""}:
            return f"unit {unit} is {label!r} in the model of the file, and {labels[unit]!r} here"
    return ""


def is_unproved(file: SelectionFile, labels: Sequence[str] | None, hashes: Collection[str]) -> bool:
    """The selection file names another model file, and no labels show that it is the same model."""
    if not file.sha256 or not hashes or file.sha256 in hashes:
        return False
    return not any(labels and unit < len(labels) and labels[unit] for unit in file.labels)


_MODEL = ("name", "sha256")


def _texts(rows: Sequence[Mapping[str, Any]], key: str) -> dict[int, str]:
    """Unit -> text, of the rows that have one."""
    return {
        row["unit"]: row[key]
        for row in rows
        if _is_count(row.get("unit")) and isinstance(row.get(key), str) and row[key]
    }


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
