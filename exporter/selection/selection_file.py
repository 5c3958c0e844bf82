"""The file that `exporter select` writes: which units to keep, with a reason for each.

{"schema": "exporter/selection/1", "head": "scores", "units": 5, "kept": [0, 3],
 "table": [{"unit": 0, "label": "rose", "kept": true, "reason": "f1 0.91 >= 0.6", ...}, ...]}
"""

from __future__ import annotations

import json
from typing import Any

from exporter.errors import UsageError

SCHEMA = "exporter/selection/1"


def is_selection(text: str) -> bool:
    """Is this the text of a selection file, rather than one entry a line?"""
    return text.lstrip().startswith("{")


def kept_units(text: str) -> tuple[tuple[int, ...], int | None]:
    """The kept units of a selection file, and how many units its model has; None if not stated.

    Unknown keys are ignored.

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
    return tuple(kept), units


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
