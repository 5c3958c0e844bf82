"""Combine the operations of a softmax, which a file writes one by one, into one activation.

JAX has no softmax operation and traces exp(z - max(z)) / sum(...); some converters write it so for
an axis that is not the last. Naive Bayes classifiers of scikit-learn return exp(log_softmax(z)),
PyTorch models log(softmax(z)), and classifiers of one class against the rest return probabilities
divided by their sum. Each of these operations alone would mix the units.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from exporter.graph.activations import ACTIVATIONS
from exporter.graph.graph import Graph, Node
from exporter.graph.operations import Activation, Expand, Reduce, Reshape, ShapeOf
from exporter.graph.walk import applies, computed_inputs, upstream

EXP = Activation("exp")

# An operator, and the activation that it is applied to -> what both compute together.
_OF_SOFTMAX = {("EXP", "log_softmax"): "softmax", ("LOG", "softmax"): "log_softmax"}


class _Reduced(NamedTuple):
    """One value for all positions along an axis, in a shape that broadcasts to theirs."""

    source: str  # the tensor that is reduced
    axis: int
    nodes: tuple[Node, ...]
    functions: tuple[str, ...]  # the reduction, then functions of its result


class _Found(NamedTuple):
    """A softmax, the logarithm of one, or probabilities divided by their sum."""

    activation: Activation
    z: str
    nodes: tuple[Node, ...]  # all but the last
    wide: tuple[str, ...]  # its inner tensors with the width of z


def combine_softmaxes(graph: Graph, operators: Container[str]) -> Graph:
    """The graph with each softmax as one node, named after its last operation.

    Its inner tensors with the width of the logits are further outputs of that node, so that a cut
    changes their shapes. A softmax whose inner tensors have other consumers is not combined.

    Args:
        graph: of a file.
        operators: of the file, that divide or subtract. A softmax ends in one of them, or in an
            exponential or a logarithm of one.
    """
    graph = _with_sigmoids(graph)
    last = (node for node in graph.nodes if node.operator in operators)
    found = {node.name: match for node in last if (match := _match(graph, node)) is not None}
    combined = {node.name for match in found.values() for node in match.nodes}
    nodes = []
    for node in graph.nodes:
        match = found.get(node.name)
        if match is not None:
            outputs = (*node.outputs, *match.wide)
            nodes.append(
                replace(node, operation=match.activation, inputs=(match.z,), outputs=outputs)
            )
        elif node.name not in combined:
            nodes.append(node)
    combined_graph = replace(graph, nodes=tuple(nodes)) if found else graph
    return _with_functions_of_softmaxes(combined_graph)


def _with_sigmoids(graph: Graph) -> Graph:
    """The graph with 1 / (1 + exp(-z)), as skl2onnx writes it, as one sigmoid."""
    changed: dict[str, Node | None] = {}
    for node in graph.nodes:
        addition = (
            _producer(graph, node.inputs[0], "Add") if node.operator == "Reciprocal" else None
        )
        exp = _exp(graph, addition.inputs[0]) if addition else None
        negation = _producer(graph, exp.inputs[0], "Mul") if exp else None
        if not (addition and exp and negation):
            continue
        numbers = [_scalar(graph, each.inputs[1]) for each in (addition, negation)]
        inner = tuple(each.outputs[0] for each in (negation, exp, addition))
        once = all(len(graph.consumers.get(name, ())) == 1 for name in inner)
        if numbers == [1.0, -1.0] and once and not {*inner} & {*graph.outputs}:
            changed |= dict.fromkeys((negation.name, exp.name, addition.name))
            sigmoid = replace(node, operation=Activation("sigmoid"), inputs=negation.inputs[:1])
            changed[node.name] = replace(sigmoid, outputs=(*node.outputs, *inner))
    return _with_changed(graph, changed)


def _with_changed(graph: Graph, changed: Mapping[str, Node | None]) -> Graph:
    """The graph with other nodes of these names; None removes one."""
    if not changed:
        return graph
    nodes = (changed.get(node.name, node) for node in graph.nodes)
    return replace(graph, nodes=tuple(node for node in nodes if node is not None))


def _with_functions_of_softmaxes(graph: Graph) -> Graph:
    """The graph with the exponential of a log-softmax as a softmax, and the other way around.

    A softmax that something else reads stays.
    """
    changed: dict[str, Node | None] = {}
    for node in graph.nodes:
        operator = node.operator.upper()  # other nodes are not translated for this
        if operator not in {name for name, _ in _OF_SOFTMAX}:
            continue
        before, _ = graph.producers.get(node.inputs[0], (None, 0))
        match before.operation if before is not None else None:
            case Activation(function, axis, given) if (
                before and (operator, function) in _OF_SOFTMAX
            ):
                names = before.outputs
                readers = {
                    reader.name for name in names for reader, _ in graph.consumers.get(name, ())
                }
                inner = names if readers == {node.name} and not {*names} & {*graph.outputs} else ()
                if inner:
                    changed[before.name] = None
                least = (("least", _smallest(graph, names[0])),) if operator == "LOG" else ()
                both = Activation(_OF_SOFTMAX[operator, function], axis, (*given, *least))
                made = replace(node, operation=both, inputs=before.inputs[:1])
                changed[node.name] = replace(made, outputs=(*node.outputs, *inner))
    return _with_changed(graph, changed)


def _smallest(graph: Graph, tensor: str) -> float:
    """The smallest positive number of a tensor's dtype."""
    dtype = graph.tensors[tensor].dtype
    name = dtype if dtype in {"float16", "float64"} else "float32"
    return float(np.finfo(name).smallest_subnormal)


def _match(graph: Graph, last: Node) -> _Found | None:
    """The softmax that ends in a node, if nothing else reads its inner tensors."""
    is_computed = all(name in graph.producers for name in last.inputs)
    ends = is_computed and applies(last, "div", "sub")
    found = _guarded(graph, last) if ends else None
    reduced = _reduced(graph, *last.inputs[::-1]) if ends and found is None else None
    if reduced is not None:
        match = _softmax if applies(last, "div") else _log_softmax
        found = match(graph, last.inputs[0], reduced)
    if found is None:
        return None
    inside = {last.name, *(node.name for node in found.nodes)}
    inner = {name for node in found.nodes for name in node.outputs}
    consumers = {
        consumer.name
        for name in inner
        for consumer, _ in graph.consumers.get(name, ())
        if not isinstance(consumer.operation, ShapeOf)  # the lengths do not change
    }
    return found if consumers <= inside and inner.isdisjoint(graph.outputs) else None


def _guarded(graph: Graph, last: Node) -> _Found | None:
    """Probabilities divided by their sum, or equal constants if all of them are 0.

    scikit-learn writes (p + none) / (sum(p) + none * count), where none is 1 if the sum is 0, else
    0: `Cast(Not(Cast(sum, bool)))`.
    """
    sums = [graph.producers[name][0] for name in last.inputs]
    if not applies(last, "div") or any(each.operator != "Add" for each in sums):
        return None
    (value, none), (total, share) = (each.inputs for each in sums)
    back, product = _producer(graph, none, "Cast"), _producer(graph, share, "Mul")
    negation = _producer(graph, back.inputs[0], "Not") if back else None
    truth = _producer(graph, negation.inputs[0], "Cast") if negation else None
    reduced = _reduced(graph, total, value)
    count = _scalar(graph, product.inputs[1]) if product and product.inputs[0] == none else None
    if not (back and product and negation and truth and reduced and count):
        return None
    node, _ = graph.producers[value]
    plain = reduced.source == value and reduced.functions == ("sum",) and _is_probability(node)
    if not plain or truth.inputs[0] != total or graph.tensors[truth.outputs[0]].dtype != "bool":
        return None
    share_of = Activation("l1_normalize", reduced.axis, (("empty", 1.0 / count),))
    nodes = (*reduced.nodes, truth, negation, back, product, *sums)
    return _Found(share_of, value, nodes, sums[0].outputs)


def _producer(graph: Graph, tensor: str, operator: str) -> Node | None:
    node, _ = graph.producers.get(tensor, (None, 0))
    return node if node is not None and node.operator == operator else None


def _scalar(graph: Graph, tensor: str) -> float | None:
    """The value of a constant with one value."""
    constant = graph.tensors[tensor]
    value = None if constant.read is None else constant.read()
    return value.item() if value is not None and value.size == 1 else None


def _softmax(graph: Graph, value: str, total: _Reduced) -> _Found | None:
    if total.source != value or total.functions not in {("sum",), ("l1",)}:
        return None
    exp = _exp(graph, value)
    if exp is None:
        node, _ = graph.producers[value]
        share = Activation("l1_normalize", total.axis)
        is_share = total.functions == ("l1",) or _is_probability(node)
        return _Found(share, value, total.nodes, ()) if is_share else None
    z, nodes, wide = _without_maximum(graph, exp.inputs[0], total.axis)
    softmax = Activation("softmax", total.axis)
    return _Found(softmax, z, (*nodes, exp, *total.nodes), (*wide, value))


def _log_softmax(graph: Graph, value: str, total: _Reduced) -> _Found | None:
    log_softmax = Activation("log_softmax", total.axis)
    z, nodes, wide = _without_maximum(graph, value, total.axis)
    exp = _exp(graph, total.source)
    if total.functions == ("log_sum_exp",) and total.source == value:
        return _Found(log_softmax, z, (*nodes, *total.nodes), wide)
    if total.functions == ("sum", "log") and exp is not None and exp.inputs == (value,):
        return _Found(log_softmax, z, (*nodes, exp, *total.nodes), (*wide, total.source))
    return None


def _exp(graph: Graph, tensor: str) -> Node | None:
    node, _ = graph.producers.get(tensor, (None, 0))
    is_exp = node is not None and node.operation == EXP
    return node if is_exp else None


def _is_probability(node: Node) -> bool:
    """Are its results in [0, 1], each from one value? Their sum is that of the absolute values."""
    if not isinstance(node.operation, Activation):
        return False
    function = ACTIVATIONS[node.operation.function]
    return function.probability and not function.mixes


def _without_maximum(
    graph: Graph, tensor: str, axis: int
) -> tuple[str, tuple[Node, ...], tuple[str, ...]]:
    """The tensor before its maximum was subtracted, the nodes that did that, and their results."""
    node, _ = graph.producers.get(tensor, (None, 0))
    if node is not None and applies(node, "sub"):
        z, maximum = node.inputs
        found = _reduced(graph, maximum, z)
        if found and (found.source, found.axis, {*found.functions}) == (z, axis, {"max"}):
            return z, (*found.nodes, node), (tensor,)
    return tensor, (), ()


def _reduced(graph: Graph, tensor: str, other: str) -> _Reduced | None:
    """The reduction that a tensor comes from, if it has one value for each axis of another tensor.

    Between the reduction and the tensor only moves, a logarithm and a lower bound are allowed.
    """

    def follow(node: Node) -> str | None:
        if isinstance(node.operation, Reshape | Expand):
            return node.inputs[0]
        computed = computed_inputs(graph, node)
        moves = applies(node, "identity", "log", "max") and len(computed) == 1
        return computed[0] if moves else None

    nodes = [node for node, _ in upstream(graph.producers, tensor, follow)][::-1]
    match nodes[0].operation if nodes else None:
        case Reduce(axes=(axis,), function=function):
            wide, shape = graph.shape(other), graph.shape(tensor)
            narrow = (*wide[:axis], 1, *wide[axis + 1 :])
            if (*[1] * (len(narrow) - len(shape)), *shape) != narrow:
                return None
            later = (getattr(node.operation, "function", "identity") for node in nodes[1:])
            functions = (function, *(each for each in later if each != "identity"))
            return _Reduced(nodes[0].inputs[0], axis, tuple(nodes), functions)
    return None
