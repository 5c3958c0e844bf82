"""Labels in the graph itself: a table in which the class index is looked up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.graph import Graph, Tensor
from exporter.graph.operations import Gather
from exporter.trace.rules.rankings import top_k_of

_MATRIX = 2  # axes of an output with one value for each class


def labels_in_tables(graph: Graph, constants: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Output with one value for each class -> labels, from the table of another output.

    Numbers that are the class indices are no labels.
    """
    tables: dict[int, tuple[str, ...]] = {}
    for node in graph.nodes:
        tensor = constants.get(node.inputs[0]) if node.inputs else None
        if tensor is None or tensor.read is None or len(tensor.shape or ()) != 1:
            continue
        if tensor.dtype != "string" and not tensor.dtype.startswith(("int", "uint")):
            continue
        if not isinstance(node.operation, Gather):
            continue
        if top_k_of(graph, node.outputs[0]) is not None:
            values = tensor.read()
            if not np.array_equal(values, np.arange(len(values))):
                tables[len(values)] = tuple(map(str, values.tolist()))
    shapes = {name: graph.shape(name) for name in graph.outputs}
    return {
        name: tables[shape[1]]
        for name, shape in shapes.items()
        if len(shape) == _MATRIX and shape[1] in tables
    }
