"""What moves, joins, parts and repeats positions, and what computes shapes."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.onnx.call import Call, Row
from exporter.formats.onnx.shape_vectors import target_of
from exporter.graph.operations import (
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    GatherComputed,
    GatherConstant,
    Opaque,
    Operation,
    Pool,
    Reshape,
    Scatter,
    ShapeOf,
    Slice,
    Split,
    Transpose,
)

_UNKNOWN_RANK = Opaque("the rank of its input is not known")


def _reshape(call: Call) -> Operation:
    """The target is an attribute before opset 5, an input since."""
    if "shape" in call.attributes:
        return Reshape(call.attributes["shape"], attribute="shape")
    entries = call.lengths(1)
    if entries is None:
        return Opaque("its shape is computed while the model runs")
    target = target_of(entries)
    if call.attributes.get("allowzero", 0) and 0 in target:
        return Opaque("it makes an empty tensor")
    if call.is_constant(1):
        return Reshape(target, slot=1)
    return Reshape(target, origins=tuple(entry.origin for entry in entries))


def _follows(_: Call) -> Operation:
    return Reshape()


def _squeeze(call: Call) -> Operation:
    """Without stated axes, a single unit left over would lose its axis."""
    if "axes" not in call.attributes and not call.is_constant(1):
        return Opaque("it does not state which axes it removes")
    return Reshape()


def _transpose(call: Call) -> Operation:
    shape = call.shape(0)
    if "perm" in call.attributes:
        return Transpose(call.attributes["perm"])
    if shape is None:
        return _UNKNOWN_RANK
    return Transpose(tuple(reversed(range(len(shape)))))


def _gather(call: Call) -> Operation:
    shape = call.shape(0)
    axis = call.attributes.get("axis", 0)
    if shape is None and axis < 0:
        return _UNKNOWN_RANK
    if call.is_constant(1):
        return _picked(call, axis)
    return Gather(axis if shape is None else axis % len(shape))


def _picked(call: Call, axis: int) -> Operation:
    positions, places = call.integers(1), call.shape(1)
    if positions is None or places is None or len(places) > 1:
        return Opaque("its indices have several axes")
    shape = call.shape(0)
    front = axis if shape is None else axis % len(shape)
    return GatherConstant(front, positions, keepdims=bool(places))


def _fetch(call: Call) -> Operation:
    if call.attributes.get("batch_dims", 0) or call.is_constant(1):
        return Opaque("it does not look values up by computed places")
    return GatherComputed()


def _fetch_along(call: Call) -> Operation:
    shape = call.shape(0)
    if shape is None:
        return _UNKNOWN_RANK
    return GatherComputed(call.attributes.get("axis", 0) % len(shape))


def _put(call: Call) -> Operation:
    if call.attributes.get("reduction", "none") != "none":
        return Opaque("it joins several values at one place")
    return Scatter()


def _concat(call: Call) -> Operation:
    if len(call.inputs) == 1:
        return Elementwise()
    shape = call.output_shape()
    return _UNKNOWN_RANK if shape is None else Concat(call.attributes.get("axis", 1) % len(shape))


def _split(call: Call) -> Operation:
    """The sizes are an attribute before opset 13, an input since; without any, parts are equal."""
    shape = call.shape(0)
    if shape is None:
        return _UNKNOWN_RANK
    axis = call.attributes.get("axis", 0) % len(shape)
    if "split" in call.attributes:
        return Split(axis, call.attributes["split"], attribute="split")
    sizes = call.integers(1)
    if call.has(1) and sizes is None:
        return Opaque("its sizes are computed while the model runs")
    return Split(axis, sizes, slot=1) if sizes is not None else Split(axis)


def _slice(call: Call) -> Operation:
    """The bounds are attributes before opset 10, inputs since."""
    shape = call.shape(0)
    if shape is None:
        return _UNKNOWN_RANK
    if "starts" in call.attributes:
        starts, stops = call.attributes["starts"], call.attributes["ends"]
        axes, steps = call.attributes.get("axes"), None
    else:
        given = [call.integers(slot) for slot in range(1, 5)]
        if any(call.has(slot) and given[slot - 1] is None for slot in range(1, 5)):
            return Opaque("its bounds are computed while the model runs")
        starts, stops, axes, steps = given[0] or (), given[1] or (), given[2], given[3]
    axes = tuple(range(len(starts))) if axes is None else tuple(a % len(shape) for a in axes)
    return Slice(
        axes,
        starts,
        stops,
        (1,) * len(axes) if steps is None else steps,
        slot=None if "starts" in call.attributes else 2,
        attribute="ends" if "starts" in call.attributes else None,
        start="starts" if "starts" in call.attributes else 1,
    )


def _expand(call: Call) -> Operation:
    target, shape, result = call.integers(1), call.shape(0), call.output_shape()
    entries = call.lengths(1) if target is None else target
    if entries is None or shape is None or result is None or len(entries) != len(result):
        return Opaque("its shape is computed while the model runs")
    if target is None:
        return _expand_as_computed(call)
    more = len(result) - len(shape)
    own = (*(None,) * more, *shape)
    grown = tuple(a for a, n in enumerate(own) if a < more or (n == 1 and target[a] != 1))
    return Expand(grown, target=target, slot=1)


def _expand_as_computed(call: Call) -> Operation:
    """Whatever the other entries come to: an axis whose entry is 1 stays as it is."""
    target = target_of(call.lengths(1) or ())
    if 1 not in target:
        return Opaque("its shape is computed while the model runs")
    grown = tuple(axis for axis, length in enumerate(target) if length != 1)
    return Expand(grown, computed=True)


def _resize(call: Call) -> Operation:
    """Axes that keep their length are left alone: each is interpolated for itself.

    Sizes that are a constant state every length; a length that is copied from the input's shape, as
    PyTorch writes it, follows a cut by itself.
    """
    shape, result = call.shape(0), call.output_shape()
    if shape is None or result is None:
        return _UNKNOWN_RANK
    named = call.attributes.get("axes", range(len(shape)))
    axes = [axis % len(shape) for axis in named]
    partial = len(axes) < len(shape)
    grown = tuple(a for a in axes if partial or shape[a] is None or shape[a] != result[a])
    sizes = call.integers(3)
    if sizes is None or partial:
        return Pool(grown)
    return Expand(grown, target=sizes, slot=3)


def _tile(call: Call) -> Operation:
    repeats = call.integers(1)
    if repeats is None:
        return Opaque("its repeats are computed while the model runs")
    grown = tuple(axis for axis, count in enumerate(repeats) if count != 1)
    return Expand(grown, target=repeats, slot=1)


def _pad(call: Call) -> Operation:
    """The widths are an attribute before opset 11, an input since; 0 is padded unless stated."""
    stated = call.attributes.get("pads", call.attributes.get("paddings"))
    pads, shape = call.integers(1) if stated is None else stated, call.shape(0)
    value = call.constant(2) if call.has(2) else call.attributes.get("value", 0.0)
    axes = call.integers(3) if call.has(3) else range(len(shape or ()))
    if shape is None:
        return _UNKNOWN_RANK
    if pads is None or value is None or axes is None:  # it may be any axis
        return Expand(tuple(range(len(shape))), keeps_zero=False)
    half = len(pads) // 2
    grown = [axis % len(shape) for axis, *both in zip(axes, pads, pads[half:]) if any(both)]  # noqa: B905 - the first half is meant
    constant = call.attributes.get("mode", "constant") == "constant"
    return Expand(tuple(grown), keeps_zero=not constant or float(value) == 0.0)


def _constant_of_shape(call: Call) -> Operation:
    shape = call.integers(0)
    if shape is None:
        return Opaque("its shape is computed while the model runs")
    return ConstantOfShape(shape, slot=0, value=float(call.attributes.get("value", 0.0)))


def _measure(call: Call) -> Operation:
    return _UNKNOWN_RANK if call.shape(0) is None else ShapeOf(call.axes_read())


ROWS: Mapping[str, Row] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _follows,
    "Gather": _gather,
    "GatherElements": _fetch_along,
    "GatherND": _fetch,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "ScatterND": _put,
    "Shape": _measure,
    "Size": _measure,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _follows,
    "Upsample": _resize,
}
