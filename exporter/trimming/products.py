"""The products that read channel groups, and where their kernels and biases are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from exporter.channels.groups import Channels
from exporter.channels.walk import Consumer
from exporter.graph import Array, Graph, Node, Use
from exporter.graph.operations import Elementwise, Linear
from exporter.graph.walk import ancestors
from exporter.trimming.design import Design


class Bias(NamedTuple):
    """A constant that is added to the channels of a product, or subtracted from them.

    Attributes:
        use: the input that reads it.
        sign: -1 for the mean of a batch normalization, which is subtracted.
    """

    constant: str
    use: Use
    sign: int = 1


@dataclass(frozen=True, eq=False)
class ProductToFit:
    """A product that reads channels of one or more groups.

    Attributes:
        units: group -> its unit of each column, (columns,); FIXED for columns of other groups.
        bias: None if there is none, or the product is folded.
    """

    graph: Graph
    design: Design
    units: dict[str, Array]
    bias: Bias | None

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


def _bias(graph: Graph, consumer: Consumer) -> Bias | None:
    """Its own bias, or a constant that the only reader of its output adds or subtracts."""
    node, operation = consumer.node, consumer.node.operation
    assert isinstance(operation, Linear)  # noqa: S101 - narrows the type
    output = node.outputs[0]
    axis = operation.output_axis
    width = graph.shape(output)[axis]
    if operation.bias is not None:
        return _constant(graph, node, operation.bias, width)
    readers = graph.consumers.get(output, ())
    if len(readers) != 1 or output in graph.outputs:
        return None
    return _added(graph, *readers[0], axis - len(graph.shape(output)), width)


def _added(graph: Graph, reader: Node, slot: int, axis: int, width: int | None) -> Bias | None:
    """What a node adds to the channels in an input; their axis counts from the last one."""
    if not isinstance(reader.operation, Elementwise):
        return None
    if reader.operation.function == "batch_normalization":
        found = _constant(graph, reader, reader.operation.offsets[-1], width)
        return found and found._replace(sign=-1)
    if reader.operation.function != "add" or len(reader.inputs) != 2:  # noqa: PLR2004
        return None
    shape = graph.shape(reader.inputs[1 - slot])
    is_aligned = -len(shape) <= axis < 0 and shape[axis] == width
    return _constant(graph, reader, 1 - slot, width) if is_aligned else None


def _constant(graph: Graph, node: Node, slot: int, width: int | None) -> Bias | None:
    tensor = graph.tensors[node.inputs[slot]]
    size = int(np.prod([n or 0 for n in tensor.shape or ()]))
    if not tensor.is_constant or size != width or not tensor.dtype.startswith("float"):
        return None
    return Bias(tensor.name, Use(node.name, slot))
