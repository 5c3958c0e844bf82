"""Find the heads of a graph: follow each output's unit axis back to the operations that make it."""

from __future__ import annotations

from exporter.trace.tracer import Trace, heads_beside, trace, trace_axis, trace_recorded

__all__ = ["Trace", "heads_beside", "trace", "trace_axis", "trace_recorded"]
