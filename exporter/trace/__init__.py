"""Find the heads of a graph, from the unit axis of an output to the linear operations."""

from __future__ import annotations

from exporter.trace.tracer import Trace, heads_cut_together, trace, trace_axis, trace_recorded

__all__ = ["Trace", "heads_cut_together", "trace", "trace_axis", "trace_recorded"]
