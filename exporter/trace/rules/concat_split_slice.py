"""Operations that join parts of an axis, or take it apart.

Along the unit axis each part gets its share of the units. The walk does not enter a part that has
no unit: it stays as it is, whatever computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np

from exporter.graph import Array
from exporter.graph.operations import Concat, Slice, Split
from exporter.trace.rules.protocol import FIRST_INPUT, FIRST_OUTPUT, Fact, Port, UnitsAt, Visit
from exporter.trace.unit_axis import Junction, UnitAxis, Width

_BY_POSITION = "it selects units by position"


def concat(visit: Visit, operation: Concat) -> Iterator[Fact]:
    parts = [Port("input", slot) for slot in range(len(visit.node.inputs))]
    if visit.unit_axis.axis == operation.axis:
        yield from _along(visit, FIRST_OUTPUT, parts)
    else:
        yield from _across(visit, [FIRST_OUTPUT, *parts])


def split(visit: Visit, operation: Split) -> Iterator[Fact]:
    parts = [Port("output", slot) for slot in range(len(visit.node.outputs))]
    if visit.unit_axis.axis != operation.axis:
        yield from _across(visit, [FIRST_INPUT, *parts])
        return
    place = operation.slot if operation.slot is not None else operation.attribute
    if operation.sizes is None or place is None:
        raise visit.refuse("it splits the units into equal parts")
    for fact in _along(visit, FIRST_INPUT, parts):
        yield fact
        if isinstance(fact, UnitsAt) and fact.port.side == "output":
            yield visit.states(place, operation.sizes, fact.port.slot, port=fact.port)


def _across(visit: Visit, ports: list[Port]) -> Iterator[UnitsAt]:
    """All inputs and outputs have the same units."""
    for port in ports:
        yield UnitsAt(port, visit.unit_axis, zero=0.0)


def _along(visit: Visit, whole: Port, parts: list[Port]) -> Iterator[Fact]:
    """Each part has the units of its range of the whole."""
    axis = visit.unit_axis.axis
    stops = tuple(accumulate(visit.width(port, axis) for port in parts))
    ranges = list(pairwise((0, *stops)))
    known = visit.unit_axis if visit.port == whole else visit.known_axis(whole)
    if known is None:
        known = UnitAxis(axis, _joined(visit, parts, ranges))
    elif (known.axis, len(known.units)) != (axis, stops[-1]):
        raise visit.refuse("the lengths of its parts do not add up to the length of the whole")
    yield UnitsAt(whole, known)
    yield Junction(visit.node, known, stops)
    for port, (start, stop) in zip(parts, ranges, strict=True):
        part = UnitAxis(axis, known.units[start:stop])
        if part.has_units or port == visit.port:  # of the visited one, to compare the units
            yield UnitsAt(port, part, zero=0.0)


def _joined(visit: Visit, parts: list[Port], ranges: list[tuple[int, int]]) -> Array:
    """The units of the whole, from the parts whose units are known."""
    units = np.full(ranges[-1][1], -1, np.int64)
    for port, (start, stop) in zip(parts, ranges, strict=True):
        known = visit.unit_axis if port == visit.port else visit.known_axis(port)
        expected = visit.unit_axis.axis, stop - start
        if known is not None and (known.axis, len(known.units)) == expected:
            units[start:stop] = known.units
    return units


def slice_(visit: Visit, operation: Slice) -> Iterator[Fact]:
    """A slice may select all units and drop other positions, or select other positions only."""
    axis, inward = visit.unit_axis.axis, visit.port.side == "input"
    whole, part = visit.width(FIRST_INPUT, axis), visit.width(FIRST_OUTPUT, axis)
    first = _first(operation, axis, whole, part)
    if first is None:
        raise visit.refuse(_BY_POSITION)
    inside = slice(first, first + part)
    if inward and not (visit.unit_axis.units[inside] >= 0).any():
        yield from _without_units(visit, operation, first, first + part)
        return
    units = np.full(whole, -1, np.int64)
    units[inside] = visit.unit_axis.units[inside if inward else slice(None)]
    if inward and not np.array_equal(units, visit.unit_axis.units):
        raise visit.refuse(_BY_POSITION)
    yield UnitsAt(FIRST_INPUT, UnitAxis(axis, units))
    yield UnitsAt(FIRST_OUTPUT, UnitAxis(axis, units[inside]))
    if axis in operation.axes:
        index, place = operation.axes.index(axis), _stop_place(operation)
        start = 0 if operation.counts else first
        if place is not None and operation.stops[index] == start + part:
            yield visit.states(place, operation.stops, index, offset=start)


def _without_units(visit: Visit, operation: Slice, first: int, stop: int) -> Iterator[Width]:
    """Values after the units: their position depends on the number of units.

    A start or stop that is counted from the end of the axis stays as it is.
    """
    axis, units = visit.unit_axis.axis, visit.unit_axis.units
    if not (units[:first] >= 0).any() or axis not in operation.axes:
        return
    if (units[stop:] >= 0).any():
        raise visit.refuse("it selects values between units by position")
    index, width = operation.axes.index(axis), len(units)
    if operation.start is not None and operation.starts[index] == first:
        yield visit.states(operation.start, operation.starts, index, first - width, FIRST_INPUT)
    place = _stop_place(operation)
    if place is not None and not operation.counts and operation.stops[index] == stop:
        yield visit.states(place, operation.stops, index, stop - width, FIRST_INPUT)


def _first(operation: Slice, axis: int, whole: int, part: int) -> int | None:
    """The first selected position; None where it is counted from the end, or positions skipped."""
    if axis not in operation.axes:
        return 0
    index = operation.axes.index(axis)
    start, step = operation.starts[index], operation.steps[index]
    if step == 1 and part == whole:
        return 0
    return start if step == 1 and 0 <= start <= whole - part else None


def _stop_place(operation: Slice) -> int | str | None:
    return operation.slot if operation.slot is not None else operation.attribute
