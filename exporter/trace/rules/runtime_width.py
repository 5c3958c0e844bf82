"""The number of units, measured at run time: after a cut it is correct without an edit.

Exporters of open shapes write Shape and Gather instead of a constant. A node that repeats a value
for each unit, or divides positions by the number of units, then uses the new number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
from exporter.graph.walk import ancestors, dependents
from exporter.trace.rules.protocol import Fact, Visit
from exporter.trace.unit_axis import UnitAxis

_MOVES = {"cast", "equal", "identity", "where"}  # a length of -1 is compared and replaced


def shape_of(visit: Visit, operation: ShapeOf) -> Iterator[Fact]:
    """The length of the unit axis may be measured only for uses that are correct after a cut."""
    measured = visit.unit_axis.axis in operation.axes
    if visit.port.side == "output" or (measured and not _may_change(visit.graph, visit.node)):
        raise visit.refuse(
            "it computes with the number of units",
            "if its input has an open shape, export the model with a fixed one",
        )
    yield from ()


def is_width(graph: Graph, tensor: str, unit_axes: Mapping[str, UnitAxis]) -> bool:
    """Is a tensor computed from the length of a unit axis?"""
    sources = ancestors(graph, [tensor], lambda node: not isinstance(node.operation, ShapeOf))
    for node in (graph.producers[name][0] for name in sources if name in graph.producers):
        if isinstance(node.operation, ShapeOf):
            unit_axis = unit_axes.get(node.inputs[0])
            if unit_axis is not None and unit_axis.axis in node.operation.axes:
                return True
    return False


def _may_change(graph: Graph, node: Node) -> bool:
    """Is every use of a measured length correct after a cut?"""
    lengths = dependents(graph, node.outputs, _moves)
    uses = (use for name in lengths for use in graph.consumers.get(name, ()))
    accepted = all(_moves(*use) or _accepts(graph, *use) for use in uses)
    return accepted and lengths.isdisjoint(graph.outputs)


def _moves(node: Node, slot: int) -> bool:
    match node.operation:
        case Elementwise(function=function):
            return function in _MOVES
        case GatherConstant() | Reshape():
            return slot == 0
        case operation:
            return isinstance(operation, Concat)


def _accepts(graph: Graph, node: Node, slot: int) -> bool:
    """Is the use checked by another rule: of repeated values, or of divided positions?"""
    match node.operation:
        case Expand(computed=computed):
            return computed and slot == 1
        case Elementwise(function="div" | "mod"):
            return slot == 1 and _is_position(graph, node.inputs[0])
        case operation:
            return isinstance(operation, ShapeOf)  # it counts the lengths


def _is_position(graph: Graph, tensor: str) -> bool:
    """Is a tensor the indices of a TopK?"""
    node, slot = graph.producers.get(tensor, (None, 0))
    return node is not None and isinstance(node.operation, TopK) and slot == node.operation.ids
