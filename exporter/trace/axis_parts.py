"""Which positions of an axis are classes, where a detector's output contains other values too.

A detector returns one row for each box, and the classes are a range of that row. Each range of the
axis that is computed in one way (a piece) is followed backward to the node that joins it or splits
it off. The classes are:

1. All positions after the background, where a post-process reads the axis as its classes.
2. The piece with as many positions as there are labels.
3. The third of three pieces of one tensor, without its first position: x and y, width and height,
   then objectness and classes (YOLOv3 to v7).
4. The only piece that ends in a sigmoid or softmax (YOLOv8 and later); or the second of two, if the
   first has one position: objectness (YOLOX).

Where the axis is one piece, its channels repeat for each anchor, and no activation follows, it may
contain anything (raw maps): labels decide, or another output that contains the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from exporter.graph import Graph, Shape
from exporter.graph.operations import (
    Activation,
    Concat,
    Elementwise,
    Linear,
    NonMaxSuppression,
    Reshape,
    Slice,
    Split,
)
from exporter.graph.walk import applies, origin, through
from exporter.trace.head import AxisPart
from exporter.trace.rules import RULES
from exporter.trace.rules.protocol import Port, Refused, UnitsAt, Visit
from exporter.trace.unit_axis import UnitAxis

_BOX = 4  # coordinates
_ROWS = 3  # axes of a tensor with rows: batch, boxes, values
_CLASS_ACTIVATIONS = ("sigmoid", "softmax")


class Undecided(Refused):
    """The units share the axis with other values, and the model does not show their positions."""


@dataclass(frozen=True)
class _Piece:
    """A range of the axis that is computed in one way, and the nodes on that way.

    Attributes:
        activation: the last activation, "" if there is none.
        plain: between the activation and the axis, values are only moved.
        linear: the way ends in the output channels of a linear operation.
        from_map: it ends in a reshape of several axes: positions of a feature map.
        repeats: each position has several of those channels.
        source, offset: the tensor from which the piece is split off, and its first position there;
            "" if it is not split off.
    """

    start: int
    stop: int
    activation: str = ""
    plain: bool = True
    linear: bool = False
    from_map: bool = False
    repeats: bool = False
    source: str = ""
    offset: int = 0

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def may_be_classes(self) -> bool:
        return self.linear and self.plain and self.activation in _CLASS_ACTIVATIONS


def find_axis_parts(graph: Graph, tensor: str, axis: int) -> tuple[AxisPart, ...]:
    """The parts of an axis, one of them the classes; empty if all positions are units.

    Raises:
        Undecided: other values share the axis, and the model does not show which ones.
    """
    shape = graph.shape(tensor)
    width = shape[axis] or 0
    for node, slot in graph.consumers.get(tensor, ()):
        match node.operation:
            case NonMaxSuppression(classes=classes, axis=along, background=first):
                if (slot, axis) == (classes, along):
                    return _named(width, first, width, "background")
    if len(shape) < _ROWS:
        return ()
    labels = len(graph.labels.get(tensor, ()))
    every = UnitAxis(axis, np.arange(width, dtype=np.int64))
    pieces = sorted(_pieces(graph, tensor, every), key=lambda piece: piece.start)
    if len(pieces) > 1:
        return _of_pieces(pieces, width, labels)
    return _of_channels(pieces[0], width, labels, boxes_elsewhere(graph, tensor, axis))


def are_channels(graph: Graph, tensor: str, axis: int) -> bool:
    """Are some positions of an axis output channels of a linear operation?"""
    width = graph.shape(tensor)[axis] or 0
    every = UnitAxis(axis, np.arange(width))
    return bool(width) and any(piece.linear for piece in _pieces(graph, tensor, every))


def stated_axis_parts(shape: Shape, axis: int, units: tuple[int, int]) -> tuple[AxisPart, ...]:
    """The parts of an axis, with the range of the units that the user gave.

    Raises:
        Refused: the range is not on the axis.
    """
    width, (start, stop) = shape[axis] or 0, units
    if not 0 <= start < stop <= width:
        raise Refused(None, f"axis {axis} has {width} positions, not {start} to {stop - 1}")
    return _filled([AxisPart("classes", start, stop)], width)


def _of_pieces(pieces: list[_Piece], width: int, labels: int) -> tuple[AxisPart, ...]:
    separate = any(piece.stop == _BOX or not (piece.linear and piece.plain) for piece in pieces)
    if not separate or not any(piece.linear for piece in pieces) or _are_maps(pieces):
        return ()
    labeled = [piece for piece in pieces if piece.width == labels]
    if len(labeled) == 1:
        return _named(width, labeled[0].start, labeled[0].stop)
    if _is_yolo_row(pieces) and (not labels or pieces[2].width == labels + 1):
        return _named(width, _BOX + 1, pieces[2].stop)
    match [piece for piece in pieces if piece.may_be_classes]:
        case [classes] if len(pieces) > 1:
            return _named(width, classes.start, classes.stop)
        case [objects, classes] if len(pieces) > 2:  # noqa: PLR2004 - more than these two
            if objects.width == 1 and objects.stop == classes.start:
                return _named(width, classes.start, classes.stop)
    listed = ", ".join(f"{piece.start}:{piece.stop}" for piece in pieces)
    raise Undecided(
        None,
        f"its axis has the parts {listed}, and the model does not show which of them are the "
        "classes: give --units A:B",
    )


def _are_maps(pieces: list[_Piece]) -> bool:
    """Are the pieces feature maps of different sizes that are joined?

    A map with a single position has its anchors in its channels.
    """
    channels = [piece for piece in pieces if piece.linear]
    maps = [piece for piece in pieces if piece.from_map]
    alike = len({piece.activation for piece in pieces}) == 1 and all(p.repeats for p in channels)
    return alike and bool(maps) and len(channels) + len(maps) == len(pieces)


def _is_yolo_row(pieces: list[_Piece]) -> bool:
    """Case 3."""
    first = [(piece.start, piece.stop) for piece in pieces[:2]]
    if len(pieces) <= 2 or first != [(0, 2), (2, 4)]:  # noqa: PLR2004 - x, y and w, h
        return False
    rest = pieces[2]
    return rest.may_be_classes and rest.offset == _BOX and rest.width > 1


def _of_channels(piece: _Piece, width: int, labels: int, elsewhere: bool) -> tuple[AxisPart, ...]:
    raw = piece.linear and piece.repeats and not piece.activation
    if not raw or labels == width or elsewhere:
        return ()
    if labels and width == _BOX + 1 + labels:
        return _named(width, _BOX + 1, width)
    raise Undecided(
        None,
        f"its {width} values for each anchor may be only classes, or boxes and objectness too: "
        f"give --units A:B, --units 0:{width} for all of them",
    )


def boxes_elsewhere(graph: Graph, tensor: str, axis: int) -> bool:
    """Has another output four coordinates for each row of a tensor?"""
    shape = graph.shape(tensor)
    if len(shape) < _ROWS or None in shape[1:]:
        return False
    rows = prod(n or 0 for i, n in enumerate(shape) if i not in {0, axis})
    shapes = [graph.shape(name)[1:] for name in graph.outputs if name != tensor]
    return any(_BOX in each and prod(n or 0 for n in each) == rows * _BOX for each in shapes)


def _named(width: int, start: int, stop: int, before: str = "box") -> tuple[AxisPart, ...]:
    """The parts: a box first; a single position between box and classes is objectness."""
    parts = [AxisPart("classes", start, stop)]
    if before == "background" and start:
        parts.insert(0, AxisPart(before, 0, start))
    elif before == "box" and start >= _BOX:
        parts.insert(0, AxisPart("box", 0, _BOX))
        if start == _BOX + 1:
            parts.insert(1, AxisPart("object", _BOX, start))
    return _filled(parts, width)


def _filled(parts: list[AxisPart], width: int) -> tuple[AxisPart, ...]:
    """The parts, with "other" between and after them."""
    found: list[AxisPart] = []
    position = 0
    for part in (*parts, AxisPart("", width, width)):
        if part.start > position:
            found.append(AxisPart("other", position, part.start))
        if part.name:
            found.append(part)
        position = part.stop
    return tuple(found)


# --- the pieces ---------------------------------------------------------------------------------


def _pieces(graph: Graph, tensor: str, unit_axis: UnitAxis) -> Iterator[_Piece]:
    yield from _follow(graph, tensor, unit_axis, _Piece(*_unit_span(unit_axis)))


def _unit_span(unit_axis: UnitAxis) -> tuple[int, int]:
    units = unit_axis.units[unit_axis.units >= 0]
    return int(units.min()), int(units.max()) + 1


def _follow(graph: Graph, tensor: str, unit_axis: UnitAxis, piece: _Piece) -> Iterator[_Piece]:
    """The pieces of a range of the axis, each followed to its end."""
    while tensor in graph.producers:
        node, slot = graph.producers[tensor]
        operation = node.operation
        visit = Visit(graph, node, Port("output", slot), unit_axis)
        inputs = _inputs(visit)
        if isinstance(operation, Linear):
            repeats = len(np.unique(unit_axis.units)) < len(unit_axis.units)
            piece = replace(piece, linear=bool(inputs), repeats=repeats)
            break
        if isinstance(operation, Concat) and unit_axis.axis == operation.axis and inputs:
            for fact in inputs:
                yield from _part(graph, visit.tensor(fact.port), fact.unit_axis, piece)
            return
        inputs = [fact for fact in inputs if not _is_constant(graph, visit.tensor(fact.port))]
        if len(inputs) != 1 and not (isinstance(operation, Concat) and inputs):
            from_map = isinstance(operation, Reshape) and piece.plain
            plain = piece.plain and bool(piece.activation)
            piece = replace(piece, plain=plain, from_map=from_map)
            break
        piece = _pass(visit, inputs[0], piece)
        tensor, unit_axis = visit.tensor(inputs[0].port), inputs[0].unit_axis
    else:
        piece = replace(piece, plain=False)
    yield piece


def _inputs(visit: Visit) -> list[UnitsAt]:
    """The inputs with a unit axis; none where the operation's rule refuses."""
    rule = RULES.get(type(visit.node.operation))
    try:
        facts = list(rule(visit, visit.node.operation)) if rule else []
    except Refused:
        return []
    return [fact for fact in facts if isinstance(fact, UnitsAt) and fact.port.side == "input"]


def _is_constant(graph: Graph, tensor: str) -> bool:
    source = origin(graph.producers, tensor, through("cast", "dequantize"))
    return graph.tensors[source].is_constant


def _part(graph: Graph, tensor: str, unit_axis: UnitAxis, piece: _Piece) -> Iterator[_Piece]:
    start, stop = _unit_span(unit_axis)
    within = replace(piece, start=start, stop=stop)
    if graph.tensors[tensor].is_constant:
        yield replace(within, plain=False)
    else:
        yield from _follow(graph, tensor, unit_axis, within)


def _pass(visit: Visit, fact: UnitsAt, piece: _Piece) -> _Piece:
    """The piece, with what a node on its way shows of it."""
    match visit.node.operation:
        case Activation(function=function) if not piece.activation:
            return replace(piece, activation=function)
        case Elementwise() if not piece.activation:
            moves = applies(visit.node, "identity", "cast", "quantize", "dequantize")
            names = [name for name in visit.node.inputs if name]
            constants = any(visit.graph.tensors[name].is_constant for name in names)
            return replace(piece, plain=piece.plain and (moves or not constants))
        case Split() | Slice() if not piece.source and (fact.unit_axis.units < 0).any():
            offset = fact.unit_axis.span[0]
            return replace(piece, source=visit.tensor(fact.port), offset=offset)
    return piece
