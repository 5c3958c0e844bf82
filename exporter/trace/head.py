"""A head: the operations that compute the units of one output, and the tensors and constants that a
cut makes narrower. Data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from exporter.graph import Array, Node
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation
from exporter.trace.readers import Readers
from exporter.trace.unit_axis import Junction, UnitAxis, UnitConstant, UnitTensor, Width


@dataclass(frozen=True, eq=False)
class Factor:
    """A constant that multiplies probabilities.

    Attributes:
        by: float64, one entry a position on the unit axis.
        tensors: computed from the constant alone, by a cast or a dequantization.
    """

    by: Array  # (positions,)
    tensors: tuple[str, ...]


class AxisPart(NamedTuple):
    """A range of positions on a unit axis: the units, or values that share the axis with them."""

    name: str  # "classes", "box", "object", "background"; "other" where the model does not show it
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.name} {self.start}:{self.stop}"


@dataclass(frozen=True, eq=False)
class Head:
    """The operations that compute the units of one output, from the linear ones to the output.

    Attributes:
        name: of the output, with ":axis" where several axes could be the unit axis; or of the node
            that ranks the units where no output shows them.
        output: the output that shows the units; an inner tensor where only indices are returned.
        axis: unit axis of the output.
        units: number of units.
        activation: name of the last activation, "linear" if there is none.
        z: the tensor before that activation; the output itself if there is none.
        widths: numbers in the file that state the length of a unit axis.
        body: the nodes with a unit axis that compute z, the linear ones too, in running order.
        tail: the nodes from z to the output: the activation, and those that only move values or
            scale probabilities.
        other_outputs: further outputs of the model that show the same units.
        labels: one for each unit, if the file contains them.
        junctions: where parts of the unit axis are joined or split.
        readers: nodes that read the units and return their indices.
        axis_parts: the parts of the output's unit axis in order; empty where all of it are units.
        factors: node of the tail that scales probabilities -> its factors.
        gather: "" if a cut makes the body narrower. Otherwise a Gather takes the units from the
            output, which is z: "tensor" for all that read it, "output" for the model's output
            alone.
        normalized: units of each softmax, where the output joins the results of several: their
            values add up to 1. () otherwise.
    """

    name: str
    output: str
    axis: int
    units: int
    activation: str
    z: str
    tensors: tuple[UnitTensor, ...]
    constants: tuple[UnitConstant, ...]
    widths: tuple[Width, ...]
    body: tuple[Node, ...] = field(repr=False)
    tail: tuple[Node, ...] = field(repr=False)
    other_outputs: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    junctions: tuple[Junction, ...] = ()
    readers: Readers = field(default_factory=Readers)
    axis_parts: tuple[AxisPart, ...] = ()
    factors: Mapping[str, Factor] = field(default_factory=dict, repr=False)
    gather: str = ""
    normalized: tuple[tuple[int, ...], ...] = ()

    def tensor(self, name: str) -> UnitTensor:
        """The tensor of that name; KeyError if it has no unit axis."""
        return self._tensors[name]

    def unit_axis(self, name: str) -> UnitAxis:
        """The unit axis of a computed tensor or of a constant; KeyError if it has none."""
        if name in self._tensors:
            return self._tensors[name].unit_axis
        found = {each.name: each.unit_axis for each in self.constants}
        return found[name]

    def result(self, node: Node) -> UnitTensor:
        """The first result of a node that has a unit axis."""
        return next(self._tensors[name] for name in node.outputs if name in self._tensors)

    @cached_property
    def _tensors(self) -> dict[str, UnitTensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def producers(self) -> Mapping[str, tuple[Node, int]]:
        """Tensor name -> the node of body or tail that computes it, and the slot of its output."""
        nodes = (*self.body, *self.tail)
        return {name: (node, slot) for node in nodes for slot, name in enumerate(node.outputs)}

    def mixes(self, node: Node) -> bool:
        """Does each result of a node depend on all units, as under a softmax over them?"""
        tensor = self._tensors.get(node.outputs[0])
        return tensor is not None and mixes_units(node, tensor.unit_axis)

    @property
    def competes(self) -> bool:
        """Does each value of the output depend on all units?"""
        return any(self.mixes(node) for node in self.tail)

    @property
    def unit_range(self) -> tuple[int, int] | None:
        """The range of the units on the output's axis; None if all of it are units."""
        unit_axis = self.tensor(self.output).unit_axis
        return None if (unit_axis.units >= 0).all() else unit_axis.span


def mixes_units(node: Node, unit_axis: UnitAxis) -> bool:
    """Is a node an activation over the units, such as a softmax?

    Args:
        node: any.
        unit_axis: of its output.
    """
    operation = node.operation
    return (
        isinstance(operation, Activation)
        and ACTIVATIONS[operation.function].mixes
        and operation.axis == unit_axis.axis
    )
