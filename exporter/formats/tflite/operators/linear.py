"""Products with a constant kernel: dense layers and convolutions.

An activation fused into one of these stays inside: z is read behind it. All of them map 0 to 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.tflite.call import NO_RANK, Call, Row
from exporter.graph.operations import Linear, Opaque, Operation

_COMPUTED_KERNEL = Opaque("its kernel is not a constant but computed")


def _fully_connected(call: Call) -> Operation:
    rank = call.rank()
    if call.option("weightsFormat"):
        return Opaque("its weights are shuffled for one kind of processor")
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    if rank is None:
        return NO_RANK
    return Linear(1, kernel_axis=0, output_axis=rank - 1, bias=_bias(call))


def _conv_2d(call: Call) -> Operation:
    """image [batch, h, w, in], kernel [out, h, w, in / groups]"""
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    groups = (call.length(0, -1) or 1) // (call.length(1, -1) or 1) or 1
    return Linear(1, kernel_axis=0, output_axis=3, bias=_bias(call), groups=groups)


def _conv_3d(call: Call) -> Operation:
    """image [batch, d, h, w, in], kernel [d, h, w, in / groups, out]"""
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    groups = (call.length(0, -1) or 1) // (call.length(1, -2) or 1) or 1
    return Linear(1, kernel_axis=4, output_axis=4, bias=_bias(call), groups=groups)


def _depthwise_conv_2d(call: Call) -> Operation:
    """image [batch, h, w, in], kernel [1, h, w, in * multiplier]

    Each input channel has its own output channels, which makes it a group; of one input channel
    alone any number of output channels can be left.
    """
    if not call.is_fixed(1):
        return _COMPUTED_KERNEL
    groups = call.length(0, -1) or 1
    return Linear(1, 3, 3, bias=_bias(call), groups=groups, width_attribute="depthMultiplier")


def _batch_matmul(call: Call) -> Operation:
    rank, kernel_rank = call.rank(), call.rank(1)
    if not call.is_fixed(1):
        return Opaque("its right side is not a constant")
    if rank is None or kernel_rank is None:
        return NO_RANK
    axis = kernel_rank - (2 if call.option("adjY", default=False) else 1)
    return Linear(1, kernel_axis=axis, output_axis=rank - 1)


def _bias(call: Call) -> int | None:
    return None if call.input(2) is None else 2


ROWS: Mapping[str, Row] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv_2d,
    "CONV_3D": _conv_3d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
}
