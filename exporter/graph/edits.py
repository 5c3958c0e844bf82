"""The closed set of edits, and the plan that is a tuple of them. A plan costs nothing to make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.graph.graph import Array, Shape, Use
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Take:
    """Keep only some positions of a constant along one axis (per-channel scales go along)."""

    constant: str
    axis: int
    positions: Array  # (kept positions,) int64
    uses: tuple[Use, ...]  # the inputs that shall see the result; others keep the constant whole

    def __str__(self) -> str:
        return f"take {len(self.positions)} positions of {self.constant!r} along axis {self.axis}"


@dataclass(frozen=True, eq=False)
class Fill:
    """Set some positions of a constant along one axis to a real value (encoded if quantized)."""

    constant: str
    axis: int
    positions: Array
    value: float
    uses: tuple[Use, ...]

    def __str__(self) -> str:
        return (
            f"fill {len(self.positions)} positions of {self.constant!r} along axis {self.axis} "
            f"with {self.value:g}"
        )


@dataclass(frozen=True, eq=False)
class Replace:
    """Give a constant other values, of any shape, in the same dtype."""

    constant: str
    value: Array
    uses: tuple[Use, ...]

    def __str__(self) -> str:
        shown = np.array2string(self.value, threshold=8, separator=", ")
        return f"replace {self.constant!r} by {shown}"


@dataclass(frozen=True)
class SetShape:
    """State another shape for a computed tensor."""

    tensor: str
    shape: Shape

    def __str__(self) -> str:
        shown = ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"set the shape of {self.tensor!r} to [{shown}]"


@dataclass(frozen=True)
class SetAttribute:
    """Give an attribute (TFLite: option, Keras: config entry) of a node another value."""

    node: str
    name: str
    value: int | float | str | tuple[int, ...]

    def __str__(self) -> str:
        return f"set {self.name} of {self.node!r} to {self.value}"


@dataclass(frozen=True, eq=False)
class Insert:
    """Put an operation behind a tensor; all that read the tensor, outputs too, read the result.

    With a `name` it is a branch: what reads the tensor goes on to read it, and the result bears the
    name, by which later edits mean it.

    Attributes:
        operation: key of the format's table of operations that it can write, such as "add".
        after: the tensor that becomes the operation's first input.
        operands: the further inputs: names of tensors (of the graph, or added by AddInput) or
            constants, which are written with their own dtype.
        attributes: by the neutral names that the operation's entry documents.
        shape: of the result; None where it is that of `after`.
        name: of the result, which nothing reads yet.
    """

    operation: str
    after: str
    operands: tuple[str | Array, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    name: str | None = None

    def __str__(self) -> str:
        named = f", as {self.name!r}" if self.name else ""
        return f"insert {self.operation} behind {self.after!r}{named}"


@dataclass(frozen=True, eq=False)
class ComputeStep:
    """One operation of a `Compute`.

    Attributes:
        operation: key of the format's table of operations that it can write.
        inputs: whose values it reads, by number: 0 is the tensor behind which all of it stands, i
            the result of the i-th step.
        operands: what it reads behind them: constants, which are written with their own dtype, or
            names of tensors, such as those of branches.
        attributes: by the neutral names that the operation's entry documents.
        shape: of the result.
    """

    operation: str
    inputs: tuple[int, ...]
    operands: tuple[str | Array, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape = ()


@dataclass(frozen=True, eq=False)
class Compute:
    """Put a computation behind a tensor; all that read the tensor read the last step's result.

    Other than an Insert it may read the tensor, and what was made of it, several times, or not at
    all: it is then computed anew, and what nobody reads any more goes.
    """

    after: str
    steps: tuple[ComputeStep, ...]

    def __str__(self) -> str:
        shown = ", ".join(step.operation for step in self.steps)
        return f"compute behind {self.after!r}: {shown}"


@dataclass(frozen=True, eq=False)
class AddInput:
    """Give the model one more input; with a default where the format can hold one."""

    name: str
    shape: Shape
    dtype: str
    default: Array | None = None

    def __str__(self) -> str:
        return f"add the input {self.name!r}"


@dataclass(frozen=True)
class AddOutput:
    """Return a computed tensor as one more output, behind the others, under this name."""

    tensor: str
    name: str

    def __str__(self) -> str:
        return f"return {self.tensor!r} as the output {self.name!r}"


Edit = Take | Fill | Replace | SetShape | SetAttribute | Insert | Compute | AddInput | AddOutput


@dataclass(frozen=True)
class Plan:
    """Edits in the order in which they are applied, and the table that the result carries."""

    edits: tuple[Edit, ...]
    remap: Remap | None = None

    def __str__(self) -> str:
        return "\n".join(str(edit) for edit in self.edits)
