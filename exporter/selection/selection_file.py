"""The file that `exporter select` writes: which units to keep, with a reason for each.

{"schema": "exporter/selection/1", "head": "scores", "units": 5, "kept": [0, 3],
 "table": [{"unit": 0, "label": "rose", "kept": true, "reason": "f1 0.91 >= 0.6", ...}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
    """

    kept: tuple[int, ...]
    units: int | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)


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
    return SelectionFile(tuple(kept), units, _reasons(record.get("table"), frozenset(kept)))


def _reasons(table: Any, kept: frozenset[int]) -> dict[int, str]:
    """The reasons of the rows that agree with the list of kept units."""
    rows = [row for row in table if isinstance(row, dict)] if isinstance(table, list) else []
    return {
        row["unit"]: row["reason"]
        for row in rows
        if _is_count(row.get("unit"))
        and isinstance(row.get("reason"), str)
        and row.get("kept") is (row["unit"] in kept)
    }


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
