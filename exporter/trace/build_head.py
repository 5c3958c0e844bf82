"""Build a head from the results of a walk: find z, the last activation, and the readers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from exporter.graph import Graph, Node
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation, Concat, Elementwise, Linear, Reduce, Slice, Split
from exporter.graph.walk import (
    REARRANGE,
    ancestors,
    computed_inputs,
    dependents,
    only_moves,
)
from exporter.trace.axis_walk import AxisWalk
from exporter.trace.head import Factor, Head, mixes_units
from exporter.trace.normalized_parts import normalized_parts
from exporter.trace.probability_scale import factor_of
from exporter.trace.readers import Readers
from exporter.trace.rules.detections import find_detection
from exporter.trace.rules.protocol import Reading, Refused
from exporter.trace.rules.rankings import find_ranking


def build_head(walk: AxisWalk, output: str, axis: int, units: int) -> Head:
    """The head of an output (raises Refused)."""
    graph = walk.graph
    if not any(_makes_units(walk, node) for node in walk.nodes.values()):
        raise Refused(None, "no linear operation computes it")
    tail = _tail(walk, output)
    body = _body(walk, tail.z)
    if any(_mixes(walk, node) for node in body):  # perhaps other positions are dropped after it
        tail = _tail(walk, output, Slice | Split)
        body = _body(walk, tail.z)
    readers = readers_of(walk, units)
    counts = (width for each in readers.rankings for width in each.counts)
    head = Head(
        name=output,
        output=output,
        axis=axis,
        units=units,
        activation=tail.activation,
        z=tail.z,
        tensors=walk.unit_tensors,
        constants=(*walk.constants, *readers.tables),
        widths=(*walk.widths.values(), *counts),
        body=body,
        tail=tail.nodes,
        factors=tail.factors,
        other_outputs=tuple(o for o in graph.outputs if o in walk.tensors and o != output),
        labels=labels_of(graph, output, units),
        junctions=tuple(walk.junctions.values()),
        readers=readers,
    )
    if mixed := next((node for node in body if _mixes(walk, node)), None):
        parts = normalized_parts(head)
        if not parts:
            raise _mixed_before_z(graph, mixed)
        head = replace(head, normalized=parts)
    _check_other_shares(walk, head)
    return head


def _makes_units(walk: AxisWalk, node: Node) -> bool:
    """Do units begin in a node: in a product, or where features meet a constant of each unit?

    Gaussian naive Bayes subtracts the mean of each class from the features, [batch, 1, features].
    """
    if isinstance(node.operation, Linear):
        return True
    if not isinstance(node.operation, Elementwise) or walk.tensors.keys().isdisjoint(node.outputs):
        return False
    computed = computed_inputs(walk.graph, node)
    slots = {use.slot for each in walk.constants for use in each.uses if use.node == node.name}
    return bool(slots and computed) and walk.tensors.keys().isdisjoint(computed)


def _check_other_shares(walk: AxisWalk, head: Head) -> None:
    """Refuse an output with only other positions of a softmax: it changes with the units."""
    drop = next((node for node in head.tail if isinstance(node.operation, Slice | Split)), None)
    if drop is None or not head.competes:
        return
    shares = next(node for node in head.tail if head.mixes(node))
    read = (name for nodes in walk.readers.values() for node in nodes for name in node.outputs)
    known = dependents(walk.graph, read) | walk.tensors.keys()
    computed = dependents(walk.graph, shares.outputs) - known
    if name := next((name for name in walk.graph.outputs if name in computed), None):
        reason = f"output {name!r} shows a probability of no unit, which a cut changes"
        raise Refused(drop, reason, f"--drop-output {name} removes that output")


def _mixes(walk: AxisWalk, node: Node) -> bool:
    unit_axis = walk.tensors.get(node.outputs[0])
    return unit_axis is not None and mixes_units(node, unit_axis)


def labels_of(graph: Graph, output: str, units: int) -> tuple[str, ...] | None:
    """The labels of an output in the file, if there is one for each unit."""
    labels = graph.labels.get(output)
    return labels if labels is not None and len(labels) == units else None


def _mixed_before_z(graph: Graph, node: Node) -> Refused:
    """The reason why a softmax that is not the last activation is refused."""
    for consumer, _ in graph.consumers.get(node.outputs[0], ()):
        if isinstance(consumer.operation, Concat):
            along_units = consumer.operation.axis == getattr(node.operation, "axis", None)
            hint = "export the model without it"
            if not along_units:
                hint = (
                    "export the model with it after the join, which gives the same values, or "
                    "without it"
                )
            return Refused(node, f"it mixes the units of only one input of {consumer}", hint)
    reason = "it mixes the units before the last activation"
    return Refused(node, reason, "export the model without the operations after it")


def readers_of(walk: AxisWalk, units: int) -> Readers:
    """The nodes that read the units of a walk and return their indices (raises Refused)."""
    graph, found = walk.graph, walk.readers
    detections = [find_detection(graph, n, units, walk.tensors) for n in found[Reading.DETECTION]]
    rankings = [find_ranking(graph, node, walk.tensors) for node in found[Reading.RANKING]]
    detected = dependents(graph, (o for node in found[Reading.DETECTION] for o in node.outputs))
    detected |= {name for each in rankings for name in each.positions}
    for node in found[Reading.GATHER]:
        if node.inputs[1] not in detected:
            raise Refused(node, "it selects units by computed positions")
    divided = [ranking.node for ranking in rankings if ranking.divisions]
    nodes = (*found[Reading.MAXIMUM], *divided)
    from_maximum = dependents(graph, (name for node in nodes for name in node.outputs))
    outputs = tuple(name for name in graph.outputs if name in from_maximum)
    lookups = {node.name: node for node in found[Reading.LOOKUP]}
    tables = (name for node in lookups.values() for name in (node.inputs[0], *node.inputs[2:]))
    looked_up = ancestors(graph, tables).intersection(walk.tensors)
    return Readers(
        tuple(rankings), tuple(detections), outputs, tuple(lookups.values()), frozenset(looked_up)
    )


class _Tail(NamedTuple):
    """The nodes from z to the output, and the factors of those that scale probabilities."""

    nodes: tuple[Node, ...]
    activation: str
    z: str
    factors: dict[str, Factor]


def _tail(walk: AxisWalk, output: str, drops: Any = ()) -> _Tail:
    """The tail that ends in the output. A factor of other values belongs to the body.

    Args:
        walk: the walk of the units.
        output: where the tail ends.
        drops: operations that may drop positions of no unit, such as those of a background.
    """
    linear = _Tail((), "linear", output, {})
    nodes: list[Node] = []
    factors: dict[str, Factor] = {}
    tensor = output
    while True:
        node, _ = walk.graph.producers[tensor]
        factor = factor_of(walk.graph, node, walk.tensors[tensor])
        if factor is None and not (
            _may_be_in_tail(walk.graph, node) or isinstance(node.operation, drops)
        ):
            return linear
        nodes.append(node)
        tensor = node.inputs[0]
        if factor is not None:
            tensor, factors[node.name] = factor
        elif isinstance(node.operation, Activation):
            function = node.operation.function
            if factors and not ACTIVATIONS[function].probability:
                return linear
            return _Tail(tuple(reversed(nodes)), function, tensor, factors)


def _may_be_in_tail(graph: Graph, node: Node) -> bool:
    kinds = REARRANGE | Activation | Reduce
    if isinstance(node.operation, kinds):
        return True
    return only_moves(node, "quantize", "dequantize") and len(computed_inputs(graph, node)) == 1


def _body(walk: AxisWalk, z: str) -> tuple[Node, ...]:
    """The nodes with a unit axis that z depends on."""

    def passes(node: Node) -> bool:
        return not walk.tensors.keys().isdisjoint(node.outputs)

    needed = ancestors(walk.graph, [z], passes)
    with_units = {name for name in needed if name in walk.tensors}
    nodes = {node.name: node for node, _ in map(walk.graph.producers.__getitem__, with_units)}
    return tuple(sorted(nodes.values(), key=lambda node: walk.graph.positions[node.name]))
