"""Tensors of one shape that are joined along a new axis, and the reverse."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import Stack
from exporter.trace.rules.protocol import FIRST_INPUT, FIRST_OUTPUT, Fact, UnitsAt, Visit

_PORTS = {False: (FIRST_OUTPUT, FIRST_INPUT), True: (FIRST_INPUT, FIRST_OUTPUT)}
"""Does a node unstack -> the whole, and the first part."""


def stack(visit: Visit, operation: Stack) -> Iterator[Fact]:
    """All parts have the same units, on the same axis of the whole."""
    whole, part = _PORTS[operation.unstacks]
    axis, new = visit.unit_axis.axis, operation.axis
    if visit.port.side == whole.side:
        if axis == new:
            raise visit.refuse("the positions of the axis are separate tensors, not units")
        axis -= axis > new
    yield UnitsAt(whole, visit.unit_axis.at(axis + (axis >= new)), zero=0.0)
    names = visit.node.outputs if operation.unstacks else visit.node.inputs
    for slot in range(len(names)):
        yield UnitsAt(part._replace(slot=slot), visit.unit_axis.at(axis), zero=0.0)
