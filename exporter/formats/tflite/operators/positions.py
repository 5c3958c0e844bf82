"""What moves, joins, parts and repeats positions, and what states or reads shapes."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.tflite import shapes
from exporter.formats.tflite.call import NO_RANK, Call, Row
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


def _reshape(call: Call) -> Operation:
    """The runtime takes the shape from the second input and, where there is none, the option."""
    option = call.option("newShape", None)
    stated = None if option is None else tuple(int(n) for n in option)
    if call.input(1) is None:
        return Opaque("it has no shape") if stated is None else Reshape(stated, None, "newShape")
    target = shapes.entries(call.input(1), call.values)
    if target is None or sum(n is None for n in target) > 1:
        return Opaque("its shape is computed while the model runs")
    whole = tuple(-1 if n is None else n for n in target)
    return Reshape(whole, 1, "newShape" if stated == whole else None)


def _squeeze(call: Call) -> Operation:
    """Without stated axes, a single unit left over would lose its axis."""
    dims = call.option("squeezeDims", None)
    if dims is None or not len(dims):
        return Opaque("it does not state which axes it removes")
    return Reshape()


def _follows(_: Call) -> Operation:
    return Reshape()


def _transpose(call: Call) -> Operation:
    permutation = call.integers(1)
    if permutation is None:
        return Opaque("its permutation is computed while the model runs")
    return Transpose(permutation)


# --- joined and parted ---------------------------------------------------------------------------


def _concatenation(call: Call) -> Operation:
    if len(call.inputs) == 1:
        return Elementwise()
    rank = call.rank()
    return NO_RANK if not rank else Concat(int(call.option("axis")) % rank)


def _split(call: Call) -> Operation:
    """split_dim, value"""
    axis, rank = call.integers(0), call.rank(1)
    if axis is None or not rank:
        return Opaque("its axis is computed while the model runs")
    return Split(axis[0] % rank)


def _split_v(call: Call) -> Operation:
    """value, sizes, split_dim"""
    sizes, axis, rank = call.integers(1), call.integers(2), call.rank(0)
    if sizes is None or axis is None or not rank:
        return Opaque("its sizes are computed while the model runs")
    return Split(axis[0] % rank, sizes, slot=1)


def _slice(call: Call) -> Operation:
    """value, begins, sizes; a size of -1 goes to the end"""
    begins, sizes = call.integers(1), call.integers(2)
    if begins is None or sizes is None:
        return Opaque("its bounds are computed while the model runs")
    axes, steps = tuple(range(len(begins))), (1,) * len(begins)
    return Slice(axes, begins, sizes, steps, slot=2, start=1, counts=True)


def _strided_slice(call: Call) -> Operation:
    """Bit i of a mask is about the i-th axis: what it says then stands in place of the number."""
    bounds = [call.integers(slot) for slot in (1, 2, 3)]
    if any(bound is None for bound in bounds):
        return Opaque("its bounds are computed while the model runs")
    begins, ends, steps = (bound or () for bound in bounds)
    if call.option("offset", default=False):
        return Opaque("its ends are counted from its beginnings")
    if any(call.option(f"{mask}Mask") for mask in ("ellipsis", "newAxis", "shrinkAxis")):
        alone = set(steps) == {1} and _are_as_many(call)
        return Reshape() if alone else Opaque("it adds or drops axes")
    first = int(call.option("beginMask"))
    starts = tuple(0 if first >> axis & 1 else begin for axis, begin in enumerate(begins))
    return Slice(tuple(range(len(begins))), starts, ends, steps, slot=2, start=1)


def _are_as_many(call: Call) -> bool:
    """Is the result's shape the input's, but for axes of length 1?"""
    source = call.input(0)
    return source is not None and _wide(source.shape) == _wide(call.outputs[0].shape)


def _wide(shape: Shape | None) -> list[int | None]:
    return [n for n in shape or () if n != 1]


def _gather(call: Call) -> Operation:
    if call.option("batchDims"):
        return Opaque("it gathers batch by batch")
    return Gather(int(call.option("axis")))


def _embedding(_: Call) -> Operation:
    return Gather(0)


# --- more positions ------------------------------------------------------------------------------


def _pad(call: Call) -> Operation:
    """input, [axes, 2], and perhaps the value that is padded"""
    widths, rank = call.integers(1), call.rank(0)
    value = call.real(2)
    if widths is None or rank is None or (call.input(2) is not None and value is None):
        return Opaque("its widths are computed while the model runs")
    pairs = zip(widths[::2], widths[1::2], strict=True)
    grown = tuple(axis for axis, pair in enumerate(pairs) if any(pair))
    return Expand(grown, keeps_zero=value is None or not value.any())


def _tile(call: Call) -> Operation:
    repeats = call.integers(1)
    if repeats is None:
        return Opaque("its repeats are computed while the model runs")
    return Expand(tuple(axis for axis, count in enumerate(repeats) if count != 1))


def _broadcast_to(call: Call) -> Operation:
    target, source = call.integers(1), call.input(0)
    if target is None:
        return _broadcast_as_computed(shapes.entries(call.input(1), call.values))
    if source is None or source.shape is None:
        return Opaque("its shape is computed while the model runs")
    more = len(target) - len(source.shape)
    own = (*(None,) * more, *source.shape)
    grown = tuple(a for a, n in enumerate(own) if a < more or (n == 1 and target[a] != 1))
    return Expand(grown, target=target, slot=1)


def _broadcast_as_computed(target: Shape | None) -> Operation:
    """Whatever the others come to: an axis whose entry is 1 stays as it is."""
    if target is None or 1 not in target:
        return Opaque("its shape is computed while the model runs")
    return Expand(tuple(axis for axis, length in enumerate(target) if length != 1))


def _resize(_: Call) -> Operation:
    """image [batch, h, w, channels]"""
    return Expand((1, 2))


def _fill(call: Call) -> Operation:
    shape, value = call.integers(0), call.real(1)
    if shape is None or value is None:
        return Opaque("its shape or value is computed while the model runs")
    return ConstantOfShape(shape, slot=0, value=float(value.sum()))


def _shape(call: Call) -> Operation:
    rank = call.rank(0)
    return NO_RANK if rank is None else ShapeOf(tuple(range(rank)))


ROWS: Mapping[str, Row] = {
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "EMBEDDING_LOOKUP": _embedding,
    "EXPAND_DIMS": _follows,
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
