"""Activations that converters take apart, put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.graph import Node, Tensor
from exporter.graph.operations import Activation, Elementwise


def folded(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> list[Node]:
    """The nodes with x * sigmoid(x) as one activation, SiLU.

    The sigmoid stays where it is, since its shape in the file has to follow. Codes are left alone:
    the sigmoid's own rounding is no part of the activation.
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
