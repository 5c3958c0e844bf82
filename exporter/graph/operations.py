"""The neutral operations: all that the tracer knows of any file format.

A format's translation table turns each of its operators into one of these. Slots are indices into
`Node.inputs`. What no table knows becomes `Opaque`, which has no rule and is refused by name when a
unit axis meets it; most of a network is never met.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class PerChannel(NamedTuple):
    """A constant along the channels of a kernel, one entry a channel or one a block of it."""

    slot: int
    axis: int = 0
    zero: float | None = None  # what makes a channel 0, if its entries do


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
    along: tuple[PerChannel, ...] = ()  # scales and zero points of the kernel's codes
    packed_bits: int | None = None  # of a code, where the kernel holds several in one entry
    kernel_zero: float | None = 0.0  # what makes a channel 0; None where something along it does
    altered: bool = False  # the bias is scaled, or the sum goes through an activation at once


@dataclass(frozen=True)
class Elementwise:
    """Values change, positions do not; inputs broadcast as in NumPy.

    Covers unary functions, constants per channel (scale, offset, batch normalization) and the join
    of two computed inputs.
    """

    offsets: tuple[int, ...] = ()  # slots of constants that are added to, or taken from, the value
    keeps_zero: bool = True  # 0 in (and 0 for the offsets) gives 0 out
    channel_axis: int | None = None  # vectors align to this output axis, not to the last one
    block_axis: int | None = None  # where several positions share an entry of the second input
    function: str = "identity"  # name for the oracle, where an oracle may meet it


@dataclass(frozen=True)
class Activation:
    """A function out of `activations.ACTIVATIONS`; along `axis` where it normalizes."""

    function: str
    axis: int | None = None
    parameters: tuple[tuple[str, float], ...] = ()


class ShapeSource(NamedTuple):
    """Where a number stands that the file puts into a shape: an input of another node."""

    node: str
    slot: int
    value: tuple[int, ...]  # the whole constant
    entry: int | None  # None where the constant is the number itself


@dataclass(frozen=True)
class Reshape:
    """The same values in the same order under another shape (reshape, flatten, squeeze).

    `target` is what the file states, without the first `leading` axes; None where the shape follows
    from the input and nothing in the file has to change. Entries of 0 and -1 follow from the input
    too; one of -2 is computed while the model runs.
    """

    target: tuple[int, ...] | None = None
    slot: int | None = None  # where the target is a constant input
    attribute: str | None = None  # where the target is an attribute
    leading: int = 0
    origins: tuple[ShapeSource | None, ...] = ()  # one an entry, where the target is put together


@dataclass(frozen=True)
class Transpose:
    """Axes change places: output axis i is input axis `permutation[i]`."""

    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """Rows of a table (first input) looked up by computed indices (second input)."""

    axis: int = 0


@dataclass(frozen=True)
class GatherConstant:
    """Stated positions of one axis, which goes where a single one is taken."""

    axis: int
    positions: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class GatherComputed:
    """Values of the first input at places that the second states, computed while the model runs."""

    axis: int | None = None  # the only one along which values change places; None for any


@dataclass(frozen=True)
class Scatter:
    """The first input with some of its values replaced by the third's, at places that the second
    input states.
    """


@dataclass(frozen=True)
class Reduce:
    """One value for all positions along some axes: a mean, a sum, a maximum."""

    axes: tuple[int, ...]  # of the input, counted from the front
    keepdims: bool
    function: str  # key of activations.REDUCTIONS


@dataclass(frozen=True)
class Pool:
    """Windows along some axes become one position each; 0 everywhere gives 0."""

    axes: tuple[int, ...]  # those whose positions are mixed


@dataclass(frozen=True)
class Concat:
    """All inputs one behind the other along an axis."""

    axis: int


@dataclass(frozen=True)
class Split:
    """The input taken apart along an axis, one output a part."""

    axis: int
    sizes: tuple[int, ...] | None = None  # what the file states; None where the parts are equal
    slot: int | None = None  # where the sizes are a constant input
    attribute: str | None = None  # where the sizes are an attribute


@dataclass(frozen=True)
class Slice:
    """A range of positions along some axes, each as the file states it: what is negative counts
    from the end, what is too large ends at the end.
    """

    axes: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]
    slot: int | None = None  # where the stops are a constant input
    attribute: str | None = None  # where the stops are an attribute
    start: int | str | None = None  # likewise, where the starts are
    counts: bool = False  # the stops are no places but how many positions are taken


@dataclass(frozen=True)
class Expand:
    """More positions along some axes: repeated, tiled, broadcast or padded."""

    grown: tuple[int, ...]  # axes of the output that change, or that the input lacks
    keeps_zero: bool = True
    target: tuple[int, ...] | None = None  # the output's shape, or repeats, as the file says
    slot: int | None = None  # where the target is a constant input
    computed: bool = False  # one value is repeated as often as the second input comes to


@dataclass(frozen=True)
class ConstantOfShape:
    """A constant that the file states as a shape and one value."""

    shape: tuple[int, ...]
    slot: int
    value: float


@dataclass(frozen=True)
class ShapeOf:
    """Lengths of the input's axes as numbers: a shape that others are computed from."""

    axes: tuple[int, ...]  # those whose lengths are read


@dataclass(frozen=True)
class TopK:
    """The first of the positions along an axis, ranked by value: ids, and values where asked for.

    Of equal values the one that stands first ranks first.
    """

    axis: int
    keepdims: bool = True
    k: int | None = None  # None: one, and the file states no number
    slot: int | None = None  # where k is a constant input
    attribute: str | None = None  # where k is an attribute
    ids: int = 0  # the output that holds the ids
    largest: bool = True
    last: bool = False  # of equal values the one that stands last ranks first


class DetectionSlots(NamedTuple):
    """What a post-process returns, a row a detection: slots of its outputs."""

    boxes: int
    classes: int
    scores: int
    number: int  # how many rows there are


@dataclass(frozen=True)
class NonMaxSuppression:
    """The post-process of a detector: ranks boxes by the values of their classes, and drops those
    that overlap a better one. The class numbers that it returns do not count the background.
    """

    classes: int  # slot of the classes' values
    axis: int  # of that input, along which the classes lie
    background: int = 0  # how many positions in front are no class
    count: int | None = None  # of classes, where the file states it
    attribute: str | None = None  # where it is stated
    boxes: int = 0  # slot of their places
    ids: int = 0  # the output with the class numbers
    column: int | None = None  # of that output's last axis, where it holds other numbers too
    rows: DetectionSlots | None = None  # where boxes, classes and scores are outputs of their own
    overlap: float = 1.0  # intersection over union from which on a box is dropped
    settings: tuple[tuple[str, str], ...] = ()  # what else the file states of it, as written


@dataclass(frozen=True)
class Opaque:
    """An operator that no table translates, or one used in a way that none covers."""

    reason: str = "there is no rule for it"
    hint: str = ""  # what to do about it, where the operator alone says that


Operation = (
    Linear
    | Elementwise
    | Activation
    | Reshape
    | Transpose
    | Reduce
    | Pool
    | Concat
    | Split
    | Slice
    | Expand
    | ConstantOfShape
    | ShapeOf
    | Gather
    | GatherConstant
    | GatherComputed
    | Scatter
    | TopK
    | NonMaxSuppression
    | Opaque
)
