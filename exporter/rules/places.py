"""What is computed for negative numbers alone, where places are divided.

PyTorch's exporter writes a // b as a / b, rounded towards 0, less 1 where a < 0 <= b and something
is left over. Places are never negative, so that nothing is taken off, whatever is left over.
"""

from __future__ import annotations

from collections.abc import Container

from exporter.graph import Array, Graph
from exporter.operations import Elementwise


def is_never(graph: Graph, tensor: str, places: Container[str]) -> bool:
    """Is a tensor false, or 0, whatever the places are?

    Args:
        graph: has the tensor.
        places: names of tensors that hold numbers from 0 on.
    """
    node, _ = graph.producers.get(tensor, (None, 0))
    if node is None or not isinstance(node.operation, Elementwise):
        return False
    function = node.operation.function
    first, *others = node.inputs
    if function == "less":
        limit = _constant(graph, others[0])
        return first in places and limit is not None and bool((limit <= 0).all())
    if function == "equal":
        true = _constant(graph, others[0])
        return true is not None and bool((true == 1).all()) and is_never(graph, first, places)
    if function == "and":
        return any(is_never(graph, name, places) for name in node.inputs)
    return function == "cast" and is_never(graph, first, places)


def _constant(graph: Graph, name: str) -> Array | None:
    read = graph.tensors[name].read
    return None if read is None else read()
