"""Class maps of a detector that are outputs of their own, one for each size of objects.

NanoDet and PicoDet, for example, return for each level one output with the classes of every
position and one with its box. For the user, the class maps of all levels are one head: a class is
kept in all of them or in none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from exporter.graph import Graph
from exporter.graph.activations import ACTIVATIONS
from exporter.trace.head import Head

_BOX = 4  # coordinates, each of which may be a distribution over several values


@dataclass(frozen=True)
class ClassMaps:
    """Heads that are cut together.

    Attributes:
        names: of the heads, in the order of their outputs.
        boxes: outputs that may have the boxes of the same positions.
        known: how well the file shows that these are the classes, if the boxes have such maps too.
    """

    names: tuple[str, ...]
    boxes: frozenset[str]
    known: int

    def covers(self, head: Head) -> bool:
        """Is a head one of them, or are its units the boxes of the same positions?"""
        return head.name in self.names or head.output in self.boxes


def find_class_maps(graph: Graph, heads: Sequence[Head]) -> tuple[ClassMaps, ...]:
    """The groups of heads that may be the class maps of one detector.

    Their units are as many and have the same activation, and each map has another number of
    positions. Boxes share the axis of the units, or are other outputs.

    Args:
        graph: contains the heads.
        heads: of all its outputs.
    """
    alike: dict[object, list[Head]] = {}
    for head in heads:
        if head.output in graph.outputs and _positions(graph, head):
            key = (head.units, head.activation, head.axis_parts, len(graph.shape(head.output)))
            alike.setdefault(key, []).append(head)
    groups = (group for group in alike.values() if _has_levels(graph, group))
    return tuple(
        ClassMaps(tuple(head.name for head in group), boxes, _known(group[0]))
        for group in groups
        if (boxes := _boxes(graph, group)) or group[0].axis_parts
    )


def _positions(graph: Graph, head: Head) -> int:
    """How many positions the map of a head has; 0 if it is not known, or if there is no map."""
    shape = graph.shape(head.output)[1:]
    return prod(n or 0 for n in shape) // (shape[head.axis - 1] or 1) if len(shape) > 1 else 0


def _has_levels(graph: Graph, group: Sequence[Head]) -> bool:
    return len({_positions(graph, head) for head in group}) == len(group) > 1


def _boxes(graph: Graph, group: Sequence[Head]) -> frozenset[str]:
    """The outputs with a multiple of four values for each position, the same one in all levels."""
    own = {head.output for head in group}
    others = {n: prod(s or 0 for s in graph.shape(n)[1:]) for n in graph.outputs if n not in own}

    def with_boxes(head: Head) -> Iterator[tuple[int, str]]:
        positions = _positions(graph, head)
        for name, values in others.items():
            if values and values % (positions * _BOX) == 0:
                yield values // positions, name

    found = [list(with_boxes(head)) for head in group]
    in_all = set.intersection(*({width for width, _ in each} for each in found))
    return frozenset(name for each in found for width, name in each if width in in_all)


def _known(head: Head) -> int:
    function = ACTIVATIONS.get(head.activation)
    return 2 * bool(head.labels) + (function is not None and function.probability)
