"""Outputs whose units were merged: where their members still show, one by one."""

from __future__ import annotations

from dataclasses import replace

from exporter.errors import ModelError
from exporter.graph import Graph, Node
from exporter.graph.operations import Reduce
from exporter.graph.walk import dependents, upstream


def unmerged(graph: Graph, output: str) -> str:
    """The tensor out of which an output with merged units is computed: all members, in order."""
    for node, _ in upstream(graph.producers, output, lambda node: node.inputs[0]):
        if _takes_positions(graph, node):
            return node.inputs[0]
    raise ModelError(f"output {output!r} does not show how its units were merged")


def _takes_positions(graph: Graph, node: Node) -> bool:
    """Does a node read which positions it takes, as whole numbers that the file holds?"""
    if isinstance(node.operation, Reduce) or len(node.inputs) != 2:  # noqa: PLR2004 - data, indices
        return False
    where = graph.tensors[node.inputs[1]]
    return where.is_constant and where.dtype == "int32" and len(where.shape or ()) == 1


def without(graph: Graph, tensor: str) -> Graph:
    """The graph without all that is computed out of a tensor."""
    computed = dependents(graph, [tensor])
    nodes = tuple(node for node in graph.nodes if computed.isdisjoint(node.inputs))
    return replace(graph, nodes=nodes)
