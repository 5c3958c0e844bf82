"""What stands behind probabilities and scales them: one factor a unit, or one for all."""

from __future__ import annotations

import numpy as np

from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Elementwise
from exporter.trace.head import Factor, UnitAxis

_OPERANDS = 2


def factor_of(graph: Graph, node: Node, labels: UnitAxis) -> tuple[str, Factor] | None:
    """What a node multiplies each position of the unit axis by.

    Args:
        graph: has the node.
        node: any.
        labels: of its result.

    Returns:
        The tensor that is scaled, and by what; None where the node does something else, or where
        the factors are computed, differ along another axis, or are not finite.
    """
    match node.operation:
        case Elementwise(function="mul" | "div" as function) if len(node.inputs) == _OPERANDS:
            slots = (1,) if function == "div" else (1, 0)
        case _:
            return None
    rank = len(graph.shape(node.outputs[0]))
    for slot in slots:
        constant, handed = _constant(graph, node.inputs[slot])
        if constant.read is None or not _lies_along(constant, labels, rank):
            continue
        with np.errstate(divide="ignore"):
            real = constant.dequantize(constant.read()).ravel()
            by = 1.0 / real if function == "div" else real
        if np.isfinite(by).all():
            whole = np.broadcast_to(by, len(labels.units))
            return node.inputs[1 - slot], Factor(np.asarray(whole), handed)
    return None


def _constant(graph: Graph, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """What is read there, perhaps out of codes or of another type, and what hands it on."""
    handed: list[str] = []
    while name in graph.producers:
        node, _ = graph.producers[name]
        match node.operation:
            case Elementwise(function="identity" | "dequantize"):
                handed.append(name)
                name = node.inputs[0]
            case _:
                break
    return graph.tensors[name], tuple(handed)


def _lies_along(constant: Tensor, labels: UnitAxis, rank: int) -> bool:
    """Is it as long as the unit axis there, or one value, and 1 on every other axis?"""
    shape = constant.shape or ()
    axis = labels.axis - (rank - len(shape))
    return all(n == 1 or (i == axis and n == len(labels.units)) for i, n in enumerate(shape))
