"""Operators that move, join, split and repeat positions, or compute with shapes."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.tflite import shapes
from exporter.formats.tflite.operator_view import NO_RANK, OperatorView, Translate
from exporter.graph import Shape
from exporter.graph.operations import (
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    Opaque,
    Operation,
    Reshape,
    ShapeOf,
    Slice,
    Split,
    Transpose,
)

# --- the same values under another shape ---------------------------------------------------------


def _reshape(view: OperatorView) -> Operation:
    """The runtime reads the shape from the second input or, without one, from the option."""
    option = view.option("newShape", None)
    stated = None if option is None else tuple(int(n) for n in option)
    if view.input(1) is None:
        return Opaque("it has no shape") if stated is None else Reshape(stated, None, "newShape")
    target = shapes.entries(view.input(1), view.known_shapes)
    if target is None or sum(n is None for n in target) > 1:
        return Opaque("its shape is computed while the model runs")
    shape = tuple(-1 if n is None else n for n in target)
    return Reshape(shape, 1, "newShape" if stated == shape else None)


def _squeeze(view: OperatorView) -> Operation:
    """Without stated axes, a unit axis that is cut to length 1 would be removed."""
    dims = view.option("squeezeDims", None)
    if dims is None or not len(dims):
        return Opaque("it does not state which axes it removes")
    return Reshape()


def _expand_dims(_: OperatorView) -> Operation:
    return Reshape()


def _transpose(view: OperatorView) -> Operation:
    permutation = view.integers(1)
    if permutation is None:
        return Opaque("its permutation is computed while the model runs")
    return Transpose(permutation)


# --- joined and split ----------------------------------------------------------------------------


def _concatenation(view: OperatorView) -> Operation:
    if len(view.inputs) == 1:
        return Elementwise()
    rank = view.rank()
    return NO_RANK if not rank else Concat(int(view.option("axis")) % rank)


def _split(view: OperatorView) -> Operation:
    """split_dim, value"""
    axis, rank = view.integers(0), view.rank(1)
    if axis is None or not rank:
        return Opaque("its axis is computed while the model runs")
    return Split(axis[0] % rank)


def _split_v(view: OperatorView) -> Operation:
    """value, sizes, split_dim"""
    sizes, axis, rank = view.integers(1), view.integers(2), view.rank(0)
    if sizes is None or axis is None or not rank:
        return Opaque("its sizes are computed while the model runs")
    return Split(axis[0] % rank, sizes, slot=1)


def _slice(view: OperatorView) -> Operation:
    """value, begins, sizes; a size of -1 goes to the end"""
    begins, sizes = view.integers(1), view.integers(2)
    if begins is None or sizes is None:
        return Opaque("its bounds are computed while the model runs")
    axes, steps = tuple(range(len(begins))), (1,) * len(begins)
    return Slice(axes, begins, sizes, steps, slot=2, start=1, counts=True)


def _strided_slice(view: OperatorView) -> Operation:
    """If bit i of a mask is set, the mask's meaning replaces the i-th bound."""
    bounds = [view.integers(slot) for slot in (1, 2, 3)]
    if any(bound is None for bound in bounds):
        return Opaque("its bounds are computed while the model runs")
    begins, ends, steps = (bound or () for bound in bounds)
    if view.option("offset", default=False):
        return Opaque("its ends are relative to its beginnings")
    if any(view.option(f"{mask}Mask") for mask in ("ellipsis", "newAxis", "shrinkAxis")):
        return (
            Reshape()
            if set(steps) == {1} and _keeps_lengths(view)
            else Opaque("it adds or drops axes")
        )
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
        return Opaque("it gathers batch by batch")
    return Gather(int(view.option("axis")))


def _embedding(_: OperatorView) -> Operation:
    return Gather(0)


# --- more positions, shapes ----------------------------------------------------------------------


def _pad(view: OperatorView) -> Operation:
    """input, widths [axes, 2], optionally the value"""
    widths, rank = view.integers(1), view.rank(0)
    value = view.real(2)
    if widths is None or rank is None or (view.input(2) is not None and value is None):
        return Opaque("its widths are computed while the model runs")
    pairs = zip(widths[::2], widths[1::2], strict=True)
    grown = tuple(axis for axis, pair in enumerate(pairs) if any(pair))
    return Expand(grown, keeps_zero=value is None or not value.any())


def _tile(view: OperatorView) -> Operation:
    repeats = view.integers(1)
    if repeats is None:
        return Opaque("its repeats are computed while the model runs")
    return Expand(tuple(axis for axis, count in enumerate(repeats) if count != 1))


def _broadcast_to(view: OperatorView) -> Operation:
    target, source = view.integers(1), view.input(0)
    if target is None:
        return _broadcast_to_computed(shapes.entries(view.input(1), view.known_shapes))
    if source is None or source.shape is None:
        return Opaque("its shape is computed while the model runs")
    new = len(target) - len(source.shape)
    lengths = (*(None,) * new, *source.shape)
    grown = tuple(a for a, n in enumerate(lengths) if a < new or (n == 1 and target[a] != 1))
    return Expand(grown, target=target, slot=1)


def _broadcast_to_computed(target: Shape | None) -> Operation:
    """Axes with an entry of 1 do not change; the others may."""
    if target is None or 1 not in target:
        return Opaque("its shape is computed while the model runs")
    return Expand(tuple(axis for axis, length in enumerate(target) if length != 1))


def _resize(_: OperatorView) -> Operation:
    """image [batch, h, w, channels]"""
    return Expand((1, 2))


def _fill(view: OperatorView) -> Operation:
    shape, value = view.integers(0), view.real(1)
    if shape is None or value is None:
        return Opaque("its shape or value is computed while the model runs")
    return ConstantOfShape(shape, slot=0, value=float(value.sum()))


def _shape(view: OperatorView) -> Operation:
    rank = view.rank(0)
    return NO_RANK if rank is None else ShapeOf(tuple(range(rank)))


ROWS: Mapping[str, Translate] = {
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "EMBEDDING_LOOKUP": _embedding,
    "EXPAND_DIMS": _expand_dims,
    "FILL": _fill,
    "GATHER": _gather,
    "MIRROR_PAD": _pad,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
}
