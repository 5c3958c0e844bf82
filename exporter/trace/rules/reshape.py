"""Reshapes: the unit axis after the same values get another shape.

For example, (batch, 12) with the units 0 0 0 0 1 1 1 1 2 2 2 2 becomes (batch, 3, 4) with the units
0 1 2 on axis 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.graph import Shape
from exporter.graph.operations import Reshape
from exporter.trace.rules.protocol import FIRST_INPUT, FIRST_OUTPUT, Fact, Port, UnitsAt, Visit
from exporter.trace.unit_axis import UnitAxis, Width

_INFERRED = -1  # entry of a target shape


def reshape(visit: Visit, operation: Reshape) -> Iterator[Fact]:
    """The units follow their positions; refused where they end up on more than one axis."""
    backward = visit.port.side == "output"
    start, end = (FIRST_OUTPUT, FIRST_INPUT) if backward else (FIRST_INPUT, FIRST_OUTPUT)
    moved = _moved(visit, operation, start, end)
    if moved is None and any(None in visit.shape(port)[1:] for port in (start, end)):
        raise visit.refuse(
            "some lengths that it combines are known only at run time: export the model with fixed "
            "lengths"
        )
    if moved is None:
        raise visit.refuse("it spreads the units over several axes, or mixes them with the batch")
    yield UnitsAt(end, moved, zero=0.0)
    yield from _stated(visit, operation, visit.unit_axis if backward else moved)


def _stated(visit: Visit, operation: Reshape, result: UnitAxis) -> Iterator[Width]:
    """The places in the file that state the length of the result's unit axis."""
    index, target = result.axis - operation.leading, operation.target
    if target is None:
        return
    if target[index] < _INFERRED:
        raise visit.refuse("the length of its unit axis is computed while the model runs")
    if target[index] > 0:
        for place in (operation.slot, operation.attribute):
            if place is not None:
                yield visit.states(place, target, index)
        if operation.origins and (source := operation.origins[index]) is not None:
            (node,) = (each for each in visit.graph.nodes if each.name == source.node)
            constant, tensor = node.inputs[source.slot], visit.tensor(FIRST_OUTPUT)
            yield Width(node.name, source.slot, constant, source.value, source.entry, tensor)


def _moved(visit: Visit, operation: Reshape, start: Port, end: Port) -> UnitAxis | None:
    """The unit axis of `end`. Axes are counted from the front where later lengths are unknown."""
    shapes = visit.shape(start), visit.shape(end)
    moved = move_unit_axis(visit.unit_axis, *shapes)
    inferred = operation.target is not None and operation.target[:1] == (_INFERRED,)
    if moved is None and not operation.leading and not inferred and visit.unit_axis.axis > 0:
        moved = move_from_front(visit.unit_axis, *shapes)
    return moved


def move_unit_axis(unit_axis: UnitAxis, source: Shape, goal: Shape) -> UnitAxis | None:
    """The unit axis after a reshape from one shape to another; None if on no single axis.

    Both shapes are divided, from the last axis on, into blocks of equal size. Only the block that
    contains the axis matters, so that the batch may be unknown.
    """
    stop_source, stop_goal = len(source), len(goal)
    while True:
        start_source, start_goal = _block(source, goal, stop_source, stop_goal)
        if start_source is None or start_goal is None:
            return None
        if start_source <= unit_axis.axis:
            ranges = (start_source, stop_source), (start_goal, stop_goal)
            return _move_in_block(unit_axis, source, goal, ranges)
        stop_source, stop_goal = start_source, start_goal


def _block(source: Shape, goal: Shape, i: int, j: int) -> tuple[int | None, int | None]:
    """The starts of the smallest blocks of equal size that end at i and j."""
    size_source = size_goal = 1
    taken = False
    while not taken or size_source != size_goal:
        if size_source <= size_goal and i > 0:
            i -= 1
            length = source[i]
            if length is None:
                return None, None
            size_source *= length
        elif j > 0:
            j -= 1
            length = goal[j]
            if length is None:
                return None, None
            size_goal *= length
        else:
            return None, None
        taken = True
    return i, j


_Range = tuple[int, int]


def _move_in_block(
    unit_axis: UnitAxis, source: Shape, goal: Shape, ranges: tuple[_Range, _Range]
) -> UnitAxis | None:
    """The unit axis in the block of the goal, if the units differ along one of its axes only."""
    (start, stop), (start_goal, stop_goal) = ranges
    block = [n or 0 for n in source[start:stop]]
    along = [1] * len(block)
    along[unit_axis.axis - start] = -1
    wanted = [n or 0 for n in goal[start_goal:stop_goal]]
    units = np.broadcast_to(unit_axis.units.reshape(along), block).reshape(wanted)
    varies = [
        axis
        for axis, length in enumerate(wanted)
        if length > 1 and (units != np.take(units, [0], axis=axis)).any()
    ]
    if len(varies) != 1:
        return None
    axis = varies[0]
    index: list[int | slice] = [0] * len(wanted)
    index[axis] = slice(None)
    return UnitAxis(start_goal + axis, np.array(units[tuple(index)]))


def move_from_front(unit_axis: UnitAxis, source: Shape, goal: Shape) -> UnitAxis | None:
    """As `move_unit_axis`, with blocks from the first axis on, for unknown lengths after the axis.

    The first axis is the batch in both shapes, and must not change.
    """
    if not goal or (None not in (source[0], goal[0]) and source[0] != goal[0]):
        return None
    i = j = 1
    while True:
        rest = _block(source[i:][::-1], goal[j:][::-1], len(source) - i, len(goal) - j)
        if rest[0] is None or rest[1] is None:
            return None
        stop_i, stop_j = len(source) - rest[0], len(goal) - rest[1]
        if unit_axis.axis < stop_i:
            return _move_in_block(unit_axis, source, goal, ((i, stop_i), (j, stop_j)))
        i, j = stop_i, stop_j
