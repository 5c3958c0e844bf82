"""The neutral operations: the tracer knows no others, whatever the file format.

The table of a format translates each of its operators into one of these. A slot is an index into
`Node.inputs`. An operator that no table contains becomes `Opaque`: it is refused by name if a unit
axis leads to it, and ignored otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class PerChannel(NamedTuple):
    """A constant with one entry for each channel of a kernel, or for each block of a channel."""

    slot: int
    axis: int = 0
    zero: float | None = None  # the entry that makes a channel 0, if there is one


class Window(NamedTuple):
    """How a kernel moves over an image: one entry for each of its spatial axes.

    Attributes:
        axes: of the image.
        kernel_axes: of the kernel.
        pads: positions of zeros before and after; "upper" or "lower" for as many as give the output
            the length ceil(length / stride), with the odd one at that end.
    """

    axes: tuple[int, ...]
    kernel_axes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | str


class Contraction(NamedTuple):
    """The axes that a product sums over.

    Attributes:
        data: slot of the computed input.
        input_axis: its axis of channels.
        kernel_axis: the kernel's axis of input channels; within a group if there are groups. The
            last axes of the input are flattened if the kernel's axis is longer.
        window: of a convolution; None if each position is multiplied alone.
        adds_up: outputs of several positions are added (a transposed convolution).
    """

    data: int
    input_axis: int
    kernel_axis: int
    window: Window | None = None
    adds_up: bool = False


@dataclass(frozen=True)
class Linear:
    """A product of the first input with a kernel over some of its axes, plus a bias.

    For example a dense layer, a Gemm, a MatMul with a constant, or a convolution: the kernel has
    one axis of output channels, which becomes one axis of the output. The walk of a head ends here.
    """

    kernel: int  # slot
    kernel_axis: int  # the kernel's axis of output channels
    output_axis: int  # the output's axis of channels
    bias: int | None = None  # slot; its last axis runs along the channels
    groups: int = 1
    width_attribute: str | None = None  # name of an attribute with the number of channels
    along: tuple[PerChannel, ...] = ()  # scales and zero points of a quantized kernel
    packed_bits: int | None = None  # bits of a quantized value, where an entry contains several
    kernel_zero: float | None = 0.0  # the entry that makes a channel 0; None: see PerChannel.zero
    shape: int | None = None  # slot of the shape of the output, where the file states it
    altered: bool = False  # the bias is scaled, or an activation is part of the operation
    contraction: Contraction | None = None  # None where it is not known, or the kernel is scaled
    groups_attribute: str | None = None  # name of an attribute with the number of groups


@dataclass(frozen=True)
class Elementwise:
    """A function of each value; inputs broadcast as in NumPy.

    For example unary functions, per-channel constants (scale, offset, batch normalization) and sums
    of two computed inputs.
    """

    offsets: tuple[int, ...] = ()  # slots of constants that are added or subtracted
    keeps_zero: bool = True  # an input of 0 (with offsets of 0) gives 0
    channel_axis: int | None = None  # output axis to which vectors align, instead of the last one
    block_axis: int | None = None  # axis on which several positions share an entry of input 1
    function: str = "identity"  # its name, if an oracle or a rule needs it


@dataclass(frozen=True)
class Activation:
    """A function of `activations.ACTIVATIONS`; over `axis` if it normalizes."""

    function: str
    axis: int | None = None
    parameters: tuple[tuple[str, float], ...] = ()


class ShapeSource(NamedTuple):
    """The constant input of another node that an entry of a computed shape comes from."""

    node: str
    slot: int
    value: tuple[int, ...]  # the whole constant
    entry: int | None  # index of the number; None where the constant is a scalar


@dataclass(frozen=True)
class Reshape:
    """The same values in the same order with another shape (reshape, flatten, squeeze).

    `target` is the shape that the file states, without the first `leading` axes; None where the
    shape follows from the input. Entries of 0 and -1 follow from the input too; an entry of -2 is
    computed while the model runs.
    """

    target: tuple[int, ...] | None = None
    slot: int | None = None  # where the target is a constant input
    attribute: str | None = None  # where the target is an attribute
    leading: int = 0
    origins: tuple[ShapeSource | None, ...] = ()  # for each entry, where other nodes compute it


@dataclass(frozen=True)
class Transpose:
    """Axes in another order: output axis i is input axis `permutation[i]`."""

    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Gather:
    """The rows of a table (first input) at computed indices (second input)."""

    axis: int = 0
    along: tuple[PerChannel, ...] = ()  # scales and zero points of the rows of a quantized table
    width_attribute: str | None = None  # name of an attribute with the number of rows
    masks_zero: bool = False  # index 0 has a meaning of its own: it is masked in later layers


@dataclass(frozen=True)
class GatherConstant:
    """Positions of one axis that the file states; without `keepdims` the axis is dropped."""

    axis: int
    positions: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class GatherComputed:
    """Values of the first input at the positions that the second input gives at run time."""

    axis: int | None = None  # the axis of the positions; None for several


@dataclass(frozen=True)
class Scatter:
    """The first input, with values of the third at the positions that the second input gives."""


@dataclass(frozen=True)
class Reduce:
    """One value for all positions along some axes: a mean, a sum, a maximum."""

    axes: tuple[int, ...]  # of the input, not negative
    keepdims: bool
    function: str  # key of activations.REDUCTIONS


@dataclass(frozen=True)
class Pool:
    """Windows along some axes become one position each; 0 everywhere gives 0."""

    axes: tuple[int, ...]  # the axes of the windows


@dataclass(frozen=True)
class Concat:
    """The inputs joined along an axis."""

    axis: int


@dataclass(frozen=True)
class Stack:
    """The inputs, which have one shape, joined along a new axis; or the reverse.

    `unstacks`: one input becomes several outputs, without the axis.
    """

    axis: int  # of the tensor that has it
    unstacks: bool = False


@dataclass(frozen=True)
class Split:
    """The input split along an axis, one output for each part."""

    axis: int
    sizes: tuple[int, ...] | None = None  # as the file states them; None where they are equal
    slot: int | None = None  # where the sizes are a constant input
    attribute: str | None = None  # where the sizes are an attribute


@dataclass(frozen=True)
class Slice:
    """A range of positions along some axes, as the file states it.

    As in NumPy, a negative number counts from the end, and a stop may be too large.
    """

    axes: tuple[int, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]
    slot: int | None = None  # where the stops are a constant input
    attribute: str | None = None  # where the stops are an attribute
    start: int | str | None = None  # slot or attribute of the starts
    counts: bool = False  # the stops are numbers of positions


@dataclass(frozen=True)
class Expand:
    """More positions along some axes: repeated, tiled, broadcast or padded."""

    grown: tuple[int, ...]  # axes of the output that are longer than in the input, or new
    keeps_zero: bool = True
    target: tuple[int, ...] | None = None  # shape of the output, or repeats, as the file states
    slot: int | None = None  # where the target is a constant input
    computed: bool = False  # the second input gives the number of repeats at run time


@dataclass(frozen=True)
class ConstantOfShape:
    """A constant that the file states by its shape and one value."""

    shape: tuple[int, ...]
    slot: int
    value: float


@dataclass(frozen=True)
class ShapeOf:
    """The lengths of some axes of the input."""

    axes: tuple[int, ...]


@dataclass(frozen=True)
class TopK:
    """The indices of the largest values along an axis, and perhaps the values.

    Of equal values the first one ranks first.
    """

    axis: int
    keepdims: bool = True
    k: int | None = None  # None for an argmax: one index, and the file states no number
    slot: int | None = None  # where k is a constant input
    attribute: str | None = None  # where k is an attribute
    ids: int = 0  # slot of the output with the indices
    largest: bool = True
    last: bool = False  # of equal values the last one ranks first


class DetectionSlots(NamedTuple):
    """The slots of the outputs of a post-process, which have one row for each detection."""

    boxes: int
    classes: int
    scores: int
    number: int  # of rows


@dataclass(frozen=True)
class NonMaxSuppression:
    """The post-process of a detector: it ranks boxes by their class values, and drops a box that
    overlaps a better one. Its class indices do not count the background.
    """

    classes: int  # slot of the class values
    axis: int  # class axis of that input
    background: int = 0  # number of positions before the first class
    count: int | None = None  # number of classes, if the file states it
    attribute: str | None = None  # where it is stated
    boxes: int = 0  # slot of the box coordinates
    ids: int = 0  # slot of the output with the class indices
    column: int | None = None  # their column, if that output contains other values too
    rows: DetectionSlots | None = None  # if boxes, classes and scores are separate outputs
    overlap: float = 1.0  # intersection over union at which a box is dropped
    settings: tuple[tuple[str, str], ...] = ()  # its other options, as the file states them


@dataclass(frozen=True)
class Opaque:
    """An operator that no table translates, or not as it is used here."""

    reason: str = "there is no rule for it"
    hint: str = ""  # what the user can do about it


Operation = (
    Linear
    | Elementwise
    | Activation
    | Reshape
    | Transpose
    | Reduce
    | Pool
    | Concat
    | Stack
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
