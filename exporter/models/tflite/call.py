"""One operator of a file, as the rows of the translation table see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from exporter.graph import Array, Tensor
from exporter.models.tflite.shapes import Values


@dataclass(frozen=True, eq=False)
class Call:
    """An operator with its tensors.

    Attributes:
        operator: the schema's name, such as "FULLY_CONNECTED"; of a custom operator its own.
        options: the schema's options object; None where the file has none.
        inputs: None where an optional input is absent.
        sparse: an input's values are stored sparsely.
        values: what the file's shape arithmetic computes, by tensor name.
    """

    operator: str
    options: Any
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    sparse: bool
    values: Values

    def option(self, name: str, default: Any = 0) -> Any:
        """An option; its default where the file leaves the options out."""
        return getattr(self.options, name, default)

    def input(self, slot: int) -> Tensor | None:
        return self.inputs[slot] if slot < len(self.inputs) else None

    def constant(self, slot: int) -> Array | None:
        """The values of a constant input; None where it is computed or absent."""
        tensor = self.input(slot)
        return tensor.read() if tensor is not None and tensor.read is not None else None

    def constants(self) -> tuple[int, ...]:
        """The slots of constant inputs."""
        return tuple(i for i, t in enumerate(self.inputs) if t is not None and t.is_constant)

    def rank(self, slot: int | None = None) -> int | None:
        """The rank of an input, or of the output; None where it is not known."""
        tensor = self.outputs[0] if slot is None else self.input(slot)
        return None if tensor is None or tensor.shape is None else len(tensor.shape)
