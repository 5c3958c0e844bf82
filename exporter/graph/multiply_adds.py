"""Count the multiply-adds of a graph for one sample.

A product runs through nested loops: over the positions of its result, and over the axes that it
sums. Its multiply-adds are the product of the lengths of these loops. For a dense layer from 9
features to 5 units these are 9 x 5; for attention scores of 64 queries and 64 keys with 32 features
they are 64 x 64 x 32. Only products count: a ReLU or an addition costs 0.

The batch is the first axis of the graph's inputs. If the file leaves it open, an axis of unknown
length has as many positions as one sample gives it, which `Reshape` operations tell: an attention
that moves 8 heads to the batch axis has 8 positions on it. If the file fixes the batch, the counts
are divided by it. A count that the graph does not tell is None.

Example:
    >>> before = multiply_adds(model.graph())
    >>> after = multiply_adds(model.apply(plan).graph())
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from exporter.graph.graph import Graph, Node
from exporter.graph.operations import Linear, Opaque, Reshape
from exporter.graph.products import OUTPUT, Axis, Product, Products, axes


def multiply_adds(graph: Graph, nodes: Iterable[Node] | None = None) -> int | None:
    """The multiply-adds of some nodes for one sample; None if one of them is not known.

    Args:
        graph: contains the nodes.
        nodes: all nodes of the graph if not given.
    """
    counter = _Counter(graph)
    total = 0
    for node in graph.nodes if nodes is None else nodes:
        count = counter.count(node)
        if count is None:
            return None
        total += count
    batch = _fixed_batch(graph)
    return total // batch if total % batch == 0 else None


def _fixed_batch(graph: Graph) -> int:
    """The number of samples of one run, if the file fixes it: the inputs and outputs have it."""
    shapes = [graph.shape(name) for name in (*graph.inputs[:1], *graph.outputs[:1])]
    firsts = {shape[0] if len(shape) > 1 else None for shape in shapes}
    return firsts.pop() or 1 if len(firsts) == 1 else 1


class _Counter:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._open: dict[str, int | None] = {}  # tensor -> positions per sample on its open axis

    def count(self, node: Node) -> int | None:
        products = self._products(node)
        if products is None:
            return None
        counts = [self._product(node, each) for each in products]
        return None if None in counts else sum(n for n in counts if n is not None)

    def _products(self, node: Node) -> Products:
        """As the file's format states them, or as the operation defines them."""
        if node.products != ():
            return node.products
        if isinstance(node.operation, Linear):
            return self._linear(node, node.operation)
        has_matrix = any(_is_matrix(self._graph, name) for name in node.inputs if name)
        return None if isinstance(node.operation, Opaque) and has_matrix else ()

    def _linear(self, node: Node, operation: Linear) -> Products:
        """Each value of the kernel once at each position of the output."""
        kernel = self._graph.tensors[node.inputs[operation.kernel]].shape
        output = self._graph.tensors[node.outputs[0]].shape
        if not kernel or output is None:
            return None
        loops = axes(operation.kernel, len(kernel))
        if operation.packed_bits is not None:  # the shape is of packed values: (units, inputs)
            loops = (Axis(operation.kernel, operation.kernel_axis), Axis(0, -1))
        positions = axes(OUTPUT, len(output), without=operation.output_axis)
        return ((*loops, *positions),)

    def _product(self, node: Node, loops: Product) -> int | None:
        lengths = [self._length(node, loop) for loop in loops]
        return None if None in lengths else prod(n for n in lengths if n is not None)

    def _length(self, node: Node, loop: Axis | int) -> int | None:
        if isinstance(loop, int):
            return loop
        name = node.outputs[~loop.slot] if loop.slot < 0 else node.inputs[loop.slot]
        shape = self._graph.shape(name)
        if not -len(shape) <= loop.axis < len(shape):
            return None
        known = shape[loop.axis]
        return self._open_length(name) if known is None else known

    def _open_length(self, tensor: str) -> int | None:
        """The positions per sample on the only axis of unknown length.

        It comes from the batch of an input, through the first computed input of each node.
        """
        chain: list[tuple[str, str]] = []
        while tensor not in self._open:
            source = self._source(tensor)
            if source is None:
                self._open[tensor] = self._batch(tensor)
            else:
                chain.append((tensor, source))
                tensor = source
        found = self._open[tensor]
        for result, source in reversed(chain):
            found = self._open[result] = self._carried(source, result, found)
        return found

    def _source(self, tensor: str) -> str | None:
        """The input of the producer that has an axis of unknown length; None for graph inputs."""
        if tensor not in self._graph.producers:
            return None
        node, _ = self._graph.producers[tensor]
        return next((name for name in node.inputs if name and self._is_open(name)), None)

    def _is_open(self, tensor: str) -> bool:
        return None in self._graph.shape(tensor)

    def _batch(self, tensor: str) -> int | None:
        """1 for an input or output of the graph whose batch alone is open."""
        shape = self._graph.shape(tensor)
        is_end = tensor in self._graph.inputs or tensor in self._graph.outputs
        return 1 if is_end and shape[:1] == (None,) and None not in shape[1:] else None

    def _carried(self, source: str, result: str, positions: int | None) -> int | None:
        node, _ = self._graph.producers[result]
        before, after = self._graph.shape(source), self._graph.shape(result)
        if positions is None or after.count(None) != 1:
            return None
        if not isinstance(node.operation, Reshape):
            return positions
        values = positions * prod(n for n in before if n is not None)
        others = prod(n for n in after if n is not None)
        return values // others if others and values % others == 0 else None


def _is_matrix(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    return tensor.is_constant and sum(n != 1 for n in tensor.shape or ()) > 1
