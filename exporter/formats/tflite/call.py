"""One operator of a file, as the rows of the translation table see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.graph import Array, Tensor
from exporter.graph.operations import Opaque, Operation

Entries = tuple[int | None, ...]  # a vector's entries; one entry for a scalar
Values = Mapping[str, Entries]  # what is known of shapes before the run, by tensor name

NO_RANK = Opaque("the rank of its input or output is not known")

# Operators whose inputs stand in another order than the neutral operation's: the slot in the file
# of each neutral slot.
SLOTS: Mapping[str, tuple[int, ...]] = {"EMBEDDING_LOOKUP": (1, 0), "SPLIT": (1, 0)}


@dataclass(frozen=True, eq=False)
class Call:
    """An operator with its tensors.

    Attributes:
        operator: the schema's name, such as "FULLY_CONNECTED"; of a custom operator its own.
        options: the schema's options object; None where the file has none.
        inputs: None where an optional input is absent.
        sparse: an input's values are stored sparsely.
        values: what the file's shape arithmetic computes, by tensor name.
        fixed: tensors that are computed from constants alone.
        custom: the options of a custom operator, where they are a flexbuffer's map.
    """

    operator: str
    options: Any
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    sparse: bool
    values: Values
    fixed: frozenset[str] = frozenset()
    custom: Mapping[str, Any] | None = None

    def option(self, name: str, default: Any = 0) -> Any:
        """An option; its default where the file leaves the options out."""
        return getattr(self.options, name, default)

    def input(self, slot: int) -> Tensor | None:
        return self.inputs[slot] if slot < len(self.inputs) else None

    def constant(self, slot: int) -> Array | None:
        """The values of a constant input; None where it is computed or absent."""
        tensor = self.input(slot)
        return tensor.read() if tensor is not None and tensor.read is not None else None

    def real(self, slot: int) -> Array | None:
        """Likewise, what its codes stand for where it is quantized."""
        tensor = self.input(slot)
        if tensor is None or tensor.read is None:
            return None
        return tensor.dequantize(tensor.read())

    def integers(self, slot: int) -> tuple[int, ...] | None:
        """Likewise, as numbers in one row; None where it holds none."""
        tensor = self.input(slot)
        if tensor is None or tensor.read is None or "int" not in tensor.dtype:
            return None
        return tuple(int(n) for n in np.ravel(tensor.read()))

    def constants(self) -> tuple[int, ...]:
        """The slots of constant inputs."""
        return tuple(i for i, t in enumerate(self.inputs) if t is not None and t.is_constant)

    def is_fixed(self, slot: int) -> bool:
        """Is an input a constant, or computed from constants alone?"""
        tensor = self.input(slot)
        return tensor is not None and (tensor.is_constant or tensor.name in self.fixed)

    def rank(self, slot: int | None = None) -> int | None:
        """The rank of an input, or of the output; None where it is not known."""
        tensor = self.outputs[0] if slot is None else self.input(slot)
        return None if tensor is None or tensor.shape is None else len(tensor.shape)

    def length(self, slot: int, axis: int) -> int | None:
        """The length of an axis of an input; None where it is not known or not there."""
        tensor = self.input(slot)
        shape = () if tensor is None or tensor.shape is None else tensor.shape
        return shape[axis] if -len(shape) <= axis < len(shape) else None


Row = Callable[[Call], Operation]
