"""Tables in which ids of units are looked up: they are cut with the units."""

from __future__ import annotations

import numpy as np

from exporter.graph import Graph, Node, Use
from exporter.graph.operations import Gather
from exporter.trace.head import UnitAxis, UnitConstant
from exporter.trace.rules.protocol import Refused


def is_look_up(graph: Graph, node: Node, slot: int = 1) -> bool:
    """Does a node look up what it reads there in rows of a constant?"""
    constant = bool(node.inputs) and graph.tensors[node.inputs[0]].is_constant
    return (
        isinstance(node.operation, Gather) and node.operation.axis == 0 and slot == 1 and constant
    )


def table_of(graph: Graph, node: Node, units: int, first: int = 0) -> UnitConstant:
    """The constant in which a node looks up ids, with a row for each unit, the first one's there.

    Raises:
        Refused: it has too few rows.
    """
    name = node.inputs[0]
    tensor = graph.tensors[name]
    shape = tuple(n or 0 for n in tensor.shape or ())
    if first < 0 or shape[0] < first + units:
        raise Refused(node, f"its table has no entry for each of the {units} classes")
    rows = np.arange(shape[0], dtype=np.int64) - first
    labels = UnitAxis(0, np.where((rows >= 0) & (rows < units), rows, -1))
    return UnitConstant(name, shape, tensor.dtype, labels, (Use(node.name, 0),), None)
