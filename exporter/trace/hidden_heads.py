"""Heads whose units no output shows: where they enter what ranks them, or drops boxes."""

from __future__ import annotations

from typing import NamedTuple

from exporter.graph import Graph, Node
from exporter.graph.operations import (
    Activation,
    Elementwise,
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
from exporter.graph.walk import dependents
from exporter.trace.rules.detectors import detector_of
from exporter.trace.rules.ranking import hands_on, top_k_of


class Source(NamedTuple):
    """The units of an output that shows none: what ranks them, and where they enter it."""

    node: Node
    tensor: str
    axis: int
    units: tuple[int, int] | None = None  # where on the axis they stand, if that is known


def source_of(graph: Graph, output: str) -> Source | None:
    """Where the units of an output enter what ranks them; None where it shows them, or has none."""
    source = _ranked(graph, output) or _detected(graph, output) or _ranked_in_line(graph, output)
    return None if source is None else _shared_out(graph, source)


def _shared_out(graph: Graph, source: Source) -> Source:
    """Where a softmax shares out over more than the units, a background that is dropped behind it,
    they stand in what the softmax returns.
    """
    tensor, axis, first = source.tensor, source.axis, 0
    width = graph.shape(tensor)[axis] or 0
    while tensor in graph.producers:
        node, slot = graph.producers[tensor]
        match node.operation:
            case Activation(function="softmax", axis=along) if along == axis:
                units = first, first + width
                alone = graph.shape(tensor)[axis] == width
                return source if alone else source._replace(tensor=tensor, axis=axis, units=units)
            case Slice(axes=(along,), starts=(start,), steps=(1,)) if along == axis:
                first += start % (graph.shape(node.inputs[0])[axis] or 1)
            case Split(axis=along, sizes=sizes) if along == axis and sizes is not None:
                first += sum(sizes[:slot])
            case Transpose(permutation=permutation):
                axis = permutation[axis]
            case Elementwise(function="quantize" | "dequantize"):
                pass
            case _ if not hands_on(graph, node) or isinstance(node.operation, Reshape):
                break
        tensor = node.inputs[0]
    return source


def _ranked(graph: Graph, output: str) -> Source | None:
    node = top_k_of(graph, output)
    if node is None or not isinstance(node.operation, TopK):
        return None
    return Source(node, node.inputs[0], node.operation.axis)


def _ranked_in_line(graph: Graph, output: str) -> Source | None:
    """The units of several rows that are ranked together, and the output put together of them."""
    for node in reversed(graph.nodes):
        if not isinstance(node.operation, TopK) or output not in dependents(graph, node.outputs):
            continue
        before, _ = graph.producers.get(node.inputs[0], (None, 0))
        if before is not None and isinstance(before.operation, Reshape):
            tensor = before.inputs[0]
            maker, _ = graph.producers.get(tensor, (before, 0))
            if isinstance(
                maker.operation, GatherComputed
            ):  # rows that were chosen by their values before
                tensor = maker.inputs[0]
            return Source(node, tensor, len(graph.shape(tensor)) - 1)
    return None


def _detected(graph: Graph, output: str) -> Source | None:
    node = detector_of(graph, output)
    if node is None or not isinstance(node.operation, NonMaxSuppression):
        return None
    return _of_each_class(
        graph, Source(node, node.inputs[node.operation.classes], node.operation.axis)
    )


def _of_each_class(graph: Graph, source: Source) -> Source:
    """Where the largest value of all classes enters, the units are those that it is chosen from."""
    tensor = source.tensor
    while tensor in graph.producers:
        node, _ = graph.producers[tensor]
        match node.operation:
            case Reduce(axes=(axis,), function="max"):
                return Source(source.node, node.inputs[0], axis)
            case _ if hands_on(graph, node) or isinstance(
                node.operation, GatherComputed | Gather | GatherConstant
            ):
                tensor = node.inputs[0]
            case _:
                break
    return source
