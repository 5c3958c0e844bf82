"""Operators that move, join, split and repeat positions, or compute shapes."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.formats.onnx.shape_vectors import target_of
from exporter.graph.operations import (
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    GatherComputed,
    GatherConstant,
    Operation,
    Pool,
    Reshape,
    Scatter,
    ShapeOf,
    Slice,
    Split,
    Transpose,
)

_COMPUTED_SHAPE = "its shape is computed while the model runs"


def _reshape(node: NodeView) -> Operation:
    """The target is an attribute before opset 5, an input since."""
    if "shape" in node.attributes:
        return Reshape(node.attributes["shape"], attribute="shape")
    entries = node.shape_entries(1)
    if entries is None:
        raise UntranslatableError(_COMPUTED_SHAPE)
    target = target_of(entries)
    if node.attributes.get("allowzero", 0) and 0 in target:
        raise UntranslatableError("it makes an empty tensor")
    if node.is_constant(1):
        return Reshape(target, slot=1)
    return Reshape(target, origins=tuple(entry.origin for entry in entries))


def _reshape_by_input(_: NodeView) -> Operation:
    """The result's shape follows from the input's."""
    return Reshape()


def _squeeze(node: NodeView) -> Operation:
    """Without stated axes, a unit axis of which one unit is kept would be removed too."""
    if "axes" not in node.attributes and not node.is_constant(1):
        raise UntranslatableError("it does not state which axes it removes")
    return Reshape()


def _transpose(node: NodeView) -> Operation:
    if "perm" in node.attributes:
        return Transpose(node.attributes["perm"])
    return Transpose(tuple(reversed(range(len(node.known_shape())))))


def _gather(node: NodeView) -> Operation:
    axis = node.attributes.get("axis", 0)
    if node.shape(0) is not None or axis < 0:
        axis = node.axis(default=0)
    if not node.is_constant(1):
        return Gather(axis)
    positions, indices = node.integers(1), node.shape(1)
    if positions is None or indices is None or len(indices) > 1:
        raise UntranslatableError("its indices have several axes")
    return GatherConstant(axis, positions, keepdims=bool(indices))


def _gather_nd(node: NodeView) -> Operation:
    if node.attributes.get("batch_dims", 0) or node.is_constant(1):
        raise UntranslatableError("it does not take values at computed positions")
    return GatherComputed()


def _gather_elements(node: NodeView) -> Operation:
    return GatherComputed(node.axis(default=0))


def _scatter_nd(node: NodeView) -> Operation:
    if node.attributes.get("reduction", "none") != "none":
        raise UntranslatableError("it combines several values at one position")
    return Scatter()


def _concat(node: NodeView) -> Operation:
    if len(node.inputs) == 1:
        return Elementwise()
    shape = node.output_shape()
    if shape is None:
        raise UntranslatableError("the rank of its result is not known")
    return Concat(node.attributes.get("axis", 1) % len(shape))


def _split(node: NodeView) -> Operation:
    """The sizes are an attribute before opset 13, an input since; without any, parts are equal."""
    axis = node.axis(default=0)
    if "split" in node.attributes:
        return Split(axis, node.attributes["split"], attribute="split")
    return (
        Split(axis, node.known_integers(1, "its sizes are"), slot=1) if node.has(1) else Split(axis)
    )


def _slice(node: NodeView) -> Operation:
    """The bounds are attributes before opset 10, inputs since."""
    rank = len(node.known_shape())
    stated = "starts" in node.attributes
    if stated:
        bounds = [node.attributes.get(name) for name in ("starts", "ends", "axes")]
        starts, stops, axes, steps = *bounds, None
    else:
        starts, stops, axes, steps = (
            node.known_integers(slot, "its bounds are") if node.has(slot) else None
            for slot in range(1, 5)
        )
    axes = range(len(starts or ())) if axes is None else [axis % rank for axis in axes]
    return Slice(
        tuple(axes),
        starts or (),
        stops or (),
        (1,) * len(axes) if steps is None else steps,
        slot=None if stated else 2,
        attribute="ends" if stated else None,
        start="starts" if stated else 1,
    )


def _expand(node: NodeView) -> Operation:
    target, shape, result = node.integers(1), node.shape(0), node.output_shape()
    entries = node.shape_entries(1) if target is None else target
    if entries is None or shape is None or result is None or len(entries) != len(result):
        raise UntranslatableError(_COMPUTED_SHAPE)
    if target is None:
        return _expand_to_computed_shape(node)
    added = len(result) - len(shape)
    own = (*(None,) * added, *shape)
    grown = tuple(a for a, n in enumerate(own) if a < added or (n == 1 and target[a] != 1))
    return Expand(grown, target=target, slot=1)


def _expand_to_computed_shape(node: NodeView) -> Operation:
    """An axis whose entry is 1 keeps its length, whatever the other entries are."""
    target = target_of(node.shape_entries(1) or ())
    if 1 not in target:
        raise UntranslatableError(_COMPUTED_SHAPE)
    grown = tuple(axis for axis, length in enumerate(target) if length != 1)
    return Expand(grown, computed=True)


def _resize(node: NodeView) -> Operation:
    """Each axis is interpolated separately, so an axis that keeps its length is unchanged.

    Constant sizes state every length. A length that is copied from the input's shape, as PyTorch
    exports it, follows a cut without an edit.
    """
    shape, result = node.known_shape(), node.output_shape()
    if result is None:
        raise UntranslatableError("the rank of its result is not known")
    axes = [axis % len(shape) for axis in node.attributes.get("axes", range(len(shape)))]
    partial = len(axes) < len(shape)
    grown = tuple(a for a in axes if partial or shape[a] is None or shape[a] != result[a])
    sizes = node.integers(3)
    if sizes is None or partial:
        return Pool(grown)
    return Expand(grown, target=sizes, slot=3)


def _tile(node: NodeView) -> Operation:
    repeats = node.known_integers(1, "its repeats are")
    grown = tuple(axis for axis, count in enumerate(repeats) if count != 1)
    return Expand(grown, target=repeats, slot=1)


def _pad(node: NodeView) -> Operation:
    """The widths are an attribute before opset 11, an input since; 0 is padded unless stated."""
    shape = node.known_shape()
    stated = node.attributes.get("pads", node.attributes.get("paddings"))
    pads = node.integers(1) if stated is None else stated
    value = node.constant(2) if node.has(2) else node.attributes.get("value", 0.0)
    axes = node.integers(3) if node.has(3) else range(len(shape))
    if pads is None or value is None or axes is None:  # any axis may grow
        return Expand(tuple(range(len(shape))), keeps_zero=False)
    half = len(pads) // 2
    grown = [axis % len(shape) for axis, *both in zip(axes, pads, pads[half:]) if any(both)]  # noqa: B905 - the first half is meant
    constant = node.attributes.get("mode", "constant") == "constant"
    return Expand(tuple(grown), keeps_zero=not constant or float(value) == 0.0)


def _constant_of_shape(node: NodeView) -> Operation:
    shape = node.known_integers(0, "its shape is")
    return ConstantOfShape(shape, slot=0, value=float(node.attributes.get("value", 0.0)))


def _shape_of(node: NodeView) -> Operation:
    node.known_shape()
    return ShapeOf(node.axes_read())


ROWS: Mapping[str, Translate] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _reshape_by_input,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "ScatterND": _scatter_nd,
    "Shape": _shape_of,
    "Size": _shape_of,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape_by_input,
    "Upsample": _resize,
}
