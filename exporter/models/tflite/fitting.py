"""Do an operator's tensors fit the operation that it is said to perform?

The runtime checks this only when it allocates, which needs kernels for every operator; the trace
and the edits rely on it. A damaged file may pass all checks but this one.
"""

from __future__ import annotations

from exporter.models.tflite.call import Call
from exporter.operations import Activation, Gather, Linear, Operation, Reshape, Transpose


def fits(operation: Operation, call: Call) -> bool:
    """Are all slots filled, all axes there, and as long as they must be?"""
    rank = call.rank()
    match operation:
        case Linear():
            return _linear_fits(operation, call)
        case Activation(axis=axis):
            return axis is None or (rank is not None and 0 <= axis < rank)
        case Reshape(target=target):
            return target is None or len(target) == rank
        case Transpose(permutation=permutation):
            return sorted(permutation) == list(range(rank or 0)) and call.rank(0) == rank
        case Gather():
            return call.input(1) is not None
        case _:
            return True


def _linear_fits(operation: Linear, call: Call) -> bool:
    width = _length(call.outputs[0].shape, operation.output_axis)
    kernel = call.input(operation.kernel)
    if kernel is None or _length(kernel.shape, operation.kernel_axis) != width:
        return False
    if operation.bias is None:
        return True
    bias = call.input(operation.bias)
    return bias is not None and _length(bias.shape, -1) == width


def _length(shape: tuple[int | None, ...] | None, axis: int) -> int | None:
    """How long an axis is; -1 where the shape has no such axis."""
    if shape is None or not -len(shape) <= axis < len(shape):
        return -1
    return shape[axis]
