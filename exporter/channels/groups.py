"""The groups of channels of a graph: what is removed together when a channel is removed.

For example, in `conv1 -> batch norm -> relu -> depthwise -> conv2` one group has a unit for each
output channel of conv1: a row of the kernel and an entry of the bias of conv1, the entries of the
batch norm, a filter of the depthwise convolution, and a column of the kernel of conv2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from exporter.channels.walk import ChannelWalk, Consumer, GroupCount
from exporter.graph import Array, Graph, Node, Use
from exporter.graph.operations import Linear
from exporter.trace.rules import Refused
from exporter.trace.unit_axis import UnitAxis, UnitConstant, UnitTensor, Width


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that are removed together: each unit is removed or kept as a whole.

    Attributes:
        name: of the tensor where the group starts: the output of its first product.
        units: number of units.
        producers: products that compute the channels, in running order.
        consumers: products that sum over them, in running order.
        tensors, constants, widths, counts: what becomes narrower with the group.
    """

    name: str
    units: int
    producers: tuple[Node, ...]
    consumers: tuple[Consumer, ...]
    tensors: tuple[UnitTensor, ...] = field(repr=False)
    constants: tuple[UnitConstant, ...] = field(repr=False)
    widths: tuple[Width, ...] = field(repr=False)
    counts: tuple[GroupCount, ...] = field(repr=False)

    @cached_property
    def sizes(self) -> Array:
        """How many positions each unit has on the group's first tensor: (units,) int64."""
        units = self.tensors[0].unit_axis.units
        return np.bincount(units[units >= 0], minlength=self.units)

    def products(self, graph: Graph) -> list[Node]:
        """The products with a kernel that becomes smaller, in running order."""
        uses = {use for constant in self.constants for use in constant.uses}
        return [
            node
            for node in graph.nodes
            if isinstance(node.operation, Linear) and Use(node.name, node.operation.kernel) in uses
        ]


@dataclass(frozen=True, eq=False)
class FixedChannels:
    """Output channels of a product that stay, and why."""

    name: str
    channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class Channels:
    """The channel groups of a graph in running order, and the channels that stay."""

    groups: tuple[ChannelGroup, ...]
    fixed: tuple[FixedChannels, ...]


def find_channels(graph: Graph) -> Channels:
    """Find the channel groups. A channel that cannot be followed stays as it is."""
    groups: list[ChannelGroup] = []
    fixed: list[FixedChannels] = []
    covered: set[str] = set()
    for node in graph.nodes:
        operation = node.operation
        if not isinstance(operation, Linear) or operation.groups > 1:
            continue
        tensor, axis = node.outputs[0], operation.output_axis
        shape = graph.shape(tensor)
        length = shape[axis] if axis < len(shape) else None
        if tensor in covered or not length or tensor in graph.outputs:
            continue
        try:
            walk = ChannelWalk.along(graph, tensor, UnitAxis(axis, np.arange(length)))
        except Refused as error:
            fixed.append(FixedChannels(tensor, length, str(error)))
            continue
        covered.update(n for n, units in walk.tensors.items() if (units.units >= 0).any())
        group = _group(graph, tensor, walk)
        if group.consumers:
            groups.append(group)
        else:
            fixed.append(FixedChannels(tensor, length, "nothing reads the channels"))
    return Channels(tuple(groups), tuple(fixed))


def _group(graph: Graph, tensor: str, walk: ChannelWalk) -> ChannelGroup:
    order = graph.positions
    units = walk.tensors[tensor].units
    return ChannelGroup(
        name=tensor,
        units=int(units.max()) + 1,
        producers=tuple(sorted(walk.producers.values(), key=lambda node: order[node.name])),
        consumers=tuple(sorted(walk.consumers.values(), key=lambda c: order[c.node.name])),
        tensors=walk.unit_tensors,
        constants=tuple(walk.constants),
        widths=tuple(walk.widths.values()),
        counts=tuple(walk.counts.values()),
    )
