"""Operations that repeat values, and constants that the file states as a shape."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import ConstantOfShape, Expand
from exporter.trace.rules.protocol import FIRST_INPUT, FIRST_OUTPUT, Fact, UnitsAt, Visit
from exporter.trace.rules.runtime_width import is_width


def expand(visit: Visit, operation: Expand) -> Iterator[Fact]:
    """The output may have more axes than the input, before those of the input."""
    more = len(visit.shape(FIRST_OUTPUT)) - len(visit.shape(FIRST_INPUT))
    axis = visit.unit_axis.axis + (more if visit.port.side == "input" else 0)
    if axis in operation.grown:
        yield from _repeat(visit, operation, axis - more)
        return
    yield UnitsAt(FIRST_INPUT, visit.unit_axis.at(axis - more), zero=0.0)
    yield UnitsAt(FIRST_OUTPUT, visit.unit_axis.at(axis))
    target, slot = operation.target, operation.slot
    if target is not None and slot is not None and target[axis] == len(visit.unit_axis.units):
        yield visit.states(slot, target, axis)


def _repeat(visit: Visit, operation: Expand, input_axis: int) -> Iterator[Fact]:
    """One value may be repeated for each unit, as often as the file states or measures."""
    single = input_axis < 0 or visit.shape(FIRST_INPUT)[input_axis] == 1
    target, slot = operation.target, operation.slot
    stated = target is not None and slot is not None
    measured = operation.computed and is_width(visit.graph, visit.node.inputs[1], visit.known)
    if visit.port.side == "input" or not single or not (stated or measured):
        raise visit.refuse("it repeats or pads the units")
    yield UnitsAt(FIRST_OUTPUT, visit.unit_axis)
    if target is not None and slot is not None:
        yield visit.states(slot, target, visit.unit_axis.axis)


def constant_of_shape(visit: Visit, operation: ConstantOfShape) -> Iterator[Fact]:
    yield visit.states(operation.slot, operation.shape, visit.unit_axis.axis)
