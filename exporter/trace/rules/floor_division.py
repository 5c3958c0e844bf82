"""Integer division of positions, as exporters write it with several operations.

PyTorch's exporter writes a // b as a / b, rounded towards 0, minus 1 where a < 0 <= b and there is
a remainder. A position is never negative, so that the correction is always 0. The remainder is
written as a - a // b * b.

In this module `positions` are the names of tensors with values that are never negative.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import Elementwise
from exporter.graph.walk import applies, upstream

Positions = Container[str]


def is_always_zero(graph: Graph, tensor: str, positions: Positions) -> bool:
    """Is a tensor 0, or false, for all positions?"""
    node, _ = graph.producers.get(tensor, (None, 0))
    if node is None or not isinstance(node.operation, Elementwise):
        return False
    rule = _ALWAYS_ZERO.get(node.operation.function)
    return rule is not None and rule(graph, node, positions)


def _less(graph: Graph, node: Node, positions: Positions) -> bool:
    first, second = node.inputs
    lowest = np.zeros(1) if first in positions else _constant(graph, first)
    limit = _constant(graph, second)
    return lowest is not None and limit is not None and bool((limit <= lowest).all())


def _equal(graph: Graph, node: Node, positions: Positions) -> bool:
    true = _constant(graph, node.inputs[1])
    is_true = true is not None and bool((true == 1).all())
    return is_true and is_always_zero(graph, node.inputs[0], positions)


def _any_input(graph: Graph, node: Node, positions: Positions) -> bool:
    return any(is_always_zero(graph, name, positions) for name in node.inputs)


def _all_inputs(graph: Graph, node: Node, positions: Positions) -> bool:
    constants = (_constant(graph, name) for name in node.inputs)
    zero = [each is not None and not each.any() for each in constants]
    inputs = zip(zero, node.inputs, strict=True)
    return all(known or is_always_zero(graph, name, positions) for known, name in inputs)


def _first_input(graph: Graph, node: Node, positions: Positions) -> bool:
    return is_always_zero(graph, node.inputs[0], positions)


_ALWAYS_ZERO: Mapping[str, Callable[[Graph, Node, Positions], bool]] = {
    "less": _less,
    "equal": _equal,
    "and": _any_input,
    "xor": _all_inputs,
    "cast": _first_input,
}


def is_unused(graph: Graph, node: Node, positions: Positions) -> bool:
    """Are the results of a node used only where a tensor is always 0?"""
    if not isinstance(node.operation, Elementwise) or node.outputs[0] in graph.outputs:
        return False
    return all(
        is_always_zero(graph, consumer.outputs[0], positions)
        or is_unused(graph, consumer, positions)
        for consumer, _ in graph.consumers.get(node.outputs[0], ())
    )


def remainder(graph: Graph, node: Node, positions: Positions) -> tuple[Node, int] | None:
    """The product a // b * b that a node subtracts from a, and the slot of b; None otherwise."""
    if not applies(node, "sub") or node.inputs[0] not in positions:
        return None
    product, _ = graph.producers.get(node.inputs[1], (None, 0))
    if product is None or not applies(product, "mul"):
        return None
    quotients = [_is_quotient(graph, name, positions) for name in product.inputs]
    return (product, quotients.index(False)) if sum(quotients) == 1 else None


def _is_quotient(graph: Graph, tensor: str, positions: Positions) -> bool:
    """Is a tensor a divided position, perhaps cast, with or without the correction of 0?"""

    def follow(node: Node) -> str | None:
        if applies(node, "sub") and is_always_zero(graph, node.inputs[1], positions):
            return node.inputs[0]
        if applies(node, "where") and is_always_zero(graph, node.inputs[0], positions):
            return node.inputs[2]
        return node.inputs[0] if applies(node, "cast", "identity") else None

    *_, (last, _) = ((None, 0), *upstream(graph.producers, tensor, follow))
    return last is not None and applies(last, "div") and last.inputs[0] in positions


def _constant(graph: Graph, name: str) -> Array | None:
    read = graph.tensors[name].read
    return None if read is None else read()
