"""Quality beside size: one row an artifact, where a report tells of several precisions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.models import FORMS
from exporter.report.record import Artifact, Check, Latency, Report

STAGE = "quantize"


@dataclass(frozen=True)
class PrecisionRow:
    """What one precision keeps and costs.

    Attributes:
        sqnr_db, top1: of the output that lost most, against the float model; None for what is
            float itself, or where it was not measured. An SQNR is infinite where nothing changed.
        p50_ms, speedup: None where it was not timed; the speedup is over the original.
    """

    artifact: str
    kind: str
    precision: str
    sqnr_db: float | None
    top1: float | None
    bytes: int
    p50_ms: float | None
    speedup: float | None


def precision_rows(report: Report) -> tuple[PrecisionRow, ...]:
    """A row an artifact; none where nothing that was quantised was compared."""
    times = {row.artifact: row for row in report.latency}
    files = [each for each in report.artifacts if each.kind not in FORMS]
    rows = [_row(each, report.checks, times.get(each.path)) for each in files]
    measured = any(row.sqnr_db is not None or row.top1 is not None for row in rows)
    return tuple(rows) if measured else ()


def _row(artifact: Artifact, checks: Iterable[Check], time: Latency | None) -> PrecisionRow:
    found = [c for c in checks if c.stage == STAGE and c.artifact == artifact.path]
    return PrecisionRow(
        artifact=artifact.path,
        kind=artifact.kind,
        precision=artifact.precision,
        sqnr_db=_worst(found, "sqnr_db"),
        top1=_worst(found, "top1"),
        bytes=artifact.bytes,
        p50_ms=time.p50_ms if time else None,
        speedup=time.speedup if time else None,
    )


def _worst(checks: Iterable[Check], metric: str) -> float | None:
    values = [check.value for check in checks if check.metric == metric]
    return min((value for value in values if value is not None), default=None)
