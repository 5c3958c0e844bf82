"""The rule of reshapes: where labels stand when the same values have other axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.graph import Shape
from exporter.graph.operations import Reshape
from exporter.trace.head import UnitAxis
from exporter.trace.rules.protocol import Fact, Port, States, UnitsAt, Visit


def reshape(step: Visit) -> Iterator[Fact]:
    """The labels move with their positions; refused where they end up on more than one axis."""
    operation = step.node.operation
    assert isinstance(operation, Reshape)  # noqa: S101
    inward = step.port.side == "output"
    source, goal = (
        (Port("output", 0), Port("input", 0)) if inward else (Port("input", 0), Port("output", 0))
    )
    moved = _moved(step, operation, source, goal)
    if moved is None and any(None in step.shape(port)[1:] for port in (source, goal)):
        raise step.refuse(
            "not all lengths that it puts together are known before the model runs: fix them where "
            "the model is exported"
        )
    if moved is None:
        raise step.refuse("it spreads the units over several axes, or mixes them with the batch")
    yield UnitsAt(goal, moved, zero=0.0)
    out = step.unit_axis if inward else moved
    index = out.axis - operation.leading
    if operation.target is not None and operation.target[index] < _INFERRED:
        raise step.refuse("the length of its unit axis is computed while the model runs")
    if operation.target is not None and operation.target[index] > 0:
        for place in (operation.slot, operation.attribute):
            if place is not None:
                yield States(place, operation.target, index)
        if operation.origins and (origin := operation.origins[index]) is not None:
            yield States(origin.slot, origin.value, origin.entry, node=origin.node)


_INFERRED = -1


def _moved(step: Visit, operation: Reshape, source: Port, goal: Port) -> UnitAxis | None:
    """Where the labels stand; where lengths behind them are not known, counted from the front."""
    shapes = step.shape(source), step.shape(goal)
    moved = move_labels(step.unit_axis, *shapes)
    inferred = operation.target is not None and operation.target[:1] == (_INFERRED,)
    if moved is None and not operation.leading and not inferred and step.unit_axis.axis > 0:
        moved = move_from_front(step.unit_axis, *shapes)
    return moved


def move_labels(labels: UnitAxis, source: Shape, goal: Shape) -> UnitAxis | None:
    """Where labels on an axis of a tensor stand after a reshape, or None if on no single axis.

    Both shapes are walked from the back in blocks of equal size; only the block that holds the
    axis matters, so that an unknown batch in front does no harm.
    """
    stop_source, stop_goal = len(source), len(goal)
    while True:
        start_source, start_goal = _block(source, goal, stop_source, stop_goal)
        if start_source is None or start_goal is None:
            return None
        if start_source <= labels.axis:
            block = [n or 0 for n in source[start_source:stop_source]]
            wanted = [n or 0 for n in goal[start_goal:stop_goal]]
            moved = _move_in_block(labels.at(labels.axis - start_source), block, wanted)
            return moved.at(moved.axis + start_goal) if moved else None
        stop_source, stop_goal = start_source, start_goal


def _block(source: Shape, goal: Shape, i: int, j: int) -> tuple[int | None, int | None]:
    """The fronts of the smallest blocks of one size that end at i and j."""
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


def _move_in_block(labels: UnitAxis, source: list[int], goal: list[int]) -> UnitAxis | None:
    along = [1] * len(source)
    along[labels.axis] = -1
    spread = np.broadcast_to(labels.units.reshape(along), source).reshape(goal)
    varies = [
        axis
        for axis in range(len(goal))
        if goal[axis] > 1 and (spread != np.take(spread, [0], axis=axis)).any()
    ]
    if len(varies) != 1:
        return None
    axis = varies[0]
    index: list[int | slice] = [0] * len(goal)
    index[axis] = slice(None)
    return UnitAxis(axis, np.array(spread[tuple(index)]))


def move_from_front(labels: UnitAxis, source: Shape, goal: Shape) -> UnitAxis | None:
    """The same where lengths behind the axis are not known: both shapes are walked from the front.

    The first axis is the batch in both, and stays.
    """
    if not goal or (None not in (source[0], goal[0]) and source[0] != goal[0]):
        return None
    i = j = 1
    while True:
        left = _block(source[i:][::-1], goal[j:][::-1], len(source) - i, len(goal) - j)
        if left[0] is None or left[1] is None:
            return None
        stop_i, stop_j = len(source) - left[0], len(goal) - left[1]
        if labels.axis < stop_i:
            block, wanted = ([n or 0 for n in each] for each in (source[i:stop_i], goal[j:stop_j]))
            moved = _move_in_block(labels.at(labels.axis - i), block, wanted)
            return moved.at(moved.axis + j) if moved else None
        i, j = stop_i, stop_j
