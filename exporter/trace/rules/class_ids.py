"""Where numbers of units stand in what is made of them: alone, or as a column of rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exporter.graph import Graph, Node, Shape
from exporter.graph.operations import (
    Concat,
    Expand,
    GatherConstant,
    NonMaxSuppression,
    Reshape,
    Slice,
    TopK,
    Transpose,
)
from exporter.trace.head import Head
from exporter.trace.rules.ranking import carries, hands_on, is_rest


class Column(NamedTuple):
    """Every `width`-th value of a tensor, in its own order, is a number; `place` is the first."""

    place: int
    width: int
    more: int = 0  # than the number: where a background is counted, say

    @property
    def alone(self) -> bool:
        return self.width == 1


ALONE = Column(0, 1)


def number_columns(graph: Graph, head: Head) -> dict[str, Column]:
    """The outputs of the model that hold numbers of a head's units, as far as it is clear where."""
    found = _seeds(graph, head)
    for node in graph.nodes:  # in running order
        for slot, name in enumerate(node.inputs):
            shift = shift_of(graph, node)
            if name in found and found[name].alone and shift is not None:
                found[node.outputs[0]] = found[name]._replace(more=found[name].more + shift)
            elif name in found and (hands_on(graph, node) or carries(node, slot)):
                moved = _moved(graph, node, slot, found[name])
                if moved is not None:
                    found[node.outputs[0]] = moved
    return {name: found[name] for name in graph.outputs if name in found}


def shift_of(graph: Graph, node: Node) -> int | None:
    """The whole number that a node adds to every other; None where that is not what it does."""
    function = getattr(node.operation, "function", "")
    if function not in {"add", "sub"} or len(node.inputs) != 2:  # noqa: PLR2004 - operands
        return None
    known = [_whole(graph, name) for name in node.inputs]
    if function == "sub":
        return None if known[0] is not None or known[1] is None else -known[1]
    return next((n for n in known if n is not None), None) if None in known else None


def _whole(graph: Graph, name: str) -> int | None:
    read = graph.tensors[name].read
    value = np.ravel(read()) if read is not None else np.empty(0)
    return int(value[0]) if value.size == 1 and value[0] == np.rint(value[0]) else None


def _seeds(graph: Graph, head: Head) -> dict[str, Column]:
    """The tensors in which the numbers appear first, as they are returned in the end."""
    found: dict[str, Column] = {}
    makers = {node.name: node for node in graph.nodes}
    tables = [table for each in head.readers.detections for table in each.tables]
    tables += [table for each in head.readers.rankings for table in each.tables]
    found |= {makers[table.uses[0].node].outputs[0]: ALONE for table in tables}
    for each in head.readers.detections:
        operation = each.node.operation
        if not each.tables and isinstance(operation, NonMaxSuppression):
            name = each.node.outputs[operation.ids]
            width = graph.shape(name)[-1:] or (None,)
            column = operation.column
            found[name] = ALONE if column is None else Column(column, width[0] or column + 1)
    for ranking in head.readers.rankings:
        if not (ranking.divided or ranking.tables) and isinstance(ranking.node.operation, TopK):
            found[ranking.node.outputs[ranking.node.operation.ids]] = ALONE
        found |= {node.outputs[0]: ALONE for node in ranking.divided if is_rest(node)}
    return found


def _moved(graph: Graph, node: Node, slot: int, column: Column) -> Column | None:
    """The column in what a node makes of a tensor; None where it cannot be told."""
    source, result = graph.shape(node.inputs[slot]), graph.shape(node.outputs[0])
    match node.operation:
        case Concat(axis=axis) if axis == len(result) - 1:
            return _beside(graph, node, slot, column)
        case Reshape():
            return column
        case Expand() if len(source) == 1:  # rows in one line, and zeros behind them
            return column
        case _ if column.alone:
            return column
        case _ if not source or source[-1] != column.width:
            return None
        case _:
            return _within(node, len(source) - 1, column, result)


def _within(node: Node, last: int, column: Column, result: Shape) -> Column | None:
    """Where the numbers are a column of the last axis, which some operations take positions of."""
    places = list(range(column.width))
    match node.operation:
        case GatherConstant(axis=axis, positions=positions) if axis == last:
            places = [place % column.width for place in positions]
        case Slice(axes=axes, starts=starts, stops=stops) if last in axes:
            index = axes.index(last)
            places = places[starts[index] : stops[index]]
        case Transpose(permutation=permutation) if permutation[-1] != last:
            return None
        case _ if result[-1:] != (column.width,):
            return None
    if column.place not in places:
        return None
    return column._replace(place=places.index(column.place), width=len(places))


def _beside(graph: Graph, node: Node, slot: int, column: Column) -> Column | None:
    """Behind what stands in front of it in a row."""
    widths = [(graph.shape(name) or (None,))[-1] for name in node.inputs]
    if None in widths or widths[slot] != column.width:
        return None
    known = [width or 0 for width in widths]
    return column._replace(place=sum(known[:slot]) + column.place, width=sum(known))
