"""What shares an axis with the units: boxes, objectness, background, and which positions are which.

A detector returns one row a box, and its classes are a stretch of that row. The pieces of the axis
are followed back, each on its own way, to where it is joined or cut out; what lies on the way says
which of them are classes:

1. What enters a post-process as values of classes is told by the post-process.
2. A piece that is as wide as there are labels.
3. Two and two positions and a rest, all taken from one tensor: x and y, width and height, then
   objectness and classes (YOLOv3 to v7).
4. The only piece that ends in a sigmoid or softmax of its own (YOLOv8 and later); or the second of
   two, where the first is one position wide: objectness (YOLOX).

Where an axis is one piece, its channels repeat anchor by anchor, and no activation follows, it may
hold anything (raw maps): labels tell, or another output that holds the boxes.
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
from exporter.graph.walk import origin, through
from exporter.trace.head import AxisPart, UnitAxis
from exporter.trace.rules import RULES
from exporter.trace.rules.protocol import Port, Refused, UnitsAt, Visit

_BOX = 4  # coordinates
_ROWS = 3  # axes of what returns rows: batch, boxes, values
_ANSWERS = ("sigmoid", "softmax")
_MOVES = ("identity", "cast", "quantize", "dequantize")


class Undecided(Refused):
    """Units share the axis with something else, and nothing tells which positions they have."""


@dataclass(frozen=True)
class _Piece:
    """Positions of the axis that come one way.

    Attributes:
        activation: the last one on the way, "" where there is none.
        plain: nothing but moves lies between the activation and the axis.
        linear: the way ends in the output channels of a linear operation.
        place: it ends in a reshape along which it is several axes: places on a feature map.
        repeats: each position has several of those channels.
        source, offset: the tensor that they are cut out of, and from where; "" where of none.
    """

    start: int
    stop: int
    activation: str = ""
    plain: bool = True
    linear: bool = False
    place: bool = False
    repeats: bool = False
    source: str = ""
    offset: int = 0

    @property
    def width(self) -> int:
        return self.stop - self.start

    @property
    def answers(self) -> bool:
        """Does it end in what classes end in?"""
        return self.linear and self.plain and self.activation in _ANSWERS


def parts_of(graph: Graph, tensor: str, axis: int) -> tuple[AxisPart, ...]:
    """The parts of an axis, one of them the classes; none where all positions are units.

    Raises:
        Undecided: there are other things beside the units, and nothing tells them apart.
    """
    shape = graph.shape(tensor)
    width = shape[axis] or 0
    for node, slot in graph.consumers.get(tensor, ()):
        operation = node.operation
        if isinstance(operation, NonMaxSuppression) and (slot, axis) == (
            operation.classes,
            operation.axis,
        ):
            return _named(width, operation.background, width, "background")
    if len(shape) < _ROWS:
        return ()
    labels = graph.labels.get(tensor, ())
    start = UnitAxis(axis, np.arange(width, dtype=np.int64))
    pieces = sorted(_pieces(graph, tensor, start), key=lambda piece: piece.start)
    if len(pieces) > 1:
        return _of_pieces(pieces, width, len(labels))
    return _of_channels(pieces[0], width, len(labels), boxes_elsewhere(graph, tensor, axis))


def are_channels(graph: Graph, tensor: str, axis: int) -> bool:
    """Does an axis come, somewhere on it, out of the output channels of a linear operation?"""
    labels = UnitAxis(axis, np.arange(graph.shape(tensor)[axis] or 0, dtype=np.int64))
    pieces = _pieces(graph, tensor, labels) if len(labels.units) else ()
    return any(piece.linear for piece in pieces)


def stated_parts(shape: Shape, axis: int, units: tuple[int, int]) -> tuple[AxisPart, ...]:
    """The parts of an axis of which the user said where the units stand; Refused if not on it."""
    width, (start, stop) = shape[axis] or 0, units
    if not 0 <= start < stop <= width:
        raise Refused(None, f"axis {axis} has {width} positions, not {start} to {stop - 1}")
    return _filled([AxisPart("classes", start, stop)], width)


def _of_pieces(pieces: list[_Piece], width: int, labels: int) -> tuple[AxisPart, ...]:
    answers = [piece for piece in pieces if piece.answers]
    apart = any(piece.stop == _BOX or not (piece.linear and piece.plain) for piece in pieces)
    if not apart or not any(piece.linear for piece in pieces) or _are_maps(pieces):
        return ()
    labeled = [piece for piece in pieces if piece.width == labels]
    if len(labeled) == 1:
        return _named(width, labeled[0].start, labeled[0].stop)
    if _is_row(pieces) and (not labels or pieces[2].width == labels + 1):
        return _named(width, _BOX + 1, pieces[2].stop)
    if len(answers) < len(pieces):
        objects = len(answers) == 2 and answers[0].width == 1  # noqa: PLR2004 - two of them
        if len(answers) == 1 or (objects and answers[0].stop == answers[1].start):
            return _named(width, answers[-1].start, answers[-1].stop)
    listed = ", ".join(f"{piece.start}:{piece.stop}" for piece in pieces)
    raise Undecided(
        None,
        f"its axis has the parts {listed}, and nothing tells which of them are the classes: say "
        "--units A:B",
    )


def _are_maps(pieces: list[_Piece]) -> bool:
    """Are the pieces maps, one behind the other? The anchors of one that has a single place stand
    in channels, each of them in several, as many as there are classes.
    """
    channels = [piece for piece in pieces if piece.linear]
    places = [piece for piece in pieces if piece.place]
    alike = len({piece.activation for piece in pieces}) == 1 and all(p.repeats for p in channels)
    return alike and bool(places) and len(channels) + len(places) == len(pieces)


def _is_row(pieces: list[_Piece]) -> bool:
    """Case 3."""
    first = [(piece.start, piece.stop) for piece in pieces[:2]]
    if len(pieces) <= 2 or first != [(0, 2), (2, 4)]:  # noqa: PLR2004 - x, y and w, h
        return False
    rest = pieces[2]
    return rest.answers and rest.offset == _BOX and rest.width > 1


def _of_channels(piece: _Piece, width: int, labels: int, elsewhere: bool) -> tuple[AxisPart, ...]:
    raw = piece.linear and piece.repeats and not piece.activation
    if not raw or labels == width or elsewhere:
        return ()
    if labels and width == _BOX + 1 + labels:
        return _named(width, _BOX + 1, width)
    raise Undecided(
        None,
        f"its {width} values for each anchor may be classes alone, or boxes and objectness too: "
        f"say --units A:B, --units 0:{width} for all of them",
    )


def boxes_elsewhere(graph: Graph, tensor: str, axis: int) -> bool:
    """Does another output hold four coordinates for each row of values?"""
    shape = graph.shape(tensor)
    if len(shape) < _ROWS or None in shape[1:]:
        return False
    rows = prod(n or 0 for i, n in enumerate(shape) if i not in {0, axis})
    shapes = [graph.shape(name)[1:] for name in graph.outputs if name != tensor]
    return any(_BOX in each and prod(n or 0 for n in each) == rows * _BOX for each in shapes)


def _named(width: int, start: int, stop: int, before: str = "box") -> tuple[AxisPart, ...]:
    """The parts around the classes: a box first, and what fills one more position says objects."""
    parts = [AxisPart("classes", start, stop)]
    if before == "background" and start:
        parts.insert(0, AxisPart(before, 0, start))
    elif before == "box" and start >= _BOX:
        parts.insert(0, AxisPart("box", 0, _BOX))
        if start == _BOX + 1:
            parts.insert(1, AxisPart("object", _BOX, start))
    return _filled(parts, width)


def _filled(parts: list[AxisPart], width: int) -> tuple[AxisPart, ...]:
    """With what lies between and behind; none at all where one part is everything."""
    found: list[AxisPart] = []
    place = 0
    for part in (*parts, AxisPart("", width, width)):
        if part.start > place:
            found.append(AxisPart("other", place, part.start))
        if part.name:
            found.append(part)
        place = part.stop
    return tuple(found)


# --- the pieces ---------------------------------------------------------------------------------


def _pieces(graph: Graph, tensor: str, labels: UnitAxis) -> Iterator[_Piece]:
    where = labels.units[labels.units >= 0]
    yield from _followed(graph, tensor, labels, _Piece(int(where.min()), int(where.max()) + 1))


def _followed(graph: Graph, tensor: str, labels: UnitAxis, piece: _Piece) -> Iterator[_Piece]:
    """The pieces that a stretch of the axis consists of, each followed to its end."""
    while tensor in graph.producers:
        node, slot = graph.producers[tensor]
        operation = node.operation
        step = Visit(graph, node, Port("output", slot), labels)
        try:
            facts = list(RULES[type(operation)](step)) if type(operation) in RULES else []
        except Refused:
            facts = []
        ways = [fact for fact in facts if isinstance(fact, UnitsAt) and fact.port.side == "input"]
        if isinstance(operation, Linear):
            repeats = len(np.unique(labels.units)) < len(labels.units)
            piece = replace(piece, linear=bool(ways), repeats=repeats)
            break
        if isinstance(operation, Concat) and labels.axis == operation.axis and ways:
            for way in ways:
                yield from _part(graph, step.tensor(way.port), way.unit_axis, piece)
            return
        ways = [way for way in ways if not _is_constant(graph, step.tensor(way.port))]
        if len(ways) != 1 and not (isinstance(operation, Concat) and ways):
            place = isinstance(operation, Reshape) and piece.plain
            piece = replace(piece, plain=piece.plain and bool(piece.activation), place=place)
            break
        piece = _past(step, ways[0], piece)
        tensor, labels = step.tensor(ways[0].port), ways[0].unit_axis
    else:
        piece = replace(piece, plain=False)
    yield piece


def _is_constant(graph: Graph, tensor: str) -> bool:
    source = origin(graph.producers, tensor, through("cast", "dequantize"))
    return graph.tensors[source].is_constant


def _part(graph: Graph, tensor: str, labels: UnitAxis, piece: _Piece) -> Iterator[_Piece]:
    where = labels.units[labels.units >= 0]
    within = replace(piece, start=int(where.min()), stop=int(where.max()) + 1)
    if graph.tensors[tensor].is_constant:
        yield replace(within, plain=False)
    else:
        yield from _followed(graph, tensor, labels, within)


def _past(step: Visit, way: UnitsAt, piece: _Piece) -> _Piece:
    """What an operation on the way says of the piece."""
    operation = step.node.operation
    if isinstance(operation, Activation) and not piece.activation:
        return replace(piece, activation=operation.function)
    if isinstance(operation, Elementwise) and not piece.activation:
        constants = any(step.graph.tensors[name].is_constant for name in step.node.inputs if name)
        computed = operation.function not in _MOVES and constants
        return replace(piece, plain=piece.plain and not computed)
    if (
        isinstance(operation, Split | Slice)
        and not piece.source
        and (way.unit_axis.units < 0).any()
    ):
        offset = int(np.argmax(way.unit_axis.units >= 0))
        return replace(piece, source=step.tensor(way.port), offset=offset)
    return piece
