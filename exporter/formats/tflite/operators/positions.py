"""Operators that move, join, split and repeat positions, or compute with shapes."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite import shapes
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.graph import Shape
from exporter.graph.operations import (
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    Operation,
    Reshape,
    ShapeOf,
    Slice,
    Split,
    Stack,
    Transpose,
)

_COMPUTED_SHAPE = "its shape is computed while the model runs"

# --- the same values under another shape ---------------------------------------------------------


def _reshape(view: OperatorView) -> Operation:
    """The runtime reads the shape from the second input or, without one, from the option."""
    option = view.option("newShape", None)
    stated = None if option is None else tuple(int(n) for n in option)
    if view.input(1) is None:
        if stated is None:
            raise UntranslatableError("it has no shape")
        return Reshape(stated, None, "newShape")
    target = shapes.entries(view.input(1), view.known_shapes)
    if target is None or sum(n is None for n in target) > 1:
        raise UntranslatableError(_COMPUTED_SHAPE)
    shape = tuple(-1 if n is None else n for n in target)
    return Reshape(shape, 1, "newShape" if stated == shape else None)


def _squeeze(view: OperatorView) -> Operation:
    """Without stated axes, a unit axis that is cut to length 1 would be removed."""
    axes = view.option("squeezeDims", None)
    if axes is None or not len(axes):
        raise UntranslatableError("it does not state which axes it removes")
    return Reshape()


def _expand_dims(_: OperatorView) -> Operation:
    return Reshape()


def _transpose(view: OperatorView) -> Operation:
    return Transpose(view.known_integers(1, "its permutation is"))


# --- joined and split ----------------------------------------------------------------------------


def _concatenation(view: OperatorView) -> Operation:
    if len(view.inputs) == 1:
        return Elementwise()
    return Concat(int(view.option("axis")) % view.known_rank())


def _pack(view: OperatorView) -> Operation:
    return Stack(int(view.option("axis")) % view.known_rank())


def _unpack(view: OperatorView) -> Operation:
    return Stack(int(view.option("axis")) % view.known_rank(0), unstacks=True)


def _split(view: OperatorView) -> Operation:
    """axis, value"""
    axis = view.known_integers(0, "its axis is")
    return Split(axis[0] % view.known_rank(1))


def _split_v(view: OperatorView) -> Operation:
    """value, sizes, axis"""
    sizes, axis = (view.known_integers(slot, "its sizes are") for slot in (1, 2))
    return Split(axis[0] % view.known_rank(0), sizes, slot=1)


def _slice(view: OperatorView) -> Operation:
    """value, begins, sizes; a size of -1 goes to the end"""
    begins, sizes = (view.known_integers(slot, "its bounds are") for slot in (1, 2))
    axes, steps = tuple(range(len(begins))), (1,) * len(begins)
    return Slice(axes, begins, sizes, steps, slot=2, start=1, counts=True)


def _strided_slice(view: OperatorView) -> Operation:
    """value, begins, ends, steps; bit i of a mask that is set replaces the i-th bound"""
    begins, ends, steps = (view.known_integers(slot, "its bounds are") for slot in (1, 2, 3))
    if view.option("offset", default=False):
        raise UntranslatableError("its ends are relative to its beginnings")
    if any(view.option(f"{mask}Mask") for mask in ("ellipsis", "newAxis", "shrinkAxis")):
        if set(steps) == {1} and _keeps_lengths(view):
            return Reshape()
        raise UntranslatableError("it adds or drops axes")
    first = int(view.option("beginMask"))
    starts = tuple(0 if first >> axis & 1 else begin for axis, begin in enumerate(begins))
    return Slice(tuple(range(len(begins))), starts, ends, steps, slot=2, start=1)


def _keeps_lengths(view: OperatorView) -> bool:
    """Do input and output have the same shape, apart from axes of length 1?"""
    source = view.input(0)
    return source is not None and _without_ones(source.shape) == _without_ones(
        view.outputs[0].shape
    )


def _without_ones(shape: Shape | None) -> list[int | None]:
    return [n for n in shape or () if n != 1]


def _gather(view: OperatorView) -> Operation:
    if view.option("batchDims"):
        raise UntranslatableError("it gathers batch by batch")
    return Gather(int(view.option("axis")))


def _embedding(_: OperatorView) -> Operation:
    return Gather(0)


# --- more positions, shapes ----------------------------------------------------------------------


def _pad(view: OperatorView) -> Operation:
    """input, widths [axes, 2], optionally the value"""
    widths, value = view.integers(1), view.real(2)
    if widths is None or view.rank(0) is None or (view.input(2) is not None and value is None):
        raise UntranslatableError("its widths are computed while the model runs")
    pairs = zip(widths[::2], widths[1::2], strict=True)
    grown = tuple(axis for axis, pair in enumerate(pairs) if any(pair))
    return Expand(grown, keeps_zero=value is None or not value.any())


def _tile(view: OperatorView) -> Operation:
    repeats = view.known_integers(1, "its repeats are")
    return Expand(tuple(axis for axis, count in enumerate(repeats) if count != 1))


def _broadcast_to(view: OperatorView) -> Operation:
    """Of a computed shape only entries of 1 are used: these axes do not change, the others may."""
    target, source = view.integers(1), view.input(0)
    if target is None:
        entries = shapes.entries(view.input(1), view.known_shapes)
        if entries is None or 1 not in entries:
            raise UntranslatableError(_COMPUTED_SHAPE)
        return Expand(tuple(axis for axis, length in enumerate(entries) if length != 1))
    if source is None or source.shape is None:
        raise UntranslatableError(_COMPUTED_SHAPE)
    new = len(target) - len(source.shape)
    lengths = (*(None,) * new, *source.shape)
    grown = tuple(a for a, n in enumerate(lengths) if a < new or (n == 1 and target[a] != 1))
    return Expand(grown, target=target, slot=1)


def _resize(_: OperatorView) -> Operation:
    """image [batch, h, w, channels]"""
    return Expand((1, 2))


def _fill(view: OperatorView) -> Operation:
    shape, value = view.integers(0), view.real(1)
    if shape is None or value is None:
        raise UntranslatableError("its shape or value is computed while the model runs")
    return ConstantOfShape(shape, slot=0, value=float(value.sum()))


def _shape(view: OperatorView) -> Operation:
    rank = view.rank(0)
    if rank is None:
        raise UntranslatableError("the rank of its input or output is not known")
    return ShapeOf(tuple(range(rank)))


ROWS: Mapping[str, Translate] = {
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "EMBEDDING_LOOKUP": _embedding,
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "GATHER": _gather,
    **dict.fromkeys(("MIRROR_PAD", "PAD", "PADV2"), _pad),
    "PACK": _pack,
    "RESHAPE": _reshape,
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
