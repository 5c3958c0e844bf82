"""The number of units as a file reads it while it runs: where it follows a cut by itself.

Exporters of open shapes write Shape and Gather in place of a constant. What then repeats a place
for every unit, or divides places by the number of units, does so with the new number after a cut.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.graph import Graph, Node
from exporter.graph.operations import (
    Concat,
    Elementwise,
    Expand,
    GatherConstant,
    Reshape,
    ShapeOf,
    TopK,
)
from exporter.trace.head import UnitAxis

_HANDED_ON = {"cast", "equal", "identity", "where"}  # "is it -1?", and what takes its place then


def follows(graph: Graph, node: Node) -> bool:
    """Is a length that a node measures used for nothing but what may follow a cut?"""
    waiting, met = list(node.outputs), set[str]()
    while waiting:
        tensor = waiting.pop()
        if tensor in graph.outputs:
            return False
        for reader, slot in graph.consumers.get(tensor, ()):
            if _ends(graph, reader, slot):
                continue
            if not _hands_on(reader, slot):
                return False
            waiting += [name for name in reader.outputs if name not in met]
            met.update(reader.outputs)
    return True


def is_width(graph: Graph, tensor: str, labeled: Mapping[str, UnitAxis]) -> bool:
    """Is a tensor computed from the length of a labeled axis?"""
    waiting, met = [tensor], set[str]()
    while waiting:
        node, _ = graph.producers.get(waiting.pop(), (None, 0))
        if node is None or node.name in met:
            continue
        met.add(node.name)
        if isinstance(node.operation, ShapeOf):
            labels = labeled.get(node.inputs[0])
            if labels is not None and labels.axis in node.operation.axes:
                return True
        else:
            waiting += [name for name in node.inputs if name]
    return False


def _ends(graph: Graph, node: Node, slot: int) -> bool:
    """What else decides on it: the rules of what repeats, and of what divides places."""
    match node.operation:
        case Expand(computed=computed):
            return computed and slot == 1
        case Elementwise(function="div" | "mod"):
            return slot == 1 and _is_place(graph, node.inputs[0])
        case operation:
            return isinstance(operation, ShapeOf)  # of how many lengths there are


def _is_place(graph: Graph, tensor: str) -> bool:
    """Does it hold what a ranking has found?"""
    node, slot = graph.producers.get(tensor, (None, 0))
    operation = node and node.operation
    return isinstance(operation, TopK) and slot == operation.ids


def _hands_on(node: Node, slot: int) -> bool:
    match node.operation:
        case Elementwise(function=function):
            return function in _HANDED_ON
        case GatherConstant() | Reshape():
            return slot == 0
        case operation:
            return isinstance(operation, Concat)
