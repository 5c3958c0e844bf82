"""Tensors of one shape that are joined along a new axis, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import Stack
from exporter.trace.rules.protocol import Fact, Port, UnitsAt, Visit


def stack(visit: Visit, operation: Stack) -> Iterator[Fact]:
    """All parts have the same units, on the same axis of the whole."""
    whole = "input" if operation.unstacks else "output"
    axis, new = visit.unit_axis.axis, operation.axis
    if visit.port.side == whole:
        if axis == new:
            raise visit.refuse("the positions of the axis are separate tensors, not units")
        axis -= axis > new
    yield UnitsAt(Port(whole, 0), visit.unit_axis.at(axis + (axis >= new)), zero=0.0)
    names = visit.node.outputs if operation.unstacks else visit.node.inputs
    for slot in range(len(names)):
        side = "output" if operation.unstacks else "input"
        yield UnitsAt(Port(side, slot), visit.unit_axis.at(axis), zero=0.0)
