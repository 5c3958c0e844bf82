"""The file that `exporter select` writes: which units to keep, with a reason for each.

{"schema": "exporter/selection/1", "head": "scores", "units": 5, "kept": [0, 3],
 "table": [{"unit": 0, "label": "rose", "kept": true, "reason": "f1 0.91 >= 0.6", ...}, ...]}
"""

from __future__ import annotations

import json

from exporter.errors import UsageError

SCHEMA = "exporter/selection/1"


def is_selection(text: str) -> bool:
    """Is this the text of a selection file, rather than one entry a line?"""
    return text.lstrip().startswith("{")


def kept_units(text: str) -> tuple[int, ...]:
    """The kept units of a selection file; unknown keys are ignored.

    Raises:
        UsageError: not JSON, another schema, or no list of unit indices.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not valid JSON: {error}", "write it with `exporter select`") from error
    if record.get("schema") != SCHEMA:
        raise UsageError(
            f"not a selection file: its schema is {record.get('schema')!r}", f"{SCHEMA}"
        )
    kept = record.get("kept")
    if not isinstance(kept, list) or not all(type(unit) is int for unit in kept):
        raise UsageError("`kept` is not a list of unit indices", "write it with `exporter select`")
    return tuple(kept)
