"""Find the heads of a graph, from the unit axis of an output to the linear operations."""

from __future__ import annotations

from exporter.trace.found_heads import Trace
from exporter.trace.tracer import (
    heads_cut_together,
    trace,
    trace_axis,
    trace_recorded,
    with_gathered,
    with_offers,
)

__all__ = [
    "Trace",
    "heads_cut_together",
    "trace",
    "trace_axis",
    "trace_recorded",
    "with_gathered",
    "with_offers",
]
