"""One node of an ONNX file, as the functions of the translation table read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from exporter.formats.check_operation import NodeRanks, UntranslatableError
from exporter.formats.onnx.shape_vectors import ShapeEntry
from exporter.graph import Array, Shape, Tensor
from exporter.graph.operations import Operation

COMPUTED_KERNEL = "its kernel is not a constant but computed"
UNKNOWN_RANK = "the rank of its input is not known"


@dataclass(frozen=True, eq=False)
class NodeView:
    """A node with its tensors.

    Attributes:
        attributes: numbers, strings and tuples of them, by name.
        inputs: tensor names; "" where an optional input is absent.
        opset: version of the standard operators.
        tensors: every tensor of the graph, by name.
        read: gives the names of all tensors that a node or an output of the graph reads.
        fixed: gives the names of the constants, and of the tensors computed from them alone.
        shape_entries: slot of an integer input -> its entries as far as the file states them; None
            where their number is unknown too.
        axes_read: the axes whose lengths the graph reads from this Shape or Size node.
    """

    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    tensors: Mapping[str, Tensor]
    read: Callable[[], frozenset[str]]
    fixed: Callable[[], frozenset[str]]
    shape_entries: Callable[[int], tuple[ShapeEntry, ...] | None] = field(default=lambda _: None)
    axes_read: Callable[[], tuple[int, ...]] = field(default=lambda: ())

    def has(self, slot: int) -> bool:
        return slot < len(self.inputs) and self.inputs[slot] != ""

    def optional(self, slot: int | None) -> int | None:
        """The slot; None where that input is absent."""
        return slot if slot is not None and self.has(slot) else None

    def is_constant(self, slot: int) -> bool:
        return self.has(slot) and self.tensors[self.inputs[slot]].is_constant

    def is_fixed(self, slot: int) -> bool:
        """Is an input a constant, or computed from constants alone?"""
        return self.has(slot) and self.inputs[slot] in self.fixed()

    def is_read(self, output: int) -> bool:
        """Does anything read this output?"""
        return output < len(self.outputs) and self.outputs[output] in self.read()

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

    def size(self, slot: int) -> int:
        """The number of elements of an input, where an unknown length counts as 0."""
        return prod(n or 0 for n in self.shape(slot) or ())

    def output_shape(self) -> Shape | None:
        return self.tensors[self.outputs[0]].shape

    def dtype(self, slot: int) -> str:
        return self.tensors[self.inputs[slot]].dtype

    def ranks(self) -> NodeRanks:
        outputs = [self.tensors[name].shape if name else None for name in self.outputs]
        return NodeRanks.of([self.shape(slot) for slot in range(len(self.inputs))], outputs)

    def known_shape(self, slot: int = 0) -> Shape:
        """The shape of an input (raises UntranslatableError if its rank is not known)."""
        shape = self.shape(slot)
        if shape is None:
            raise UntranslatableError(UNKNOWN_RANK)
        return shape

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from the front (raises as `known_shape`)."""
        return int(self.attributes.get("axis", default)) % len(self.known_shape())

    def known_integers(self, slot: int, subject: str) -> tuple[int, ...]:
        """The entries of a constant input (raises UntranslatableError if it is computed)."""
        values = self.integers(slot)
        if values is None:
            raise UntranslatableError(f"{subject} computed while the model runs")
        return values


Translate = Callable[[NodeView], Operation]
