"""Units that no output shows: the tensor at which they enter a ranking or a detector."""

from __future__ import annotations

from typing import NamedTuple

from exporter.graph import Graph, Node
from exporter.graph.operations import (
    Activation,
    Gather,
    GatherComputed,
    GatherConstant,
    NonMaxSuppression,
    Reduce,
    Reshape,
    Slice,
    Split,
    TopK,
    Transpose,
)
from exporter.graph.walk import applies, dependents, moves_one_input, upstream
from exporter.trace.rules.detections import detector_of
from exporter.trace.rules.rankings import ranking_of


class HiddenUnits(NamedTuple):
    """Units that no output shows."""

    node: Node  # ranks them, or ranks boxes by them
    tensor: str
    axis: int
    units: tuple[int, int] | None = None  # their range on the axis, if it is known
    is_joined: bool = False  # all positions of the tensor are ranked together

    @property
    def axes(self) -> range:
        """The axes to try, the most likely first; in maps of each class it is an earlier one."""
        return range(self.axis, 0 if self.is_joined else self.axis - 1, -1)


def find_hidden_units(graph: Graph, output: str) -> HiddenUnits | None:
    """The units from which an output without a unit axis is computed; None if there are none."""
    found = _ranked(graph, output) or _detected(graph, output) or _ranked_in_rows(graph, output)
    return None if found is None else _before_background(graph, found)


def _ranked(graph: Graph, output: str) -> HiddenUnits | None:
    node = ranking_of(graph, output)
    match node and node.operation:
        case TopK(axis=axis) | Reduce(axes=(axis,), function="max") if node:
            return HiddenUnits(node, node.inputs[0], axis)
    return None


def _detected(graph: Graph, output: str) -> HiddenUnits | None:
    node = detector_of(graph, output)
    if node is None or not isinstance(node.operation, NonMaxSuppression):
        return None
    found = HiddenUnits(node, node.inputs[node.operation.classes], node.operation.axis)
    return _before_maximum(graph, found)


def _ranked_in_rows(graph: Graph, output: str) -> HiddenUnits | None:
    """Units of several rows that are ranked together, where the output is computed from them."""
    for node in reversed(graph.nodes):
        if not isinstance(node.operation, TopK) or output not in dependents(graph, node.outputs):
            continue
        joined, _ = graph.producers.get(node.inputs[0], (None, 0))
        if joined is not None and isinstance(joined.operation, Reshape):
            tensor = joined.inputs[0]
            producer, _ = graph.producers.get(tensor, (joined, 0))
            if isinstance(producer.operation, GatherComputed):  # it selects rows by their values
                tensor = producer.inputs[0]
            return HiddenUnits(node, tensor, len(graph.shape(tensor)) - 1, is_joined=True)
    return None


def _before_maximum(graph: Graph, found: HiddenUnits) -> HiddenUnits:
    """Where only the largest value of each box is read: the units before that maximum."""

    def follow(node: Node) -> str | None:
        selects = isinstance(node.operation, GatherComputed | Gather | GatherConstant)
        return node.inputs[0] if selects or moves_one_input(graph, node, "cast") else None

    for node, _ in upstream(graph.producers, found.tensor, follow):
        match node.operation:
            case Reduce(axes=(axis,), function="max"):
                return HiddenUnits(found.node, node.inputs[0], axis)
    return found


def _before_background(graph: Graph, found: HiddenUnits) -> HiddenUnits:
    """Where a background class is dropped after a softmax: the result of the softmax."""
    tensor, axis, first = found.tensor, found.axis, 0
    width = graph.shape(tensor)[axis] or 0
    for node, slot in upstream(graph.producers, tensor, lambda node: node.inputs[0]):
        tensor = node.outputs[slot]
        match node.operation:
            case Activation(function="softmax", axis=along) if along == axis:
                if graph.shape(tensor)[axis] == width:
                    return found
                return HiddenUnits(found.node, tensor, axis, (first, first + width))
            case Slice(axes=(along,), starts=(start,), steps=(1,)) if along == axis:
                first += start % (graph.shape(node.inputs[0])[axis] or 1)
            case Split(axis=along, sizes=sizes) if along == axis and sizes is not None:
                first += sum(sizes[:slot])
            case Transpose(permutation=permutation):
                axis = permutation[axis]
            case Reshape():
                return found
            case _ if applies(node, "quantize", "dequantize"):
                pass
            case _ if not moves_one_input(graph, node, "cast"):
                return found
    return found
