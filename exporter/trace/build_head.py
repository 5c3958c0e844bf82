"""A head out of what a walk has noted: where z is, which activation follows, and what makes z."""

from __future__ import annotations

from exporter.graph import Graph, Node
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import (
    Activation,
    Concat,
    Elementwise,
    Linear,
    Reduce,
    Reshape,
    Transpose,
)
from exporter.graph.walk import dependents
from exporter.trace.head import Factor, Head, Ranking, Readers, UnitTensor
from exporter.trace.probability_scale import factor_of
from exporter.trace.rules.detectors import find_detection
from exporter.trace.rules.protocol import Refused
from exporter.trace.rules.ranking import find_ranking
from exporter.trace.walk import Walk


def head_of(walk: Walk, output: str, axis: int, units: int) -> Head:
    graph = walk.graph
    order = [node for node in graph.nodes if node.name in walk.nodes]
    if not any(isinstance(node.operation, Linear) for node in order):
        raise Refused(None, "no linear operation makes it")
    tail, activation, z, factors = _tail(walk, output)
    body = _made_by(walk, z, order)
    detections = tuple(find_detection(graph, node, units, walk.tensors) for node in walk.detecting)
    rankings = tuple(find_ranking(graph, node, walk.tensors) for node in walk.ranking)
    for node in walk.fetching:
        if not any(node.inputs[1] in dependents(graph, each.outputs) for each in walk.detecting):
            raise Refused(node, "it takes units by computed places")
    head = Head(
        name=output,
        output=output,
        axis=axis,
        units=units,
        activation=activation,
        z=z,
        tensors=tuple(
            UnitTensor(name, each.shape or (), each.dtype, labels, each.quantization)
            for name, labels in walk.tensors.items()
            for each in (graph.tensors[name],)
        ),
        constants=(
            *walk.constants,
            *(table for each in detections for table in each.tables),
            *(table for each in rankings for table in each.tables),
        ),
        widths=(*walk.widths.values(), *(width for each in rankings for width in each.counts)),
        body=body,
        tail=tail,
        factors=factors,
        other_outputs=tuple(o for o in graph.outputs if o in walk.tensors and o != output),
        labels=labels_of(graph, output, units),
        junctions=tuple(walk.junctions.values()),
        readers=Readers(rankings, detections, _unranked(walk, rankings)),
    )
    for node in body:
        if mixes(node, head):
            raise _mixed(graph, node)
    return head


_ALONE = "export the model without what follows it"
_BEHIND = "export the model with it behind the join, which gives the same values, or without it"


def _mixed(graph: Graph, node: Node) -> Refused:
    """Of one map's units, where the maps are joined behind it, or of all."""
    for reader, _ in graph.consumers.get(node.outputs[0], ()):
        if isinstance(reader.operation, Concat):
            beside = reader.operation.axis == getattr(node.operation, "axis", None)
            hint = "export the model without it" if beside else _BEHIND
            return Refused(node, f"it mixes the units of one part of what {reader} joins", hint)
    return Refused(node, "it mixes the units before the last activation", _ALONE)


def _unranked(walk: Walk, rankings: tuple[Ranking, ...]) -> tuple[str, ...]:
    """The outputs made of the largest of the units' values, or of what ranks rows of units."""
    nodes = (*walk.peaks, *(each.node for each in rankings if each.divided))
    behind = set[str]().union(*(dependents(walk.graph, node.outputs) for node in nodes))
    return tuple(name for name in walk.graph.outputs if name in behind)


def labels_of(graph: Graph, output: str, units: int) -> tuple[str, ...] | None:
    """The labels that the file has for an output, if they are those of this axis."""
    labels = graph.labels.get(output)
    return labels if labels is not None and len(labels) == units else None


_Tail = tuple[tuple[Node, ...], str, str, dict[str, Factor]]


def _tail(walk: Walk, output: str) -> _Tail:
    """The nodes from z to the output, the activation's name, z, and the factors among the nodes.

    Factors are those of probabilities alone: what scales other values belongs to the values.
    """
    nodes: list[Node] = []
    factors: dict[str, Factor] = {}
    tensor = output
    while True:
        node, _ = walk.graph.producers[tensor]
        factor = factor_of(walk.graph, node, walk.tensors[tensor])
        if factor is None and not _in_tail(walk.graph, node):
            return (), "linear", output, {}
        nodes.insert(0, node)
        tensor = node.inputs[0]
        if factor is not None:
            tensor, factors[node.name] = factor
        elif isinstance(node.operation, Activation):
            function = node.operation.function
            if factors and not ACTIVATIONS[function].probability:
                return (), "linear", output, {}
            return tuple(nodes), function, tensor, factors


def _made_by(walk: Walk, z: str, order: list[Node]) -> tuple[Node, ...]:
    """The labeled nodes that z depends on; what else reads a labeled tensor is left out."""
    needed, waiting = set[str](), [z]
    while waiting:
        node, _ = walk.graph.producers[waiting.pop()]
        if node.name not in needed:
            needed.add(node.name)
            waiting += [name for name in node.inputs if name in walk.tensors]
    return tuple(node for node in order if node.name in needed)


def _in_tail(graph: Graph, node: Node) -> bool:
    match node.operation:
        case Activation() | Reshape() | Transpose() | Reduce():
            return True
        case Elementwise(
            function="identity" | "quantize" | "dequantize"
        ):  # one computed input: nothing is joined here
            return (
                sum(1 for name in node.inputs if name and not graph.tensors[name].is_constant) == 1
            )
        case _:
            return False


def mixes(node: Node, head: Head) -> bool:
    """Does the node make every unit's value depend on the others?"""
    operation = node.operation
    return (
        isinstance(operation, Activation)
        and ACTIVATIONS[operation.function].mixes
        and operation.axis == head.tensor(node.outputs[0]).unit_axis.axis
    )
