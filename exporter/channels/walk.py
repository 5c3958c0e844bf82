"""The walk of channels from one product to the next ones, with the rules of the tracer.

It differs from the walk of a head in three ways:

1. A product at whose input the channels arrive sums over them: the channels get the input axis of
   its kernel, and the walk ends there.
2. A product in groups (a depthwise convolution) ties its output channels to its input channels: a
   group is removed as a whole.
3. If two paths give a tensor different units, these are one unit: they are removed together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from exporter.channels.disjoint import FIXED, Disjoint
from exporter.graph import Array, Graph, Node
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation, Contraction, Linear, Slice
from exporter.trace.axis_walk import AxisWalk
from exporter.trace.rules.protocol import FIRST_OUTPUT, Fact, Port, Reading, Refused, UnitsAt
from exporter.trace.unit_axis import Junction, UnitAxis


@dataclass(frozen=True, eq=False)
class Consumer:
    """A product that sums over channels.

    Attributes:
        units: of each position on the kernel's axis of input channels.
    """

    node: Node
    contraction: Contraction
    units: Array  # (input channels,) int64


@dataclass(frozen=True)
class GroupCount:
    """An attribute with the number of groups: the length of the input's channel axis, divided."""

    node: str
    attribute: str
    tensor: str
    channels: int  # of the input, in a group


@dataclass(eq=False)
class ChannelWalk(AxisWalk):
    """One walk from the output channels of a product, and its results.

    Attributes:
        consumers: products that sum over the channels.
        producers: products that compute them.
        counts: numbers of groups.
    """

    consumers: dict[str, Consumer] = field(default_factory=dict)
    producers: dict[str, Node] = field(default_factory=dict)
    counts: dict[str, GroupCount] = field(default_factory=dict)
    _same: Disjoint = field(default_factory=lambda: Disjoint(0))

    @classmethod
    def along(cls, graph: Graph, tensor: str, unit_axis: UnitAxis) -> ChannelWalk:
        """The walk with the fewest joined units (raises Refused).

        Joined units can pass where others cannot, so that the walk starts again with them.
        """
        while True:
            walk = cls(graph)
            walk.start(tensor, unit_axis)
            numbers = walk._same.numbers()
            if not walk._same.joined:
                return walk
            units = np.where(unit_axis.units < 0, FIXED, numbers[unit_axis.units])
            if (units < 0).all():
                raise Refused(None, "its channels meet channels that stay")
            unit_axis = UnitAxis(unit_axis.axis, units)

    def start(self, tensor: str, unit_axis: UnitAxis) -> None:
        """Visit every node that the channels of a tensor lead to."""
        self._same = Disjoint(int(unit_axis.units.max()) + 1)
        self.run(tensor, unit_axis)
        for name in self.tensors:
            if name in self.graph.outputs:
                raise Refused(None, f"the channels are those of the output {name!r}")
            if name in self.graph.hidden or name in self.graph.varying:
                raise Refused(None, f"{name!r} has a shape that may change while the model runs")

    # --- how it differs ---------------------------------------------------------------------------

    def _visit(self, node: Node, port: Port, unit_axis: UnitAxis) -> None:
        operation = node.operation
        if isinstance(operation, Linear) and operation.groups > 1:
            self._visit_groups(node, operation, port, unit_axis)
            return
        if isinstance(operation, Linear) and self._is_data(operation, port):
            self._visit_consumer(node, operation, unit_axis)
            return
        if isinstance(operation, Linear):
            self._check_kernel(node, operation)
            self.producers[node.name] = node
        if isinstance(operation, Activation) and ACTIVATIONS[operation.function].mixes:
            shape = self.graph.shape(node.outputs[0])
            if (operation.axis or 0) % max(1, len(shape)) == unit_axis.axis:
                raise Refused(node, "it normalizes over the channels")
        super()._visit(node, port, unit_axis)

    def _note(self, fact: Fact, node: Node) -> None:
        if isinstance(fact, Reading):
            raise Refused(node, "it ranks or reads the channels by position")
        if isinstance(fact, Junction) and isinstance(node.operation, Slice):
            raise Refused(node, "it takes some of the channels by position")
        super()._note(fact, node)

    def _note_tensor(self, tensor: str, unit_axis: UnitAxis, node: Node | None) -> None:
        known = self.tensors.get(tensor)
        if known is not None and known.axis == unit_axis.axis:
            self._same.join(known.units, unit_axis.units)
            return
        super()._note_tensor(tensor, unit_axis, node)

    # --- products ---------------------------------------------------------------------------------

    @staticmethod
    def _is_data(operation: Linear, port: Port) -> bool:
        summed = operation.contraction
        data = (0 if operation.kernel else 1) if summed is None else summed.data
        return port == Port("input", data)

    def _check_kernel(self, node: Node, operation: Linear) -> None:
        kernel = self.graph.tensors[node.inputs[operation.kernel]]
        if not kernel.is_constant:
            raise Refused(node, "its kernel is computed from constants")
        if kernel.dtype not in _FLOATS or kernel.quantization or operation.packed_bits:
            raise Refused(node, f"its kernel is {kernel.dtype}")

    def _visit_consumer(self, node: Node, operation: Linear, unit_axis: UnitAxis) -> None:
        summed = operation.contraction
        self._check_kernel(node, operation)
        if summed is None or unit_axis.axis != summed.input_axis or not unit_axis.axis:
            raise Refused(node, "it does not sum over the channels in a known way")
        kernel = self.graph.tensors[node.inputs[operation.kernel]]
        length = (kernel.shape or ())[summed.kernel_axis] or 0
        repeats, rest = divmod(length, len(unit_axis.units))
        if rest:
            raise Refused(node, "its kernel does not fit its input")
        units = np.tile(unit_axis.units, repeats)  # the channels are the last axis of the input
        self.nodes[node.name] = node
        self.consumers[node.name] = Consumer(node, summed, units)
        self._note(
            UnitsAt(Port("input", operation.kernel), UnitAxis(summed.kernel_axis, units)), node
        )

    def _visit_groups(self, node: Node, operation: Linear, port: Port, unit_axis: UnitAxis) -> None:
        """Channels in groups: each group becomes one unit, on both sides."""
        summed, groups = operation.contraction, operation.groups
        if summed is None:
            raise Refused(node, f"its {groups} groups tie output channels to input channels")
        self._check_kernel(node, operation)
        expected = operation.output_axis if port.side == "output" else summed.input_axis
        size, rest = divmod(len(unit_axis.units), groups)
        if unit_axis.axis != expected or rest:
            raise Refused(node, "it does not sum over the channels in a known way")
        blocks = unit_axis.units.reshape(groups, size)
        self._same.join(np.repeat(blocks[:, 0], size), unit_axis.units)
        inputs = self._length(node.inputs[summed.data], summed.input_axis, node)
        outputs = self._length(node.outputs[0], operation.output_axis, node)
        before = np.repeat(blocks[:, 0], inputs // groups)
        after = np.repeat(blocks[:, 0], outputs // groups)
        self.nodes[node.name] = node
        self._note(UnitsAt(Port("input", summed.data), UnitAxis(summed.input_axis, before)), node)
        self._note(UnitsAt(FIRST_OUTPUT, UnitAxis(operation.output_axis, after)), node)
        kernel = UnitAxis(operation.kernel_axis, after)
        if summed.adds_up:
            raise Refused(node, "it is a transposed convolution in groups")
        self._note(UnitsAt(Port("input", operation.kernel), kernel), node)
        if operation.bias is not None:
            self._note(UnitsAt(Port("input", operation.bias), UnitAxis(0, after)), node)
        if operation.groups_attribute is not None:
            count = GroupCount(
                node.name, operation.groups_attribute, node.inputs[summed.data], inputs // groups
            )
            self.counts[node.name] = count

    def _length(self, tensor: str, axis: int, node: Node) -> int:
        shape = self.graph.shape(tensor)
        length = shape[axis] if axis < len(shape) else None
        if length is None:
            raise Refused(node, f"the length of {tensor!r} is not known")
        return length


_FLOATS = {"float32", "float64"}
