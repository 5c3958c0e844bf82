"""One node of a file, as the rows of the translation table see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.graph import Array, Shape, Tensor


@dataclass(frozen=True, eq=False)
class Call:
    """A node with its tensors.

    Attributes:
        attributes: numbers, strings and tuples of them, by name.
        inputs: "" where an optional input is absent.
        opset: version of the standard operators.
        tensors: every tensor of the graph.
        read: names of all tensors that a node or an output reads.
    """

    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    tensors: Mapping[str, Tensor]
    read: frozenset[str]

    def has(self, slot: int) -> bool:
        return slot < len(self.inputs) and self.inputs[slot] != ""

    def is_constant(self, slot: int) -> bool:
        return self.has(slot) and self.tensors[self.inputs[slot]].is_constant

    def constant(self, slot: int) -> Array | None:
        """The values of a constant input; None where it is computed or absent."""
        tensor = self.tensors[self.inputs[slot]] if self.has(slot) else None
        return tensor.read() if tensor is not None and tensor.read is not None else None

    def shape(self, slot: int) -> Shape | None:
        return self.tensors[self.inputs[slot]].shape if self.has(slot) else None

    def dtype(self, slot: int) -> str:
        return self.tensors[self.inputs[slot]].dtype

    def is_read(self, output: int) -> bool:
        """Does anything read this output?"""
        return output < len(self.outputs) and self.outputs[output] in self.read
