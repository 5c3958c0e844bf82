"""The rules of what joins parts of an axis, or takes an axis apart.

Along the unit axis the labels are split where the parts meet. A part in which no position belongs
to a unit is not entered: it stays as it is, whatever makes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np

from exporter.graph import Array
from exporter.graph.operations import Concat, Slice, Split
from exporter.trace.head import UnitAxis
from exporter.trace.rules.protocol import Fact, Parts, Port, States, UnitsAt, Visit

_IN, _OUT = Port("input", 0), Port("output", 0)


def concat(step: Visit) -> Iterator[Fact]:
    operation = step.node.operation
    assert isinstance(operation, Concat)  # noqa: S101 - narrows the type; RULES guarantees it
    parts = [Port("input", slot) for slot in range(len(step.node.inputs))]
    if step.unit_axis.axis == operation.axis:
        yield from _apart(step, _OUT, parts)
    else:
        yield from _alike(step, [_OUT, *parts])


def split(step: Visit) -> Iterator[Fact]:
    operation = step.node.operation
    assert isinstance(operation, Split)  # noqa: S101
    parts = [Port("output", slot) for slot in range(len(step.node.outputs))]
    if step.unit_axis.axis != operation.axis:
        yield from _alike(step, [_IN, *parts])
        return
    place = operation.slot if operation.slot is not None else operation.attribute
    if operation.sizes is None or place is None:
        raise step.refuse("it splits the units into equal parts")
    for fact in _apart(step, _IN, parts):
        yield fact
        if isinstance(fact, UnitsAt) and fact.port.side == "output":
            slot = fact.port.slot
            yield States(place, operation.sizes, slot, output=slot)


def _alike(step: Visit, ports: list[Port]) -> Iterator[UnitsAt]:
    """All ends run along the same units."""
    for port in ports:
        yield UnitsAt(port, step.unit_axis, zero=0.0)


def _apart(step: Visit, whole: Port, parts: list[Port]) -> Iterator[Fact]:
    axis = step.unit_axis.axis
    stops = tuple(accumulate(step.width(port, axis) for port in parts))
    bounds = list(pairwise((0, *stops)))
    known = step.unit_axis if step.port == whole else step.label(whole)
    if known is None:
        known = UnitAxis(axis, _together(step, parts, bounds))
    elif (known.axis, len(known.units)) != (axis, stops[-1]):
        raise step.refuse("its parts do not make up the whole")
    yield UnitsAt(whole, known)
    yield Parts(known, stops)
    for port, (start, stop) in zip(parts, bounds, strict=True):
        units = known.units[start:stop]
        if (units >= 0).any():
            yield UnitsAt(port, UnitAxis(axis, units), zero=0.0)


def _together(step: Visit, parts: list[Port], bounds: list[tuple[int, int]]) -> Array:
    """The labels of a whole, out of those that its parts have by now."""
    units = np.full(bounds[-1][1], -1, np.int64)
    for port, (start, stop) in zip(parts, bounds, strict=True):
        labels = step.unit_axis if port == step.port else step.label(port)
        if labels is not None and (labels.axis, len(labels.units)) == (
            step.unit_axis.axis,
            stop - start,
        ):
            units[start:stop] = labels.units
    return units


def slice_(step: Visit) -> Iterator[Fact]:
    """Only what belongs to no unit may be cut off by its place, or taken by it."""
    operation = step.node.operation
    assert isinstance(operation, Slice)  # noqa: S101
    axis = step.unit_axis.axis
    whole, part = step.width(_IN, axis), step.width(_OUT, axis)
    first = _first(operation, axis, whole, part)
    if first is None:
        raise step.refuse("it takes units by their place")
    inside = slice(first, first + part)
    if step.port.side == "input" and not (step.unit_axis.units[inside] >= 0).any():
        yield from _past(step, operation, first, first + part)
        return
    units = np.full(whole, -1, np.int64)
    units[inside] = step.unit_axis.units[inside if step.port.side == "input" else slice(None)]
    if step.port.side == "input" and not np.array_equal(units, step.unit_axis.units):
        raise step.refuse("it takes units by their place")
    yield UnitsAt(_IN, UnitAxis(axis, units))
    yield UnitsAt(_OUT, UnitAxis(axis, units[inside]))
    if axis in operation.axes:
        start = 0 if operation.counts else first
        yield from _stop(operation, operation.axes.index(axis), start + part, start)


def _past(step: Visit, operation: Slice, first: int, stop: int) -> Iterator[Fact]:
    """What shares the axis with the units is taken: behind them its place moves with their number.

    Where there are units on one side of it alone, its place counts from the other end.
    """
    axis, units = step.unit_axis.axis, step.unit_axis.units
    if not (units[:first] >= 0).any() or axis not in operation.axes:
        return
    if (units[stop:] >= 0).any():
        raise step.refuse("it takes what stands between units by its place")
    index, width = operation.axes.index(axis), len(units)
    if operation.start is not None and operation.starts[index] == first:
        yield States(operation.start, operation.starts, index, first - width, input=0)
    place = operation.slot if operation.slot is not None else operation.attribute
    if place is not None and not operation.counts and operation.stops[index] == stop:
        yield States(place, operation.stops, index, stop - width, input=0)


def _first(operation: Slice, axis: int, whole: int, part: int) -> int | None:
    """The first position that a slice takes; None where that is stated in no simple way."""
    if axis not in operation.axes:
        return 0
    index = operation.axes.index(axis)
    start, step = operation.starts[index], operation.steps[index]
    if step == 1 and part == whole:
        return 0
    return start if step == 1 and 0 <= start <= whole - part else None


def _stop(operation: Slice, index: int, stop: int, start: int) -> Iterator[States]:
    """A stop that counts from the front moves with the width; others mean the same as before."""
    place = operation.slot if operation.slot is not None else operation.attribute
    if place is not None and operation.stops[index] == stop:
        yield States(place, operation.stops, index, offset=start)
