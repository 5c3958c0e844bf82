"""Merge x * sigmoid(x), which converters write as two operators, into one activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.graph import Node, Tensor
from exporter.graph.operations import Activation, Elementwise


def with_silu(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> list[Node]:
    """The nodes, with each product x * sigmoid(x) as the activation SiLU of x.

    The sigmoid remains a node, since the shape of its tensor in the file has to follow a cut. A
    quantized sigmoid is not merged: it rounds, which the activation does not.
    """
    sigmoids = {
        node.outputs[0]: node.inputs[0]
        for node in nodes
        if node.operation == Activation("sigmoid") and tensors[node.outputs[0]].quantization is None
    }
    return [_silu(node, sigmoids) or node for node in nodes]


def _silu(node: Node, sigmoids: Mapping[str, str]) -> Node | None:
    if node.operation != Elementwise(function="mul"):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        if sigmoids.get(other) == x:
            return replace(node, operation=Activation("silu"), inputs=(x,))
    return None
