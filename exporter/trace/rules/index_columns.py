"""The column of unit indices in a tensor, after a node moves or selects its values.

For example, the indices in column 5 of (boxes, 6) are in column 1 after a slice of the last two
columns. A column of width 0 is somewhere in the tensor.
"""

from __future__ import annotations

from exporter.graph import Graph, Node, Shape
from exporter.graph.operations import Concat, Expand, GatherConstant, Reshape, Slice, Transpose
from exporter.trace.readers import Column


def move_column(graph: Graph, node: Node, slot: int, column: Column) -> Column | None:
    """The column in the result of a node; None where the result does not contain the indices.

    Args:
        graph: contains the node.
        node: moves or selects the values of an input, or puts others next to them.
        slot: of that input.
        column: of that input.
    """
    source, result = graph.shape(node.inputs[slot]), graph.shape(node.outputs[0])
    operation, last = node.operation, len(source) - 1
    if column.width and isinstance(operation, Concat) and operation.axis == len(result) - 1:
        return _joined(graph, node, slot, column)
    in_line = isinstance(operation, Expand) and len(source) == 1  # joined rows, then zeros
    if isinstance(operation, Reshape) or in_line or column.width <= 1:
        return column
    turned = isinstance(operation, Transpose) and operation.permutation[-1] != last
    if turned or source[last:] != (column.width,):
        return _unknown(column)
    return _selected(node, last, column, result)


def _unknown(column: Column) -> Column:
    return column._replace(position=0, width=0)


def _selected(node: Node, last: int, column: Column, result: Shape) -> Column | None:
    """The column after a node that may select positions of the last axis."""
    positions = list(range(column.width))
    match node.operation:
        case GatherConstant(axis=axis, positions=selected) if axis == last:
            positions = [position % column.width for position in selected]
        case Slice(axes=axes, starts=starts, stops=stops, steps=steps) if last in axes:
            index = axes.index(last)
            positions = positions[starts[index] : stops[index] : steps[index]]
        case _ if result[-1:] != (column.width,):
            return _unknown(column)
    if column.position not in positions:
        return None
    return column._replace(position=positions.index(column.position), width=len(positions))


def _joined(graph: Graph, node: Node, slot: int, column: Column) -> Column:
    """The column after the columns of earlier inputs."""
    widths = [(graph.shape(name) or (None,))[-1] for name in node.inputs]
    if widths[slot] != column.width or any(width is None for width in widths):
        return _unknown(column)
    known = [width or 0 for width in widths]
    return column._replace(position=sum(known[:slot]) + column.position, width=sum(known))
