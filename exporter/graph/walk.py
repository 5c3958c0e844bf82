"""One walk through a graph, backward or forward, and which operations only move values.

For example, `origin(graph.producers, output, through("cast"))` is the tensor before the reshapes,
transposes and casts that lead to `output`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType

from exporter.graph.graph import Graph, Node, Quantization
from exporter.graph.operations import Elementwise, Reshape, Transpose

Producers = Mapping[str, tuple[Node, int]]  # as `Graph.producers`
Follow = Callable[[Node], str | None]  # the input through which a walk continues, None to stop

REARRANGE = Reshape | Transpose
"""Operations that return every value of their input once, without changing it."""


def applies(node: Node, *functions: str) -> bool:
    """Is the node an elementwise operation with one of these functions?"""
    return isinstance(node.operation, Elementwise) and node.operation.function in functions


def only_moves(node: Node, *functions: str, kinds: UnionType = REARRANGE) -> bool:
    """Does the node only move values, or apply one of these elementwise functions?

    Args:
        node: any.
        functions: elementwise functions that count as moves here, in addition to "identity".
        kinds: the operations that count as moves here.
    """
    return isinstance(node.operation, kinds) or applies(node, "identity", *functions)


def computed_inputs(graph: Graph, node: Node) -> list[str]:
    """The inputs of a node that are not constants."""
    return [name for name in node.inputs if name and not graph.tensors[name].is_constant]


def moves_one_input(graph: Graph, node: Node, *functions: str) -> bool:
    """Does `only_moves` accept the node, and does an elementwise one have one computed input?"""
    joins = isinstance(node.operation, Elementwise) and len(computed_inputs(graph, node)) != 1
    return only_moves(node, *functions) and not joins


def through(*functions: str, kinds: UnionType = REARRANGE) -> Follow:
    """A `Follow` through the first input of every node that `only_moves` accepts."""
    return lambda node: node.inputs[0] if only_moves(node, *functions, kinds=kinds) else None


def upstream(producers: Producers, tensor: str, follow: Follow) -> Iterator[tuple[Node, int]]:
    """The producer of a tensor and the slot of its output, then the producer of the input that
    `follow` names, and so on. The last one is the node at which `follow` stops.
    """
    following, met = tensor, set[str]()
    while following in producers and following not in met:  # a cycle: an input is its own output
        met.add(following)
        node, slot = producers[following]
        yield node, slot
        following = follow(node) or ""


def origin(producers: Producers, tensor: str, follow: Follow) -> str:
    """The tensor that a walk from another one backward ends at."""
    for node, _ in upstream(producers, tensor, follow):
        tensor = follow(node) or tensor
    return tensor


def quantization_of(
    producers: Producers, quantization: Callable[[str], Quantization | None], name: str
) -> Quantization | None:
    """How a tensor is quantized, or the tensor that its real values are dequantized from.

    Args:
        producers: see `Producers`.
        quantization: tensor -> how its own values are quantized, None if they are real.
        name: of the tensor.
    """

    def follow(node: Node) -> str | None:
        return through("dequantize")(node) if quantization(node.outputs[0]) is None else None

    return quantization(origin(producers, name, follow))


def ancestors(
    graph: Graph, tensors: Iterable[str], passes: Callable[[Node], bool] = lambda _: True
) -> set[str]:
    """The tensors and all that they are computed from.

    Args:
        graph: contains the tensors.
        tensors: names.
        passes: does the walk continue with the inputs of a node?
    """
    found, waiting = set[str](), list(tensors)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            if name in graph.producers and passes(graph.producers[name][0]):
                waiting += [each for each in graph.producers[name][0].inputs if each]
    return found


def dependents(
    graph: Graph, tensors: Iterable[str], passes: Callable[[Node, int], bool] = lambda _n, _s: True
) -> set[str]:
    """The tensors and all that is computed from them.

    Args:
        graph: contains the tensors.
        tensors: names; "" is skipped.
        passes: node, slot of the input -> does the walk continue with the node's outputs?
    """
    waiting = [name for name in tensors if name]
    found = set(waiting)
    while waiting:
        for node, slot in graph.consumers.get(waiting.pop(), ()):
            if passes(node, slot):
                new = [name for name in node.outputs if name and name not in found]
                found.update(new)
                waiting += new
    return found
