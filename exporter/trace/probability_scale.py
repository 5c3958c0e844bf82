"""Constants that multiply probabilities: one factor for each unit, or one for all."""

from __future__ import annotations

import numpy as np

from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Elementwise
from exporter.graph.walk import applies, origin, upstream
from exporter.trace.head import Factor
from exporter.trace.unit_axis import UnitAxis

_OPERANDS = 2


def factor_of(graph: Graph, node: Node, unit_axis: UnitAxis) -> tuple[str, Factor] | None:
    """The factor by which a node multiplies each position of the unit axis.

    Args:
        graph: contains the node.
        node: any.
        unit_axis: of its result.

    Returns:
        The tensor that is multiplied, and the factor; None where the node does something else, or
        the factors are computed, differ along another axis, or are not finite.
    """
    match node.operation:
        case Elementwise(function="mul" | "div" as function) if len(node.inputs) == _OPERANDS:
            slots = (1,) if function == "div" else (1, 0)
        case _:
            return None
    rank = len(graph.shape(node.outputs[0]))
    for slot in slots:
        constant, copies = _constant(graph, node.inputs[slot])
        if constant.read is None or not _broadcasts(constant, unit_axis, rank):
            continue
        with np.errstate(divide="ignore"):
            values = constant.dequantize(constant.read()).ravel()
            by = 1.0 / values if function == "div" else values
        if np.isfinite(by).all():
            whole = np.broadcast_to(by, len(unit_axis.units))
            return node.inputs[1 - slot], Factor(np.asarray(whole), copies)
    return None


def _constant(graph: Graph, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """The tensor that is read there, before casts and dequantizations, and their results."""

    def follow(node: Node) -> str | None:
        return node.inputs[0] if applies(node, "identity", "dequantize") else None

    nodes = (node for node, _ in upstream(graph.producers, name, follow))
    copies = tuple(node.outputs[0] for node in nodes if follow(node))
    return graph.tensors[origin(graph.producers, name, follow)], copies


def _broadcasts(constant: Tensor, unit_axis: UnitAxis, rank: int) -> bool:
    """Has it one value, or one for each position of the unit axis and no other axis?"""
    shape = constant.shape or ()
    axis = unit_axis.axis - (rank - len(shape))
    return all(n == 1 or (i == axis and n == len(unit_axis.units)) for i, n in enumerate(shape))
