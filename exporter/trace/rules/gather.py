"""Operations that select positions along an axis."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import Gather, GatherComputed, GatherConstant
from exporter.graph.walk import ancestors
from exporter.trace.rules.protocol import (
    FIRST_INPUT,
    FIRST_OUTPUT,
    Fact,
    Port,
    Reading,
    UnitsAt,
    Visit,
)


def gather(visit: Visit, operation: Gather) -> Iterator[Fact]:
    """The units may be the rows of a table of constants, or on another axis of any tensor.

    The rows are the vocabulary of a model whose inputs are token ids. Whether the ids follow a cut
    is checked when the cut is planned.
    """
    if len(visit.node.inputs) < 2:  # noqa: PLR2004 - the table is an attribute
        raise visit.refuse("its table is an attribute")
    axis, rank = operation.axis, len(visit.shape(Port("input", 1)))
    ends = {FIRST_INPUT: axis} | {Port("input", part.slot): part.axis for part in operation.along}
    if ends.get(visit.port) == visit.unit_axis.axis:
        inside = ancestors(visit.graph, [visit.tensor(FIRST_INPUT)])
        if not inside.isdisjoint(visit.graph.inputs):
            raise visit.refuse("it selects units by computed positions")
        yield Reading.LOOKUP
        for port, rows in ends.items():
            yield UnitsAt(port, visit.unit_axis.at(rows))
        if operation.width_attribute is not None:
            width = (len(visit.unit_axis.units),)
            yield visit.states(operation.width_attribute, width, None, port=FIRST_INPUT)
        return
    if visit.graph.tensors[visit.tensor(FIRST_INPUT)].is_constant:
        raise visit.refuse("there is no rule for it")
    moved = visit.unit_axis.axis
    if visit.port == FIRST_OUTPUT and moved >= axis + rank:
        moved -= rank - 1
    elif (visit.port == FIRST_OUTPUT and moved >= axis) or visit.port.slot or operation.along:
        raise visit.refuse("it selects rows at computed positions")
    yield UnitsAt(FIRST_INPUT, visit.unit_axis.at(moved), zero=0.0)
    yield UnitsAt(FIRST_OUTPUT, visit.unit_axis.at(moved + (rank - 1) * (moved > axis)))


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
