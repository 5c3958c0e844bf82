"""The result of one cell: a row of the index, and the record in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import CheckError, ExporterError
from exporter.output.folder import CELL
from exporter.output.manifest import check_manifest
from exporter.records import Report
from exporter.report.check_groups import describe_failure, failed
from exporter.report.notebook import report_rows

PASSED, FAILED, ERROR, LOST, OPEN = "passed", "failed", "error", "lost", "open"

Row = dict[str, Any]


def empty_row(cell: Mapping[str, Any], status: str, error: str = "", hint: str = "") -> Row:
    """The row of a cell without files.

    Args:
        cell: with "name", "model" and "selection".
        status: ERROR, LOST (its process died twice), or OPEN (it was not done).
    """
    named = {key: cell[key] for key in ("name", "model", "selection")}
    found: Row = {
        "kept": None,
        "units": None,
        "mode": None,
        "files": [],
        "failed": [],
        "warnings": [],
    }
    return {**named, "status": status, "exit": None, "error": error, "hint": hint, **found}


def error_row(cell: Mapping[str, Any], error: ExporterError) -> Row:
    """The row of a cell that could not be made."""
    row = empty_row(cell, ERROR, error.message, error.hint)
    return {**row, "exit": error.exit_code}


def row_of(cell: Mapping[str, Any], report: Report) -> Row:
    """The row of a cell that was made, from its report."""
    heads = report.remap.heads if report.remap else ()
    return {
        **empty_row(cell, PASSED if report.ok else FAILED),
        "exit": 0 if report.ok else 1,
        "kept": sum(len(head.kept) for head in heads),
        "units": sum(head.old_units for head in heads),
        "mode": heads[0].mode if heads else None,
        "files": [dict(row) for row in report_rows(report)],
        "failed": [describe_failure(check) for check in failed(report.checks)],
        "warnings": list(report.warnings),
    }


def finished_row(folder: Path, digest: str) -> Row | None:
    """The row of a cell that was made before with this key, and whose files are unchanged."""
    try:
        record = json.loads((folder / CELL).read_text("utf-8"))
        row: Row = record["row"]
        if record["digest"] == digest and check_manifest(folder).passed:
            return row
    except (OSError, ValueError, KeyError, TypeError, CheckError):
        pass  # not finished, or damaged: it is made again
    return None
