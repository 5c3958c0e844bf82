"""Report, Artifact, Check, Latency and other plain data, below everything that fills them."""

from exporter.records.report import Report, precision_rows
from exporter.records.rows import (
    Artifact,
    Check,
    Coverage,
    FirstDifference,
    Interface,
    Interval,
    Latency,
    Memory,
    MemoryVerdict,
    Original,
    PrecisionRow,
    Proof,
    Quality,
    SelectedUnit,
    TimeBasis,
    Verdict,
    WorstCase,
)

__all__ = [
    "Artifact",
    "Check",
    "Coverage",
    "FirstDifference",
    "Interface",
    "Interval",
    "Latency",
    "Memory",
    "MemoryVerdict",
    "Original",
    "PrecisionRow",
    "Proof",
    "Quality",
    "Report",
    "SelectedUnit",
    "TimeBasis",
    "Verdict",
    "WorstCase",
    "precision_rows",
]
