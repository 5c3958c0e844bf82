"""Bring the logits of a converted model into the axis order of the original's logits.

A converter may compute in another layout (channels first in ONNX, last in Keras), and the last
activation may come before a resize in one model and after it in the other.
"""

from __future__ import annotations

from itertools import zip_longest

from exporter.graph import Graph
from exporter.graph.operations import Activation, Elementwise, Transpose
from exporter.graph.walk import computed_inputs
from exporter.trace.head import Head
from exporter.verification.roles import ModelPair

Order = tuple[int, ...]


def logits_order(pair: ModelPair, head: Head, output: str, new_z: str) -> Order | None:
    """The order of axes in which the converted model's logits match the original's.

    1. If only layouts change between logits and output in both models, they meet at the output.
    2. Otherwise the logits are compared as they are if their shapes agree.

    Args:
        head: of the original.
        output: of the converted model.
        new_z: the tensor with the logits in the converted model.

    Returns:
        The transposed order of the axes; None if the two tensors are at different places, for
        example before and after a resize.
    """
    original, pruned = pair.graphs
    before = _order_between(original, head.z, head.output)
    after = _order_between(pruned, new_z, output)
    if before is not None and after is not None and len(before) == len(after):
        return tuple(after[before.index(axis)] for axis in range(len(before)))
    shapes = original.tensors[head.z].shape or (), pruned.tensors[new_z].shape or ()
    unit_axis = head.tensor(head.z).unit_axis.axis
    for axis, (a, b) in enumerate(zip_longest(*shapes, fillvalue=0)):
        if axis not in {0, unit_axis} and a != b and None not in {a, b}:
            return None
    return tuple(range(len(shapes[1])))


def _order_between(graph: Graph, tensor: str, output: str) -> Order | None:
    """The axis of `tensor` that each axis of the output is; None if more than layouts change."""
    order, current = tuple(range(len(graph.tensors[output].shape or ()))), output
    while current != tensor:
        node, _ = graph.producers.get(current, (None, 0))
        computed = computed_inputs(graph, node) if node else ()
        if node is None or len(computed) != 1:
            return None
        if isinstance(node.operation, Transpose):
            order = tuple(node.operation.permutation[axis] for axis in order)
        elif not isinstance(node.operation, Elementwise | Activation):
            return None
        current = computed[0]
    return order
