"""One operator of a file with its tensors, as the rows of the translation table see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.formats.check_operation import UntranslatableError
from exporter.graph import Array, Tensor
from exporter.graph.operations import Operation

Entries = tuple[int | None, ...]  # of a vector or scalar; None: not known before the model runs
KnownShapes = Mapping[str, Entries]  # computed tensor -> its entries, from shape arithmetic

# Operators whose inputs have another order than the neutral operation's: the slot in the file of
# each neutral slot.
SLOT_ORDER: Mapping[str, tuple[int, ...]] = {
    "EMBEDDING_LOOKUP": (1, 0),
    "SPLIT": (1, 0),
    "TRANSPOSE_CONV": (2, 1, 0, 3),
}


@dataclass(frozen=True, eq=False)
class OperatorView:
    """An operator with its tensors.

    Attributes:
        operator: the schema's name, such as "FULLY_CONNECTED", or a custom operator's own.
        options: the schema's options object; None if the file has none.
        inputs: None where an optional input is absent.
        has_sparse_input: the values of an input are stored sparsely.
        known_shapes: results of the file's shape arithmetic.
        fixed: tensors that are computed from constants only.
        custom: the options of a custom operator, if they are a flexbuffer map.
    """

    operator: str
    options: Any
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    has_sparse_input: bool
    known_shapes: KnownShapes
    fixed: frozenset[str] = frozenset()
    custom: Mapping[str, Any] | None = None

    def option(self, name: str, default: Any = 0) -> Any:
        """An option; its default if the file leaves the options out."""
        return getattr(self.options, name, default)

    def input(self, slot: int) -> Tensor | None:
        return self.inputs[slot] if slot < len(self.inputs) else None

    def constant(self, slot: int) -> Array | None:
        """The values of a constant input; None if it is computed or absent."""
        tensor = self.input(slot)
        return tensor.read() if tensor is not None and tensor.read is not None else None

    def real(self, slot: int) -> Array | None:
        """The values of a constant input, dequantized."""
        tensor, values = self.input(slot), self.constant(slot)
        return None if tensor is None or values is None else tensor.dequantize(values)

    def integers(self, slot: int) -> tuple[int, ...] | None:
        """The values of a constant integer input, flattened; None for all other inputs."""
        tensor = self.input(slot)
        if tensor is None or tensor.read is None or "int" not in tensor.dtype:
            return None
        return tuple(int(n) for n in np.ravel(tensor.read()))

    def known_integers(self, slot: int, subject: str) -> tuple[int, ...]:
        """As `integers`; UntranslatableError with the subject if they are not constant."""
        values = self.integers(slot)
        if values is None:
            raise UntranslatableError(f"{subject} computed while the model runs")
        return values

    def constants(self) -> tuple[int, ...]:
        """The slots of constant inputs."""
        return tuple(i for i, t in enumerate(self.inputs) if t is not None and t.is_constant)

    def is_fixed(self, slot: int) -> bool:
        """Is an input a constant, or computed from constants only?"""
        tensor = self.input(slot)
        return tensor is not None and (tensor.is_constant or tensor.name in self.fixed)

    def rank(self, slot: int | None = None) -> int | None:
        """The rank of an input, or of the first output; None if it is not known."""
        tensor = self.outputs[0] if slot is None else self.input(slot)
        return None if tensor is None or tensor.shape is None else len(tensor.shape)

    def known_rank(self, slot: int | None = None) -> int:
        """As `rank`; UntranslatableError if it is not known, or 0."""
        rank = self.rank(slot)
        if not rank:
            raise UntranslatableError("the rank of its input or output is not known")
        return rank

    def length(self, slot: int, axis: int) -> int | None:
        """The length of an input's axis; None if it is not known or there is no such axis."""
        tensor = self.input(slot)
        shape = () if tensor is None or tensor.shape is None else tensor.shape
        return shape[axis] if -len(shape) <= axis < len(shape) else None


Translate = Callable[[OperatorView], Operation]  # the neutral operation that an operator computes
