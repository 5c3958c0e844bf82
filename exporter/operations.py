"""The neutral operations: all that the tracer knows of any file format.

A format's translation table turns each of its operators into one of these. Slots are indices into
`Node.inputs`. What no table knows becomes `Opaque`, which has no rule and is refused by name when a
unit axis meets it; most of a network is never met.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """A product of the first input with a kernel over some of its axes, plus a bias.

    Dense layers, Gemm, MatMul with a constant and convolutions alike: the kernel has one axis of
    output channels, which becomes one axis of the output. Here the walk for a head ends.
    """

    kernel: int  # slot
    kernel_axis: int  # the kernel's axis of output channels
    output_axis: int  # the output's axis of channels
    bias: int | None = None  # slot; its last axis runs along the channels
    groups: int = 1
    width_attribute: str | None = None  # the attribute that states the number of channels, if any


@dataclass(frozen=True)
class Elementwise:
    """Values change, positions do not; inputs broadcast as in NumPy.

    Covers unary functions, constants per channel (scale, offset, batch normalisation) and the join
    of two computed inputs.
    """

    offsets: tuple[int, ...] = ()  # slots of constants that are added to, or taken from, the value
    keeps_zero: bool = True  # 0 in (and 0 for the offsets) gives 0 out
    channel_axis: int | None = None  # vectors align to this output axis, not to the last one
    function: str = "identity"  # name for the oracle, where an oracle may meet it


@dataclass(frozen=True)
class Activation:
    """A function out of `activations.ACTIVATIONS`; along `axis` where it normalises."""

    function: str
    axis: int | None = None
    parameters: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reshape:
    """The same values in the same order under another shape (reshape, flatten, squeeze).

    `target` is what the file states, without the first `leading` axes; None where the shape follows
    from the input and nothing in the file has to change.
    """

    target: tuple[int, ...] | None = None
    slot: int | None = None  # where the target is a constant input
    attribute: str | None = None  # where the target is an attribute
    leading: int = 0


@dataclass(frozen=True)
class Transpose:
    """Axes change places: output axis i is input axis `permutation[i]`."""

    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """Rows of a table (first input) looked up by computed indices (second input)."""

    axis: int = 0


@dataclass(frozen=True)
class Opaque:
    """An operator that no table translates, or one used in a way that none covers."""

    reason: str = "there is no rule for it"


Operation = Linear | Elementwise | Activation | Reshape | Transpose | Gather | Opaque
