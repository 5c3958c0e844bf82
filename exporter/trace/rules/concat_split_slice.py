"""Operations that join parts of an axis, or take it apart.

Along the unit axis each part gets its share of the units. The walk does not enter a part that has
no unit: it stays as it is, whatever computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

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
        known = _joined(visit, [visit.tensor(port) for port in parts], ranges)
    elif (known.axis, len(known.units)) != (axis, stops[-1]):
        raise visit.refuse("the lengths of its parts do not add up to the length of the whole")
    yield UnitsAt(whole, known)
    yield Junction(visit.node, known, stops)
    for port, (start, stop) in zip(parts, ranges, strict=True):
        part = UnitAxis(axis, known.units[start:stop])
        if part.has_units or port == visit.port:  # of the visited one, to compare the units
            yield UnitsAt(port, part, zero=0.0)


def _joined(visit: Visit, parts: Iterable[str], ranges: Sequence[tuple[int, int]]) -> UnitAxis:
    """The units of the whole, from the parts whose units are known."""
    axis = visit.unit_axis.axis
    units = np.full(max(stop for _, stop in ranges), -1, np.int64)
    known = {**visit.known, visit.tensor(visit.port): visit.unit_axis}
    for name, (start, stop) in zip(parts, ranges, strict=True):
        part = known.get(name)
        if part is not None and (part.axis, len(part.units)) == (axis, stop - start):
            units[start:stop] = part.units
    return UnitAxis(axis, units)


def slice_(visit: Visit, operation: Slice) -> Iterator[Fact]:
    """A slice may select all units and drop other positions, or select other positions only."""
    axis, inward = visit.unit_axis.axis, visit.port.side == "input"
    whole, part = visit.width(FIRST_INPUT, axis), visit.width(FIRST_OUTPUT, axis)
    ranges = _slices_that_split(visit, axis)
    if ranges and (known := _split_units(visit, ranges)):
        yield from _split_off(visit, operation, known, ranges)
        return
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


def _slices_that_split(visit: Visit, axis: int) -> dict[str, tuple[int, int]]:
    """The ranges of the slices that together split the axis; empty if they overlap or leave gaps.

    Returns: result of each slice of the same tensor -> its range.
    """
    graph, tensor = visit.graph, visit.node.inputs[0]
    length, found = graph.shape(tensor)[axis] or 0, dict[str, tuple[int, int]]()
    for node, slot in graph.consumers.get(tensor, ()):
        if not isinstance(node.operation, Slice) or slot or axis not in node.operation.axes:
            continue
        result = node.outputs[0]
        shape = graph.tensors[result].shape
        start, step = _bound(node.operation, axis, length)
        part = shape[axis] if shape and axis < len(shape) else None
        if part and step == 1 and 0 <= start <= length - part and part < length:
            found[result] = start, start + part
    ranges = sorted(set(found.values()))
    stops = [0, *(stop for _, stop in ranges)]
    splits = stops[:-1] == [start for start, _ in ranges] and stops[-1] == length
    return found if splits and visit.node.outputs[0] in found else {}


def _split_units(visit: Visit, ranges: Mapping[str, tuple[int, int]]) -> UnitAxis | None:
    """The units of the tensor that slices split; None if at most one of its parts has units."""
    known = visit.unit_axis if visit.port == FIRST_INPUT else visit.known_axis(FIRST_INPUT)
    known = known or _joined(visit, ranges, list(ranges.values()))
    parts = set(ranges.values())
    with_units = sum(bool((known.units[start:stop] >= 0).any()) for start, stop in parts)
    return known if known.axis == visit.unit_axis.axis and with_units > 1 else None


def _split_off(
    visit: Visit, operation: Slice, whole: UnitAxis, ranges: Mapping[str, tuple[int, int]]
) -> Iterator[Fact]:
    """A slice takes one part of the units, and other slices of the same tensor the other parts."""
    axis, (start, stop) = whole.axis, ranges[visit.node.outputs[0]]
    part = UnitAxis(axis, whole.units[start:stop])
    yield UnitsAt(FIRST_INPUT, whole)
    yield Junction(visit.node, whole, tuple(sorted({stop for _, stop in ranges.values()})))
    if part.has_units or visit.port == FIRST_OUTPUT:
        yield UnitsAt(FIRST_OUTPUT, part)
    index = operation.axes.index(axis)
    stated = [(operation.start, operation.starts, start)]
    if not operation.counts and operation.stops[index] <= len(whole.units):
        stated.append((_stop_place(operation), operation.stops, stop))
    for place, value, position in stated:
        if place is not None:
            yield replace(visit.states(place, value, index, port=FIRST_INPUT), before=position)
    if operation.counts and operation.stops[index] != -1 and part.has_units:
        yield visit.states(_stop_place(operation) or 0, operation.stops, index)


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


def _bound(operation: Slice, axis: int, length: int) -> tuple[int, int]:
    """The first selected position, which may be stated from the end, and the step."""
    index = operation.axes.index(axis)
    start = operation.starts[index]
    return start + length if start < 0 else start, operation.steps[index]


def _stop_place(operation: Slice) -> int | str | None:
    return operation.slot if operation.slot is not None else operation.attribute
