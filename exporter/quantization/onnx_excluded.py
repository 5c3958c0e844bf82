"""Nodes of an ONNX model that stay float: those that compute with class indices.

The libraries quantize all floats. After that, class indices that an operator casts to float, boxes
that are moved apart by them, and rows that contain both had other classes, and could not be cut.
"""

from __future__ import annotations

from onnx import ModelProto

from exporter.graph import Graph
from exporter.graph.operations import NonMaxSuppression, TopK
from exporter.graph.walk import dependents


def index_tensors(graph: Graph) -> set[str]:
    """The tensors that depend on unit indices, or on the selection of a post-process."""
    sources: list[str] = []
    for node in graph.nodes:
        if isinstance(node.operation, NonMaxSuppression):
            sources += node.outputs
        elif isinstance(node.operation, TopK):
            sources += node.outputs[node.operation.ids : node.operation.ids + 1]
    return dependents(graph, sources)


def excluded_nodes(model: ModelProto, tensors: set[str]) -> list[str]:
    """The names of the nodes that compute these tensors; nodes without a name get one."""
    names = []
    for i, node in enumerate(model.graph.node):
        if tensors.intersection(node.output):
            node.name = node.name or f"behind_ranking_{i}"
            names.append(node.name)
    return names
