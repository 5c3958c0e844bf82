"""The edits that a plan may contain: a closed set, which each format applies to its files.

For example, a dense layer of 10 units is cut to 3 by a `Take` of its kernel, a `Take` of its bias,
and a `SetShape` of its output.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from exporter.graph.graph import Array, Shape, Use
from exporter.graph.normalization import Normalization
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Take:
    """Keep some positions of a constant along one axis, and of its per-channel scales."""

    constant: str
    axis: int
    positions: Array  # (kept positions,) int64
    uses: tuple[Use, ...]  # the inputs that read the result; others still read the whole constant

    def __str__(self) -> str:
        return f"take {len(self.positions)} positions of {self.constant!r} along axis {self.axis}"


@dataclass(frozen=True, eq=False)
class Fill:
    """Set some positions of a constant along one axis to a real value, quantized if it is."""

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
    """Replace the values of a constant, in any shape and the same dtype."""

    constant: str
    value: Array
    uses: tuple[Use, ...]

    def __str__(self) -> str:
        shown = np.array2string(self.value, threshold=8, separator=", ")
        return f"replace {self.constant!r} by {shown}"


@dataclass(frozen=True)
class SetShape:
    """Change the shape that the file states for a computed tensor."""

    tensor: str
    shape: Shape

    def __str__(self) -> str:
        shown = ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"set the shape of {self.tensor!r} to [{shown}]"


@dataclass(frozen=True)
class SetAttribute:
    """Change an attribute of a node (TFLite: an option, Keras: an entry of the config)."""

    node: str
    name: str
    value: int | float | str | tuple[int, ...]

    def __str__(self) -> str:
        return f"set {self.name} of {self.node!r} to {self.value}"


@dataclass(frozen=True, eq=False)
class Insert:
    """Insert an operation after a tensor: all consumers of the tensor, and outputs, get the result.

    With a `name` it is a branch: consumers still read the tensor, and later edits may use the
    result by its name.

    Attributes:
        operation: key of the format's table of operations that it can write, such as "add".
        after: the tensor that becomes the operation's first input.
        operands: the other inputs: names of tensors (of the graph, or added by AddInput), or
            constants, which are written in their dtype.
        attributes: by the neutral names that the operation's entry documents.
        shape: of the result; None for the shape of `after`.
        name: of the result of a branch.
        only_output: the model's output gets the result; other consumers still read the tensor.
    """

    operation: str
    after: str
    operands: tuple[str | Array, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    name: str | None = None
    only_output: bool = False

    def __str__(self) -> str:
        named = f", as {self.name!r}" if self.name else ""
        where = "the output " if self.only_output else ""
        return f"insert {self.operation} after {where}{self.after!r}{named}"


@dataclass(frozen=True, eq=False)
class ComputeStep:
    """One operation of a `Compute`.

    Attributes:
        operation: key of the format's table of operations that it can write.
        inputs: 0 for the tensor `Compute.after`, i for the result of the i-th step.
        operands: the inputs after them: constants, which are written in their dtype, or names of
            tensors, for example of branches.
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
    """Insert a computation after a tensor: all consumers of the tensor get its last result.

    Unlike an Insert, it may read the tensor and the results of its steps several times, or not at
    all; nodes without a consumer are then removed.
    """

    after: str
    steps: tuple[ComputeStep, ...]

    def __str__(self) -> str:
        shown = ", ".join(step.operation for step in self.steps)
        return f"compute after {self.after!r}: {shown}"


@dataclass(frozen=True, eq=False)
class AddInput:
    """Add an input to the model, with a default if the format has defaults."""

    name: str
    shape: Shape
    dtype: str
    default: Array | None = None

    def __str__(self) -> str:
        return f"add the input {self.name!r}"


@dataclass(frozen=True)
class AddOutput:
    """Return a computed tensor as another output, after the others, with this name."""

    tensor: str
    name: str

    def __str__(self) -> str:
        return f"return {self.tensor!r} as the output {self.name!r}"


@dataclass(frozen=True)
class RemoveOutputs:
    """Return these outputs no more, and remove the nodes and constants that only they need.

    It is the only edit of its plan: the next plan is for the model without them.
    """

    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"remove the outputs {', '.join(map(repr, self.outputs))}, and what only they need"


Edit = (
    Take
    | Fill
    | Replace
    | SetShape
    | SetAttribute
    | Insert
    | Compute
    | AddInput
    | AddOutput
    | RemoveOutputs
)


@dataclass(frozen=True)
class Plan:
    """Edits in the order in which they are applied, and what the result states.

    Attributes:
        remap: is written into the result.
        images: input that takes images -> how pixels become its values; None if that is not known.
            Written by formats whose files state it, if the remap has labels.
        precision: that an uncut file was quantized to; a remap states it itself.
        then: for the result of this plan, for example of the cut of another head.
    """

    edits: tuple[Edit, ...]
    remap: Remap | None = None
    images: Mapping[str, Normalization | None] = field(default_factory=dict)
    precision: str | None = None
    then: Plan | None = None

    def __str__(self) -> str:
        return "\n".join(str(edit) for edit in self.every_edit)

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The plans to apply one after the other; without `then`."""
        rest = self.then.parts if self.then else ()
        return (replace(self, then=None), *rest)

    @property
    def every_edit(self) -> tuple[Edit, ...]:
        """The edits of all parts."""
        return tuple(edit for part in self.parts for edit in part.edits)


def in_sequence(plans: Sequence[Plan]) -> Plan:
    """One plan that applies the given ones, at least one, in their order."""
    first, *rest = plans
    return replace(first, then=in_sequence(rest) if rest else None)


def with_free_names(edits: Sequence[Edit], taken: Container[str]) -> tuple[Edit, ...]:
    """The edits, with other names for the results of branches if the model has one of them already.

    A second head that is cut in the same way would add the same names: gate/on becomes gate_2/on.
    """
    names = [edit.name for edit in edits if isinstance(edit, Insert) and edit.name]
    if not any(name in taken for name in names):
        return tuple(edits)
    numbered = ({name: _numbered(name, n) for name in names} for n in count(2))
    free = next(new for new in numbered if not any(name in taken for name in new.values()))
    return tuple(_renamed(edit, free) for edit in edits)


def _numbered(name: str, number: int) -> str:
    branch, slash, rest = name.partition("/")
    return f"{branch}_{number}{slash}{rest}"


def _renamed(edit: Edit, names: Mapping[str, str]) -> Edit:
    def operands_of(step: Insert | ComputeStep) -> tuple[str | Array, ...]:
        return tuple(names.get(o, o) if isinstance(o, str) else o for o in step.operands)

    if isinstance(edit, Insert):
        name, after = names.get(edit.name or "", edit.name), names.get(edit.after, edit.after)
        return replace(edit, name=name, after=after, operands=operands_of(edit))
    if isinstance(edit, Compute):
        steps = tuple(replace(step, operands=operands_of(step)) for step in edit.steps)
        return replace(edit, after=names.get(edit.after, edit.after), steps=steps)
    return edit
