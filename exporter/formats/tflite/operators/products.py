"""Products of operators, for counting their multiply-adds; also of two computed tensors.

An operator without a row has the products that its neutral operation defines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite.operator_view import OperatorView
from exporter.graph.products import OUTPUT, Axis, Products, axes, matmul

_MATRIX = 2


def products_of(view: OperatorView) -> Products:
    """The products of an operator; None if they are not known."""
    row = PRODUCTS.get(view.operator)
    if row is None:
        return None if view.operator in _UNKNOWN else ()
    try:
        return row(view)
    except UntranslatableError:
        return None


def _batch_matmul(view: OperatorView) -> Products:
    return (matmul(view.known_rank(), Axis(0, -2 if view.option("adjX") else -1)),)


def _fully_connected(view: OperatorView) -> Products:
    """input [..., in], kernel [out, in]: it may flatten the axes of the input."""
    return (matmul(view.known_rank(), Axis(1, 1)),)


def _conv(view: OperatorView, channels: int) -> Products:
    """Each value of the kernel once at each position of the output.

    Args:
        channels: the kernel's axis of output channels.
    """
    kernel = axes(1, view.known_rank(1), without=channels)
    return ((*kernel, *axes(OUTPUT, view.known_rank())),)


def _transposed_conv(view: OperatorView, image: int) -> Products:
    """Each value of the kernel once at each position of the image, which is in slot 2 of the file.

    Args:
        image: slot of the image in the neutral operation.
    """
    return ((*axes(1, view.known_rank(1), without=-1), *axes(image, view.known_rank(2))),)


_UNKNOWN = {
    *("CALL", "CALL_ONCE", "IF", "WHILE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE"),
    *("STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "FlexBatchMatMulV2", "FlexEinsum"),
    *("FlexConv2D", "FlexConv3D", "FlexMatMul"),
}

PRODUCTS: Mapping[str, Callable[[OperatorView], Products]] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": lambda view: _conv(view, channels=0),
    "CONV_3D": lambda view: _conv(view, channels=-1),
    "CONV_3D_TRANSPOSE": lambda view: _transposed_conv(view, image=2),
    "DEPTHWISE_CONV_2D": lambda view: _conv(view, channels=-1),
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": lambda view: _transposed_conv(view, image=0),
}
