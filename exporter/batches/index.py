"""The index of a batch: one record, and the same as a page and as a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exporter.batches.cells import FAILED, PASSED, Row
from exporter.output.draft import new_file
from exporter.output.folder import INDEX
from exporter.report.html import to_batch_html
from exporter.report.notebook import data_frame, fragment

SCHEMA = "exporter/batch/1"
RECORD, TABLE = "index.json", "index.parquet"


@dataclass(frozen=True)
class Batch:
    """The result of a batch.

    Attributes:
        folder: that was written; None after a dry run.
        cells: a row for each cell, in the order of the plan; see docs/batch.md.
        reused: names of cells that were finished before.
    """

    folder: Path | None
    cells: Sequence[Row]
    reused: frozenset[str] = frozenset()

    @property
    def ok(self) -> bool:
        """Was every cell made, and did all checks pass?"""
        return all(row["status"] == PASSED for row in self.cells)

    @property
    def counts(self) -> dict[str, int]:
        """Status -> number of cells."""
        return dict(sorted(Counter(row["status"] for row in self.cells).items()))

    def to_dict(self) -> dict[str, Any]:
        """The `exporter/batch/1` record."""
        return {"schema": SCHEMA, "ok": self.ok, "counts": self.counts, "cells": list(self.cells)}

    def rows(self) -> Iterator[Row]:
        """A row for each file; a cell without files has one too."""
        for cell in self.cells:
            named = {key: value for key, value in cell.items() if not isinstance(value, list)}
            texts = {key: "\n".join(cell[key]) for key in ("failed", "warnings")}
            for file in cell["files"] or [dict.fromkeys(_FILE_KEYS)]:
                yield {**named, **texts, **file}

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each file."""
        return data_frame(self.rows())

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return fragment(headline(self.cells), self.rows())


_FILE_KEYS = (
    *("file", "kind", "precision", "result", "shown_by", "bytes", "original_bytes", "top1"),
    *("p50_ms", "original_p50_ms", "speedup", "memory_bytes", "original_memory_bytes"),
)
_NUMBERS = {
    **dict.fromkeys(("exit", "kept", "units", "bytes", "original_bytes"), "int64"),
    **dict.fromkeys(("memory_bytes", "original_memory_bytes"), "int64"),
    **dict.fromkeys(("top1", "p50_ms", "original_p50_ms", "speedup"), "float64"),
}


def headline(cells: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on all cells."""
    passed = sum(row["status"] == PASSED for row in cells)
    failed = sum(row["status"] == FAILED for row in cells)
    if passed == len(cells):
        return f"{passed} of {len(cells)} cells passed"
    parts = [f"{passed} of {len(cells)} cells passed"]
    if failed:
        parts.append(f"{failed} failed a check")
    if left := len(cells) - passed - failed:
        parts.append(f"{left} could not be made")
    return ", ".join(parts)


def write_index(batch: Batch, folder: Path) -> None:
    """Write index.json, index.html, and index.parquet if pyarrow is installed."""
    _replace(folder / RECORD, json.dumps(batch.to_dict(), indent=1, ensure_ascii=False) + "\n")
    _replace(folder / INDEX, to_batch_html(headline(batch.cells), list(batch.rows())))
    if has_parquet():
        with new_file(folder / TABLE, force=True) as draft:
            draft.write(lambda path: _write_parquet(batch.rows(), path))
            draft.publish()


def has_parquet() -> bool:
    """Is the library for index.parquet installed?"""
    return find_spec("pyarrow") is not None


def _replace(path: Path, text: str) -> None:
    with new_file(path, force=True) as draft:
        draft.write_text(text)
        draft.publish()


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    found = list(rows)
    columns = {
        name: pa.array([row[name] for row in found], getattr(pa, _NUMBERS.get(name, "string"))())
        for name in found[0]
    }
    parquet.write_table(pa.table(columns), path)
