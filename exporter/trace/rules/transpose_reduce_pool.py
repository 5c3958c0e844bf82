"""Operations that reorder the axes of a tensor, or mix the positions along some of them."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import NonMaxSuppression, Pool, Reduce, TopK, Transpose
from exporter.graph.walk import dependents
from exporter.trace.rules.protocol import (
    FIRST_INPUT,
    FIRST_OUTPUT,
    Fact,
    Port,
    Reading,
    UnitsAt,
    Visit,
)


def transpose(visit: Visit, operation: Transpose) -> Iterator[Fact]:
    axis, permutation = visit.unit_axis.axis, operation.permutation
    if visit.port.side == "output":
        yield UnitsAt(FIRST_INPUT, visit.unit_axis.at(permutation[axis]), zero=0.0)
    else:
        yield UnitsAt(FIRST_OUTPUT, visit.unit_axis.at(permutation.index(axis)))


def reduce(visit: Visit, operation: Reduce) -> Iterator[Fact]:
    """The unit axis passes if it is not reduced. The maximum over the units ranks them."""
    maximum = operation.function == "max" and operation.axes == (visit.unit_axis.axis,)
    if maximum and visit.port.side == "input":
        yield Reading.MAXIMUM if _ranks_boxes(visit) else Reading.RANKING
    else:
        yield from _outside(visit, operation.axes, keepdims=operation.keepdims)


def pool(visit: Visit, operation: Pool) -> Iterator[Fact]:
    yield from _outside(visit, operation.axes, keepdims=True)


def top_k(visit: Visit, operation: TopK) -> Iterator[Fact]:
    """Along the unit axis it ranks the units; along another axis it returns ranks for each unit."""
    ranked = visit.unit_axis.axis == operation.axis
    if visit.port.side == "input" and ranked:
        yield Reading.RANKING
        return
    if visit.port.side == "output" and operation.keepdims and ranked:
        raise visit.refuse("the positions of its results are ranks, not units")
    units_in, units_out = _outside(visit, (operation.axis,), keepdims=operation.keepdims)
    yield units_in
    for slot, name in enumerate(visit.node.outputs):
        if name:
            yield UnitsAt(Port("output", slot), units_out.unit_axis)


def _outside(visit: Visit, mixed: tuple[int, ...], *, keepdims: bool) -> Iterator[UnitsAt]:
    """The unit axis of the input, then of the output, of a node that mixes other axes."""
    others = [axis for axis in range(len(visit.shape(FIRST_INPUT))) if axis not in mixed]
    axis = visit.unit_axis.axis
    if visit.port.side == "output" and not keepdims:
        axis = others[axis]
    if axis not in others:
        raise visit.refuse("it mixes the units")
    yield UnitsAt(FIRST_INPUT, visit.unit_axis.at(axis), zero=0.0)
    yield UnitsAt(FIRST_OUTPUT, visit.unit_axis.at(axis if keepdims else others.index(axis)))


def _ranks_boxes(visit: Visit) -> bool:
    """Does a TopK or a post-process rank boxes by the results of the node?"""
    computed = dependents(visit.graph, visit.node.outputs)
    for node in visit.graph.nodes:
        match node.operation:
            case TopK() if node.inputs[0] in computed:
                return True
            case NonMaxSuppression(classes=slot) if node.inputs[slot] in computed:
                return True
    return False
