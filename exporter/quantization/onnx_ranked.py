"""What stands behind a ranking of an ONNX graph stays as it is: class numbers are no measurements.

The tools quantize whatever is float. Numbers of classes that an operator casts to float, boxes that
are moved apart by them, and rows that hold both came out with other classes in them, and no cut
could follow them any more.
"""

from __future__ import annotations

from onnx import ModelProto

from exporter.graph import Graph
from exporter.graph.operations import NonMaxSuppression, TopK


def behind_rankings(graph: Graph) -> frozenset[str]:
    """The tensors that depend on the ids of units, or on what a post-process selects."""
    found: set[str] = set()
    for node in graph.nodes:  # in running order
        operation = node.operation
        if isinstance(operation, NonMaxSuppression) or found.intersection(node.inputs):
            found.update(name for name in node.outputs if name)
        elif isinstance(operation, TopK):
            found.update(node.outputs[operation.ids : operation.ids + 1])
    return frozenset(found)


def nodes_behind(model: ModelProto, tensors: frozenset[str]) -> list[str]:
    """The names of the nodes that make these tensors; nodes without a name get one."""
    names = []
    for i, node in enumerate(model.graph.node):
        if tensors.intersection(node.output):
            node.name = node.name or f"behind_ranking_{i}"
            names.append(node.name)
    return names
