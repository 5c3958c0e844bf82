"""The products that read channel groups, and where their kernels and biases are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.channels.groups import Channels
from exporter.channels.walk import Consumer
from exporter.graph import Array, Graph, Node, Use
from exporter.graph.operations import Elementwise, Linear
from exporter.graph.walk import ancestors
from exporter.trimming.design import Design


@dataclass(frozen=True, eq=False)
class ProductToFit:
    """A product that reads channels of one or more groups.

    Attributes:
        units: group -> its unit of each column, (columns,); FIXED for columns of other groups.
        bias: the constant that is added to its channels, and the input that reads it; None if there
            is none, or the product is folded.
    """

    graph: Graph
    design: Design
    units: dict[str, Array]
    bias: tuple[str, Use] | None

    @property
    def node(self) -> Node:
        return self.design.consumer.node

    @property
    def data(self) -> str:
        """The tensor that it reads."""
        return self.node.inputs[self.design.consumer.contraction.data]

    @property
    def kernel(self) -> str:
        return self.node.inputs[self.design.operation.kernel]

    @property
    def kernel_use(self) -> Use:
        return Use(self.node.name, self.design.operation.kernel)

    @cached_property
    def values(self) -> Array:
        """The original kernel."""
        read = self.graph.tensors[self.kernel].read
        assert read is not None  # noqa: S101 - narrows the type; the walk has checked it
        return read()

    @property
    def weights(self) -> Array:
        """(columns, outputs) float64"""
        return self.design.weights(self.values)


def products_of(graph: Graph, channels: Channels) -> tuple[ProductToFit, ...]:
    """The products in running order."""
    found: dict[str, ProductToFit] = {}
    for group in channels.groups:
        for consumer in group.consumers:
            known = found.get(consumer.node.name)
            if known is None:
                design = Design.of(graph, consumer)
                bias = None if design.folded else _bias(graph, consumer)
                known = ProductToFit(graph, design, {}, bias)
                found[consumer.node.name] = known
            design = known.design
            own = Design(consumer, design.kernel_shape, design.folded, design.places)
            known.units[group.name] = own.units
    return tuple(sorted(found.values(), key=lambda each: graph.positions[each.node.name]))


def in_waves(graph: Graph, products: tuple[ProductToFit, ...]) -> list[list[ProductToFit]]:
    """The products in steps: none of a step reads the result of another one of it."""
    waves: list[list[ProductToFit]] = []
    results = set[str]()
    for each in products:
        if not waves or ancestors(graph, [each.data]) & results:
            waves.append([])
            results = set()
        waves[-1].append(each)
        results.update(each.node.outputs)
    return waves


def _bias(graph: Graph, consumer: Consumer) -> tuple[str, Use] | None:
    """Its own bias, or a constant that the only reader of its output adds."""
    node, operation = consumer.node, consumer.node.operation
    assert isinstance(operation, Linear)  # noqa: S101 - narrows the type
    output = node.outputs[0]
    width = graph.shape(output)[operation.output_axis]
    if operation.bias is not None:
        return _constant(graph, node, operation.bias, width)
    readers = graph.consumers.get(output, ())
    if len(readers) != 1 or output in graph.outputs:
        return None
    reader, slot = readers[0]
    is_sum = isinstance(reader.operation, Elementwise) and reader.operation.function == "add"
    if not is_sum or len(reader.inputs) != 2 or reader.outputs[0] == output:  # noqa: PLR2004
        return None
    other = 1 - slot
    shape = graph.shape(reader.inputs[other])
    own = operation.output_axis - (len(graph.shape(output)) - len(shape))
    if own < 0 or own >= len(shape) or shape[own] != width:
        return None
    return _constant(graph, reader, other, width)


def _constant(graph: Graph, node: Node, slot: int, width: int | None) -> tuple[str, Use] | None:
    tensor = graph.tensors[node.inputs[slot]]
    size = int(np.prod([n or 0 for n in tensor.shape or ()]))
    if not tensor.is_constant or size != width or not tensor.dtype.startswith("float"):
        return None
    return tensor.name, Use(node.name, slot)
