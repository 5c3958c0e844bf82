"""Operations that select positions along an axis."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import GatherComputed, GatherConstant
from exporter.trace.rules.protocol import (
    FIRST_INPUT,
    FIRST_OUTPUT,
    Fact,
    Port,
    Reading,
    UnitsAt,
    Visit,
)


def gather_constant(visit: Visit, operation: GatherConstant) -> Iterator[Fact]:
    """Positions that the file states may be selected only along another axis."""
    dropped = not operation.keepdims
    axis = visit.unit_axis.axis
    if visit.port.side == "output" and dropped and axis >= operation.axis:
        axis += 1
    if axis == operation.axis:
        raise visit.refuse("it selects units by position")
    yield UnitsAt(FIRST_INPUT, visit.unit_axis.at(axis), zero=0.0)
    yield UnitsAt(FIRST_OUTPUT, visit.unit_axis.at(axis - (dropped and axis > operation.axis)))


def gather_computed(visit: Visit, operation: GatherComputed) -> Iterator[Fact]:
    """Positions along the unit axis are allowed if a post-process computes them: the walk over
    unit indices checks that.
    """
    if operation.axis is not None and visit.unit_axis.axis != operation.axis:
        for port in (FIRST_OUTPUT, FIRST_INPUT, Port("input", 1)):
            yield UnitsAt(port, visit.unit_axis)
    elif visit.port == FIRST_INPUT:
        yield Reading.GATHER
    else:
        raise visit.refuse("it selects units by computed positions")
