"""What is computed for negative numbers alone, where places are divided.

PyTorch's exporter writes a // b as a / b, rounded towards 0, less 1 where a < 0 <= b and something
is left over. Places are never negative, so that nothing is taken off, whatever is left over; and
a - a // b * b is what is left over.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import Elementwise


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
        least, limit = _constant(graph, first), _constant(graph, others[0])
        if first in places:
            least = np.zeros(1)
        return least is not None and limit is not None and bool((limit <= least).all())
    if function == "equal":
        true = _constant(graph, others[0])
        return true is not None and bool((true == 1).all()) and is_never(graph, first, places)
    if function == "and":
        return any(is_never(graph, name, places) for name in node.inputs)
    if function == "xor":
        constants = (_constant(graph, name) for name in node.inputs)
        false = [each is not None and not each.any() for each in constants]
        return all(
            known or is_never(graph, name, places)
            for known, name in zip(false, node.inputs, strict=True)
        )
    return function == "cast" and is_never(graph, first, places)


def is_idle(graph: Graph, node: Node, places: Container[str]) -> bool:
    """Does nothing come of a node, since what it tells is asked for negative places alone?"""
    if not isinstance(node.operation, Elementwise) or node.outputs[0] in graph.outputs:
        return False
    readers = [reader for reader, _ in graph.consumers.get(node.outputs[0], ())]
    never = (is_never(graph, reader.outputs[0], places) for reader in readers)
    return all(
        unread or is_idle(graph, reader, places)
        for unread, reader in zip(never, readers, strict=True)
    )


def subtracted(graph: Graph, node: Node, places: Container[str]) -> tuple[Node, int] | None:
    """What a node takes off a place, if it is as much as is divided without a rest: the product of
    a quotient and its divisor, and the divisor's slot.
    """
    if not _is(node, "sub") or node.inputs[0] not in places:
        return None
    product, _ = graph.producers.get(node.inputs[1], (None, 0))
    if product is None or not _is(product, "mul"):
        return None
    quotients = [_is_quotient(graph, name, places) for name in product.inputs]
    return (product, quotients.index(False)) if sum(quotients) == 1 else None


def _is_quotient(graph: Graph, tensor: str, places: Container[str]) -> bool:
    """A place that is divided, and perhaps what is taken off where it is negative."""
    while tensor in graph.producers:
        node, _ = graph.producers[tensor]
        if _is(node, "div"):
            return node.inputs[0] in places
        if _is(node, "sub") and is_never(graph, node.inputs[1], places):
            tensor = node.inputs[0]
        elif _is(node, "where") and is_never(graph, node.inputs[0], places):
            tensor = node.inputs[2]
        elif _is(node, "cast") or _is(node, "identity"):
            tensor = node.inputs[0]
        else:
            return False
    return False


def _is(node: Node, function: str) -> bool:
    return isinstance(node.operation, Elementwise) and node.operation.function == function


def _constant(graph: Graph, name: str) -> Array | None:
    read = graph.tensors[name].read
    return None if read is None else read()
