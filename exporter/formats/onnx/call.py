"""One node of a file, as the rows of the translation table see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.formats.check_operation import NodeRanks
from exporter.formats.onnx.shape_vectors import Length
from exporter.graph import Array, Shape, Tensor
from exporter.graph.operations import Operation


@dataclass(frozen=True, eq=False)
class Call:
    """A node with its tensors.

    Attributes:
        attributes: numbers, strings and tuples of them, by name.
        inputs: "" where an optional input is absent.
        opset: version of the standard operators.
        tensors: every tensor of the graph.
        read: names of all tensors that a node or an output reads.
        fixed: names of the tensors that are computed from constants alone.
        lengths: slot -> the entries of an integer input, as far as the file tells; None where it
            does not even tell their number.
        axes_read: which of the lengths that the node measures are read by something.
    """

    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    tensors: Mapping[str, Tensor]
    read: frozenset[str]
    fixed: frozenset[str] = frozenset()
    lengths: Callable[[int], tuple[Length, ...] | None] = field(default=lambda _: None)
    axes_read: Callable[[], tuple[int, ...]] = field(default=lambda: ())

    def has(self, slot: int) -> bool:
        return slot < len(self.inputs) and self.inputs[slot] != ""

    def is_constant(self, slot: int) -> bool:
        return self.has(slot) and self.tensors[self.inputs[slot]].is_constant

    def is_fixed(self, slot: int) -> bool:
        """Is an input a constant, or computed from constants alone?"""
        return self.is_constant(slot) or (self.has(slot) and self.inputs[slot] in self.fixed)

    def constant(self, slot: int) -> Array | None:
        """The values of a constant input; None where it is computed or absent."""
        tensor = self.tensors[self.inputs[slot]] if self.has(slot) else None
        return tensor.read() if tensor is not None and tensor.read is not None else None

    def integers(self, slot: int) -> tuple[int, ...] | None:
        """The entries of a constant input of integers; None where it is computed or absent."""
        values = self.constant(slot)
        return None if values is None else tuple(int(n) for n in values.ravel())

    def shape(self, slot: int) -> Shape | None:
        return self.tensors[self.inputs[slot]].shape if self.has(slot) else None

    def output_shape(self) -> Shape | None:
        return self.tensors[self.outputs[0]].shape

    def ranks(self) -> NodeRanks:
        shapes = (
            [self.tensors[n].shape if n else None for n in ns] for ns in (self.inputs, self.outputs)
        )
        return NodeRanks.of(*shapes)

    def dtype(self, slot: int) -> str:
        return self.tensors[self.inputs[slot]].dtype

    def is_read(self, output: int) -> bool:
        """Does anything read this output?"""
        return output < len(self.outputs) and self.outputs[output] in self.read


Row = Callable[[Call], Operation]
