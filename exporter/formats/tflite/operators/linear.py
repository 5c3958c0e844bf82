"""Products with a constant kernel: dense layers and convolutions.

An activation that is fused into one of these operators stays a part of it: the logits are read
after it. All such activations map 0 to 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.graph.operations import Contraction, Linear, Operation, Window


def _fully_connected(view: OperatorView) -> Operation:
    if view.option("weightsFormat"):
        raise UntranslatableError("its weights are shuffled for one kind of processor")
    last = (view.rank(0) or 0) - 1
    summed = Contraction(0, last, kernel_axis=1) if last >= 0 else None
    return _linear(view, (0, view.known_rank() - 1), contraction=summed)


def _conv_2d(view: OperatorView) -> Operation:
    """image [batch, h, w, in], kernel [out, h, w, in / groups]"""
    window = _window(view, ("H", "W"), (1, 2))
    summed = Contraction(0, 3, kernel_axis=3, window=window)
    return _linear(view, (0, 3), _groups(view, kernel_inputs=-1), contraction=summed)


def _conv_3d(view: OperatorView) -> Operation:
    """image [batch, d, h, w, in], kernel [d, h, w, in / groups, out]"""
    return _linear(view, (4, 4), _groups(view, kernel_inputs=-2))


def _depthwise_conv_2d(view: OperatorView) -> Operation:
    """image [batch, h, w, in], kernel [1, h, w, in * multiplier]

    Each input channel has its own output channels and is a group. If there is only one input
    channel, any number of output channels can be kept.
    """
    summed = Contraction(0, 3, kernel_axis=3, window=_window(view, ("H", "W"), (1, 2)))
    groups = view.length(0, -1) or 1
    return _linear(view, (3, 3), groups, "depthMultiplier", summed if groups > 1 else None)


def _transpose_conv(view: OperatorView) -> Operation:
    """image [batch, h, w, in], kernel [out, h, w, in], shape of the result, bias"""
    if not view.is_fixed(1):
        raise UntranslatableError("its kernel is not a constant but computed")
    bias = None if view.input(3) is None else 3
    summed = Contraction(0, 3, kernel_axis=3, adds_up=True)
    return Linear(1, kernel_axis=0, output_axis=3, bias=bias, shape=2, contraction=summed)


def _batch_matmul(view: OperatorView) -> Operation:
    if not view.is_fixed(1):
        raise UntranslatableError("its right side is not a constant")
    rank, last = view.known_rank(1), view.known_rank() - 1
    axis = rank - (2 if view.option("adjY", default=False) else 1)
    summed = None
    if rank == _MATRIX and not view.option("adjX", default=False):
        summed = Contraction(0, last, kernel_axis=1 - axis)
    return Linear(1, kernel_axis=axis, output_axis=last, contraction=summed)


def _linear(
    view: OperatorView,
    channels: tuple[int, int],
    groups: int = 1,
    width: str | None = None,
    contraction: Contraction | None = None,
) -> Operation:
    """Args: channels: the kernel's axis of output channels, and the output's."""
    if not view.is_fixed(1):
        raise UntranslatableError("its kernel is not a constant but computed")
    bias = None if view.input(2) is None else 2
    return Linear(
        1,
        *channels,
        bias=bias,
        groups=groups,
        width_attribute=width,
        contraction=contraction,
    )


def _window(view: OperatorView, letters: tuple[str, ...], axes: tuple[int, ...]) -> Window:
    """A padding is chosen so that an odd one is at the end."""
    strides = tuple(int(view.option(f"stride{each}", 1)) or 1 for each in letters)
    dilations = tuple(int(view.option(f"dilation{each}Factor", 1)) or 1 for each in letters)
    is_valid = int(view.option("padding")) == _VALID
    return Window(axes, axes, strides, dilations, ((0, 0),) * len(axes) if is_valid else "upper")


def _groups(view: OperatorView, kernel_inputs: int) -> int:
    """Args: kernel_inputs: the kernel's axis of input channels."""
    return (view.length(0, -1) or 1) // (view.length(1, kernel_inputs) or 1) or 1


_MATRIX = 2  # axes
_VALID = 1  # of the Padding of the schema

ROWS: Mapping[str, Translate] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv_2d,
    "CONV_3D": _conv_3d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
}
