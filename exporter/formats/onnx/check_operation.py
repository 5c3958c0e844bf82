"""Is a translated operation possible on the tensors that it has? Damaged files say otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exporter.formats.onnx.call import Call
from exporter.graph.operations import (
    Activation,
    Concat,
    Elementwise,
    Expand,
    GatherConstant,
    Linear,
    NonMaxSuppression,
    Operation,
    Pool,
    Reduce,
    Reshape,
    Slice,
    Split,
    TopK,
    Transpose,
)


def fits(operation: Operation, call: Call) -> bool:
    """Every axis that the operation names is one of its tensors', as far as their ranks are known.

    Whether lengths agree is seen where labels meet a tensor.
    """
    check = FITS.get(type(operation))
    return check is None or check(operation, call)


def _reshape(operation: Reshape, call: Call) -> bool:
    return operation.target is None or _rank(call, None) in {None, len(operation.target)}


def _transpose(operation: Transpose, call: Call) -> bool:
    axes = operation.permutation
    same = _rank(call, 0) in {None, _rank(call, None), len(axes)}
    return same and sorted(axes) == list(range(len(axes)))


def _slice(operation: Slice, call: Call) -> bool:
    stated = operation.axes, operation.starts, operation.stops, operation.steps
    return len({len(each) for each in stated}) == 1 and _along(operation.axes, call)


def _reduce(operation: Reduce, call: Call) -> bool:
    source, axes = _rank(call, 0), operation.axes
    return _inside(axes, source) and _rank(call, None) == _left(source, axes, operation.keepdims)


def _top(operation: TopK, call: Call) -> bool:
    source, axes = _rank(call, 0), (operation.axis,)
    left = _left(source, axes, operation.keepdims)
    found = operation.ids < len(call.outputs)
    return found and _inside(axes, source) and _rank(call, None) == left


def _pick(operation: GatherConstant, call: Call) -> bool:
    source, axes = _rank(call, 0), (operation.axis,)
    return _inside(axes, source) and _rank(call, None) == _left(source, axes, operation.keepdims)


def _detect(operation: NonMaxSuppression, call: Call) -> bool:
    return _rank(call, operation.classes) in {None, 3} and operation.ids < len(call.outputs)


def _pool(operation: Pool, call: Call) -> bool:
    return _along(operation.axes, call)


def _parts(operation: Concat | Split, call: Call) -> bool:
    return _along((operation.axis,), call)


def _expand(operation: Expand, call: Call) -> bool:
    source, result = _rank(call, 0), _rank(call, None)
    return _inside(operation.grown, result) and (source or 0) <= (result or 0)


def _values(operation: Activation | Elementwise, call: Call) -> bool:
    """Inputs broadcast to the result: none has more axes."""
    result = _rank(call, None)
    axis = operation.axis if isinstance(operation, Activation) else operation.channel_axis
    block_axis = None if isinstance(operation, Activation) else operation.block_axis
    ranks = (_rank(call, slot) for slot in range(len(call.inputs)) if call.has(slot))
    wide = result is not None and any(rank is not None and rank > result for rank in ranks)
    axes = tuple(each for each in (axis, block_axis) if each is not None)
    return not wide and (result is None or _inside(axes, result))


def _linear(operation: Linear, call: Call) -> bool:
    kernel, result = _rank(call, operation.kernel), _rank(call, None)
    bias = operation.bias is None or operation.bias < len(call.inputs)
    return (
        bias
        and all(each.axis < (_rank(call, each.slot) or 0) for each in operation.along)
        and (kernel is None or 0 <= operation.kernel_axis < kernel)
        and (result is None or 0 <= operation.output_axis < result)
    )


def _rank(call: Call, slot: int | None) -> int | None:
    """Of an input, or of the first output."""
    shape = call.output_shape() if slot is None else call.shape(slot)
    return None if shape is None else len(shape)


def _left(rank: int | None, axes: tuple[int, ...], keepdims: bool) -> int | None:
    return rank if keepdims or rank is None else rank - len(axes)


def _along(axes: tuple[int, ...], call: Call) -> bool:
    """Axes of an input that the result has too."""
    return _inside(axes, _rank(call, 0)) and _rank(call, 0) == _rank(call, None)


def _inside(axes: tuple[int, ...], rank: int | None) -> bool:
    return rank is not None and all(0 <= axis < rank for axis in axes)


FITS: Mapping[type[Operation], Callable[[Any, Call], bool]] = {
    Activation: _values,
    Concat: _parts,
    NonMaxSuppression: _detect,
    Elementwise: _values,
    Expand: _expand,
    Linear: _linear,
    GatherConstant: _pick,
    Pool: _pool,
    Reduce: _reduce,
    Reshape: _reshape,
    Slice: _slice,
    Split: _parts,
    TopK: _top,
    Transpose: _transpose,
}
