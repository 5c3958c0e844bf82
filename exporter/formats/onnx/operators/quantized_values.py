"""Operators that quantize, dequantize, or compute with quantized values.

Scales and zero points are inputs like any others. `exporter.formats.onnx.quantized_values` reads
which of them belongs to which tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import COMPUTED_KERNEL, UNKNOWN_RANK, NodeView, Translate
from exporter.formats.onnx.operators.linear import conv, gemm, matmul
from exporter.formats.onnx.operators.reduce_pool import global_pool, pool
from exporter.formats.onnx.operators.values import (
    JOINT_SOFTMAX,
    PER_AXIS,
    activation,
    elementwise,
)
from exporter.graph import Shape
from exporter.graph.operations import Activation, Elementwise, Gather, Linear, Operation, PerChannel

_COMPUTED_SCALE = "its scale is computed while the model runs"

# --- quantize and dequantize ---------------------------------------------------------------------


def _quantization(function: str) -> Translate:
    """The quantized value of 0 is the zero point, which counts as 0 from here on.

    Per-channel scales run along `axis`. With blocks they have every axis of the input, and one
    entry for each block of positions on `axis`.
    """

    def translate(node: NodeView) -> Operation:
        scale, shape = _checked_scale(node), node.shape(0)
        channel_axis = None
        if scale not in {(), (1,)}:
            if not shape:
                raise UntranslatableError(UNKNOWN_RANK)
            channel_axis = node.axis(default=1)
            if len(scale) == 1 and shape[channel_axis] not in {scale[0], None}:
                raise UntranslatableError("it has not one scale for each position on its axis")
        needed = (1, 2) if function == "quantize" else (2,)
        known = all(node.is_constant(slot) for slot in needed if node.has(slot))
        if node.attributes.get("block_size", 0):
            return Elementwise(keeps_zero=known, function=function, block_axis=channel_axis)
        return Elementwise(keeps_zero=known, channel_axis=channel_axis, function=function)

    return translate


def _checked_scale(node: NodeView) -> Shape:
    """The shape of the scale, if the file states what the quantized values mean."""
    scale, block_size = node.shape(1), node.attributes.get("block_size", 0)
    if not node.is_fixed(1) or scale is None:
        raise UntranslatableError(_COMPUTED_SCALE)
    if block_size and not _has_scale_per_block(node, scale):
        raise UntranslatableError("it has not one scale for each block of values")
    if len(scale) > 1 and not block_size:
        raise UntranslatableError("its scales have more than one axis")
    if node.has(2) and node.size(2) != node.size(1):
        raise UntranslatableError("it has not one zero point for each scale")
    return scale


def _has_scale_per_block(node: NodeView, scale: Shape) -> bool:
    """On the axis of the blocks one scale a block, on every other axis one a position."""
    shape, size = node.shape(0), node.attributes["block_size"]
    if shape is None or len(shape) != len(scale):
        return False
    axis = node.axis(default=1)
    wanted = [ceil((n or 0) / size) if i == axis else n for i, n in enumerate(shape)]
    zero_points = node.shape(2) if node.has(2) else scale
    return size > 0 and list(scale) == wanted and zero_points == scale


# --- products ------------------------------------------------------------------------------------


def _product(
    translate: Callable[[NodeView, int, int | None], Linear],
    kernel: int,
    along: tuple[int, ...],
    bias: int | None = None,
) -> Translate:
    """A product with a quantized kernel.

    Args:
        translate: the same product of real values.
        kernel: slot.
        along: slots of the scales and zero points of the kernel. Per-channel ones are cut with the
            kernel; per-tensor ones are kept.
        bias: slot.
    """

    def with_scales(node: NodeView) -> Operation:
        if not node.is_constant(kernel):
            raise UntranslatableError(COMPUTED_KERNEL)
        operation = translate(node, kernel, bias)
        width = (node.shape(kernel) or ())[operation.kernel_axis]
        per_channel = [s for s in along if node.has(s) and _is_per_channel(node, s, width)]
        axes = [PerChannel(slot, len(node.known_shape(slot)) - 1) for slot in per_channel]
        return replace(operation, along=tuple(axes))

    return with_scales


def _is_per_channel(node: NodeView, slot: int, width: int | None) -> bool:
    shape = node.shape(slot)
    if shape is not None and node.size(slot) == 1:
        return False
    if not node.is_constant(slot) or shape is None:
        raise UntranslatableError(_COMPUTED_SCALE)
    if node.size(slot) != width or shape[-1] != width:
        raise UntranslatableError(
            "its scales and zero points are neither per-tensor nor per-channel"
        )
    return True


def _matmul_nbits(node: NodeView) -> Operation:
    """A kernel of packed values, [N, blocks, bytes], with one scale a block of the K inputs.

    Scales and zero points have one axis, or N as their first. A channel with the scale 0 is 0.
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    kernel = node.shape(1)
    if not node.is_fixed(1) or kernel is None:
        raise UntranslatableError(COMPUTED_KERNEL)
    units, inputs, size = (int(node.attributes[name]) for name in ("N", "K", "block_size"))
    bits = int(node.attributes.get("bits", 4))
    blocks = ceil(inputs / size)
    if node.size(1) != units * blocks * (size * bits // 8) or kernel[0] != units:
        raise UntranslatableError("its kernel is not as large as its attributes state")
    packed = node.has(3) and node.dtype(3) == "uint8"
    zero_points = ceil(blocks * bits / 8) if packed else blocks
    along: list[PerChannel] = []
    for slot, count in ((_SCALES, blocks), (_ZERO_POINTS, zero_points)):
        if not node.has(slot):
            continue
        if node.size(slot) != units * count:
            raise UntranslatableError("it has not one scale and zero point for each block")
        if not node.is_fixed(slot):
            raise UntranslatableError(_COMPUTED_SCALE)
        along.append(PerChannel(slot, zero=0.0 if slot == _SCALES else None))
    return Linear(
        1,
        kernel_axis=0,
        output_axis=len(node.known_shape()) - 1,
        bias=node.optional(5),
        width_attribute="N",
        along=tuple(along),
        packed_bits=bits,
        kernel_zero=None,
    )


def _gather_block_quantized(node: NodeView) -> Operation:
    """Rows of a quantized table, with one scale for each block of a row.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    rank = len(node.known_shape(0))
    axis = node.attributes.get("gather_axis", 0) % rank
    if node.attributes.get("quantize_axis", 1) % rank == axis:
        raise UntranslatableError("several of its rows share a scale")
    slots = [slot for slot in (_SCALES, _ZERO_POINTS) if node.has(slot)]
    rows = node.known_shape(0)[axis]
    if any(len(node.known_shape(s)) != rank or node.known_shape(s)[axis] != rows for s in slots):
        raise UntranslatableError("it has not one scale and zero point for each block")
    return Gather(axis, tuple(PerChannel(slot, axis) for slot in slots))


_SCALES, _ZERO_POINTS = 2, 3  # slots


# --- values --------------------------------------------------------------------------------------


def _add(_: NodeView) -> Operation:
    return Elementwise(offsets=(0, 3), function="add")


def _softmax(node: NodeView) -> Operation:
    """The attribute `opset` states the version of Softmax that was quantized."""
    axis = node.axis(default=-1)
    if node.attributes["opset"] < PER_AXIS and axis != len(node.known_shape()) - 1:
        raise UntranslatableError(JOINT_SOFTMAX.format(axis))
    return Activation("softmax", axis=axis)


def _per_tensor(translate: Translate, slots: tuple[int, ...] = (1, 2, 3, 4)) -> Translate:
    """The inputs in these slots, scales and zero points, have to be per-tensor constants.

    By default those of an operator with one quantized input and one quantized output.
    """

    def checked(node: NodeView) -> Operation:
        for slot in slots:
            if node.has(slot) and (not node.is_constant(slot) or node.size(slot) != 1):
                raise UntranslatableError("its scales and zero points are not per-tensor constants")
        return translate(node)

    return checked


_TWO_INPUTS = (1, 2, 4, 5, 6, 7)  # slots of the scales and zero points

ROWS: Mapping[str, Translate] = {
    "ConvInteger": _product(conv, 1, (3,)),
    "DequantizeLinear": _quantization("dequantize"),
    "MatMulInteger": _product(matmul, 1, (3,)),
    "QLinearConv": _product(conv, 3, (4, 5), bias=8),
    "QLinearMatMul": _product(matmul, 3, (4, 5)),
    "QuantizeLinear": _quantization("quantize"),
}

# Operators of the domain com.microsoft, which onnxruntime's quantizer and optimizer write.
MICROSOFT: Mapping[str, Translate] = {
    "DequantizeLinear": _quantization("dequantize"),
    "DynamicQuantizeMatMul": _product(matmul, 1, (2, 3), bias=4),
    "GatherBlockQuantized": _gather_block_quantized,
    "MatMulIntegerToFloat": _product(matmul, 1, (3, 5), bias=6),
    "MatMulNBits": _matmul_nbits,
    "QGemm": _product(gemm, 3, (4, 5), bias=6),
    "QLinearAdd": _per_tensor(_add, _TWO_INPUTS),
    "QLinearAveragePool": _per_tensor(pool),
    "QLinearGlobalAveragePool": _per_tensor(global_pool("mean")),
    "QLinearLeakyRelu": _per_tensor(activation("leaky_relu", alpha=0.01)),
    "QLinearMul": _per_tensor(elementwise("mul"), _TWO_INPUTS),
    "QLinearSigmoid": _per_tensor(activation("sigmoid")),
    "QLinearSoftmax": _per_tensor(_softmax),
    "QuantizeLinear": _quantization("quantize"),
}
