"""Products with a constant kernel: dense layers and convolutions.

An activation that is fused into one of these operators stays a part of it: the logits are read
after it. All such activations map 0 to 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.graph.operations import Linear, Operation


def _fully_connected(view: OperatorView) -> Operation:
    if view.option("weightsFormat"):
        raise UntranslatableError("its weights are shuffled for one kind of processor")
    return _linear(view, (0, view.known_rank() - 1))


def _conv_2d(view: OperatorView) -> Operation:
    """image [batch, h, w, in], kernel [out, h, w, in / groups]"""
    return _linear(view, (0, 3), _groups(view, kernel_inputs=-1))


def _conv_3d(view: OperatorView) -> Operation:
    """image [batch, d, h, w, in], kernel [d, h, w, in / groups, out]"""
    return _linear(view, (4, 4), _groups(view, kernel_inputs=-2))


def _depthwise_conv_2d(view: OperatorView) -> Operation:
    """image [batch, h, w, in], kernel [1, h, w, in * multiplier]

    Each input channel has its own output channels and is a group. If there is only one input
    channel, any number of output channels can be kept.
    """
    return _linear(view, (3, 3), view.length(0, -1) or 1, "depthMultiplier")


def _transpose_conv(view: OperatorView) -> Operation:
    """image [batch, h, w, in], kernel [out, h, w, in], shape of the result, bias"""
    if not view.is_fixed(1):
        raise UntranslatableError("its kernel is not a constant but computed")
    bias = None if view.input(3) is None else 3
    return Linear(1, kernel_axis=0, output_axis=3, bias=bias, shape=2)


def _batch_matmul(view: OperatorView) -> Operation:
    if not view.is_fixed(1):
        raise UntranslatableError("its right side is not a constant")
    axis = view.known_rank(1) - (2 if view.option("adjY", default=False) else 1)
    return Linear(1, kernel_axis=axis, output_axis=view.known_rank() - 1)


def _linear(
    view: OperatorView, channels: tuple[int, int], groups: int = 1, width: str | None = None
) -> Operation:
    """Args: channels: the kernel's axis of output channels, and the output's."""
    if not view.is_fixed(1):
        raise UntranslatableError("its kernel is not a constant but computed")
    bias = None if view.input(2) is None else 2
    return Linear(1, *channels, bias=bias, groups=groups, width_attribute=width)


def _groups(view: OperatorView, kernel_inputs: int) -> int:
    """Args: kernel_inputs: the kernel's axis of input channels."""
    return (view.length(0, -1) or 1) // (view.length(1, kernel_inputs) or 1) or 1


ROWS: Mapping[str, Translate] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv_2d,
    "CONV_3D": _conv_3d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
}
