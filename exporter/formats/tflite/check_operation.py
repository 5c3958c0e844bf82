"""Do an operator's tensors fit the operation that it is said to perform?

The runtime checks this only when it allocates, which needs kernels for every operator; the trace
and the edits rely on it. A damaged file may pass all checks but this one.
"""

from __future__ import annotations

from exporter.formats.tflite.operator_view import SLOT_ORDER, OperatorView
from exporter.graph import Shape
from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    Gather,
    Linear,
    Operation,
    Pool,
    Reduce,
    Reshape,
    Slice,
    Split,
    TopK,
    Transpose,
)


def fits(operation: Operation, call: OperatorView) -> bool:  # noqa: C901, PLR0911, PLR0912 - one case each
    """Are all slots filled, all axes there, and as long as they must be?"""
    rank = call.rank()
    source = call.rank(SLOT_ORDER.get(call.operator, (0,))[0])
    match operation:
        case Linear():
            return _linear_fits(operation, call)
        case Elementwise() | Activation(axis=None):
            ranks = [0 if t is None or t.shape is None else len(t.shape) for t in call.inputs]
            return rank is None or max(ranks) <= rank
        case Activation(axis=int(axis)):
            return source == rank and _are_axes((axis,), rank)
        case Reshape(target=target):
            return target is None or len(target) == rank
        case Transpose(permutation=permutation):
            return sorted(permutation) == list(range(rank or 0)) and source == rank
        case Gather():
            return call.input(1) is not None
        case Reduce(axes=axes, keepdims=keepdims):
            dropped = 0 if keepdims else len(axes)
            return _are_axes(axes, source) and _ranks(call) == {(source or 0) - dropped}
        case Pool(axes=axes):
            return source == rank and _are_axes(axes, rank)
        case Concat(axis=axis):
            inputs = {call.rank(slot) for slot in range(len(call.inputs))}
            return inputs == {rank} and _are_axes((axis,), rank)
        case Split(axis=axis, sizes=sizes):
            parts = len(call.outputs) if sizes is None else len(sizes)
            return _ranks(call) == {source} and _are_axes((axis,), source) and parts == _count(call)
        case Slice(axes=axes, starts=starts, stops=stops, steps=steps):
            lengths = {len(axes), len(starts), len(stops), len(steps)}
            return source == rank and _are_axes(axes, rank) and len(lengths) == 1
        case Expand(grown=grown, target=None):
            return source == rank and _are_axes(grown, rank)
        case Expand(grown=grown, target=tuple(target)):
            return (source or 0) <= len(target) == rank and _are_axes(grown, rank)
        case ConstantOfShape(shape=shape):
            return len(shape) == rank
        case TopK(axis=axis, keepdims=keepdims, ids=ids):
            dropped = 0 if keepdims else 1
            same = _ranks(call) == {(source or 0) - dropped}
            return same and _are_axes((axis,), source) and ids < _count(call)
        case _:
            return True


def _count(call: OperatorView) -> int:
    return len(call.outputs)


def _ranks(call: OperatorView) -> set[int | None]:
    """Those of the outputs."""
    return {None if tensor.shape is None else len(tensor.shape) for tensor in call.outputs}


def _are_axes(axes: tuple[int, ...], rank: int | None) -> bool:
    return all(0 <= axis < (rank or 0) for axis in axes)


def _linear_fits(operation: Linear, call: OperatorView) -> bool:
    width = _length(call.outputs[0].shape, operation.output_axis)
    kernel = call.input(operation.kernel)
    if kernel is None or _length(kernel.shape, operation.kernel_axis) != width:
        return False
    if operation.bias is None:
        return True
    bias = call.input(operation.bias)
    return bias is not None and _length(bias.shape, -1) == width


def _length(shape: Shape | None, axis: int) -> int | None:
    """How long an axis is; -1 where the shape has no such axis."""
    if shape is None or not -len(shape) <= axis < len(shape):
        return -1
    return shape[axis]
