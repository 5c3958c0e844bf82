"""Softmaxes that a file takes apart: exponentials and their sum, drawn as the one activation.

JAX has no softmax of its own and traces exp(z - max(z)) / sum(...), and some converters write it so
for axes that are not last. Each of these operators alone would mix the units.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from exporter.graph.graph import Graph, Node
from exporter.graph.operations import Activation, Elementwise, Expand, Reduce, Reshape, ShapeOf


class _Reduced(NamedTuple):
    """One value for all positions along an axis, in a shape that broadcasts to theirs."""

    source: str  # what was reduced
    axis: int
    nodes: tuple[Node, ...]
    functions: tuple[str, ...]  # what was computed, from the reduction on


class _Found(NamedTuple):
    """A softmax, or the logarithm of one."""

    activation: Activation
    z: str
    nodes: tuple[Node, ...]  # all of them but the last
    wide: tuple[str, ...]  # the tensors inside that are as wide as z


def combine_softmaxes(graph: Graph) -> Graph:
    """The graph with each softmax as one node, named after its last operator.

    The tensors inside that are as wide as the logits are further outputs of that node, so that
    their shapes follow a cut. One of which something else reads a part stays as it is.
    """
    found = {node.name: match for node in graph.nodes if (match := _match(graph, node)) is not None}
    gone = {node.name for match in found.values() for node in match.nodes}
    nodes = []
    for node in graph.nodes:
        match = found.get(node.name)
        if match is not None:
            outputs = (*node.outputs, *match.wide)
            nodes.append(
                replace(node, operation=match.activation, inputs=(match.z,), outputs=outputs)
            )
        elif node.name not in gone:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if found else graph


def _match(graph: Graph, last: Node) -> _Found | None:
    """What the node ends, if nothing else reads what is inside."""
    found = _ended(graph, last)
    if found is None:
        return None
    inside = {last.name, *(node.name for node in found.nodes)}
    made = {name for node in found.nodes for name in node.outputs}
    readers = {
        user.name
        for name in made
        for user, _ in graph.consumers.get(name, ())
        if not isinstance(user.operation, ShapeOf)  # lengths stay what they are
    }
    return found if readers <= inside and not made.intersection(graph.outputs) else None


def _ended(graph: Graph, last: Node) -> _Found | None:
    operation = last.operation
    if not isinstance(operation, Elementwise) or operation.function not in {"div", "sub"}:
        return None
    value, divisor = last.inputs
    under = _reduced(graph, divisor, value)
    if under is None:
        return None
    return (_softmax if operation.function == "div" else _logarithm)(graph, value, under)


def _softmax(graph: Graph, value: str, under: _Reduced) -> _Found | None:
    powers = _powers(graph, value)
    if powers is None or under.functions != ("sum",) or under.source != value:
        return None
    z, nodes, wide = _shifted(graph, powers.inputs[0], under.axis)
    softmax = Activation("softmax", under.axis)
    return _Found(softmax, z, (*nodes, powers, *under.nodes), (*wide, value))


def _logarithm(graph: Graph, value: str, under: _Reduced) -> _Found | None:
    logarithm = Activation("log_softmax", under.axis)
    z, nodes, wide = _shifted(graph, value, under.axis)
    powers = _powers(graph, under.source)
    if under.functions == ("log_sum_exp",) and under.source == value:
        return _Found(logarithm, z, (*nodes, *under.nodes), wide)
    if under.functions == ("sum", "log") and powers is not None and powers.inputs == (value,):
        return _Found(logarithm, z, (*nodes, powers, *under.nodes), (*wide, under.source))
    return None


def _powers(graph: Graph, tensor: str) -> Node | None:
    node, _ = graph.producers.get(tensor, (None, 0))
    is_exp = node is not None and node.operation == Activation("exp")
    return node if is_exp else None


def _shifted(graph: Graph, tensor: str, axis: int) -> tuple[str, tuple[Node, ...], tuple[str, ...]]:
    """What a tensor is but for its largest value, which may have been taken from it."""
    node, _ = graph.producers.get(tensor, (None, 0))
    if node is not None and getattr(node.operation, "function", "") == "sub":
        z, largest = node.inputs
        under = _reduced(graph, largest, z)
        if (
            under is not None
            and (under.source, under.axis) == (z, axis)
            and set(under.functions) == {"max"}
        ):
            return z, (*under.nodes, node), (tensor,)
    return tensor, (), ()


def _reduced(graph: Graph, tensor: str, beside: str) -> _Reduced | None:
    """What the tensor is, if it is one value for all along an axis of the other one.

    Only operators that move values, a logarithm, and a bound from below may stand behind the
    reduction.
    """
    nodes: list[Node] = []
    functions: list[str] = []
    reached, wide = tensor, graph.shape(beside)
    while True:
        node, _ = graph.producers.get(reached, (None, 0))
        if node is None:
            return None
        nodes.insert(0, node)
        match node.operation:
            case Reduce(axes=(axis,), function=function):
                flat = (*wide[:axis], 1, *wide[axis + 1 :])
                shape = graph.shape(tensor)
                fits = (*[1] * (len(flat) - len(shape)), *shape) == flat
                whole = (function, *functions)
                return _Reduced(node.inputs[0], axis, tuple(nodes), whole) if fits else None
            case Reshape() | Expand():
                reached = node.inputs[0]
            case Elementwise(function="identity" | "log" | "max" as function):
                if function != "identity":
                    functions.insert(0, function)
                computed = [n for n in node.inputs if n and not graph.tensors[n].is_constant]
                if len(computed) != 1:
                    return None
                reached = computed[0]
            case _:
                return None
