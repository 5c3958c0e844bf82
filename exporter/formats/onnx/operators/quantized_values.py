"""Integers that stand for real values: what makes and reads them, and what computes with them.

Scales and zero points are inputs like any others; which of them belongs to which codes stands in
`exporter.formats.onnx.quantized_values`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil, prod

from exporter.formats.onnx.call import Call, Row
from exporter.graph import Shape
from exporter.graph.operations import (
    Activation,
    Elementwise,
    Linear,
    Opaque,
    Operation,
    PerChannel,
    Pool,
    Reduce,
)

_COMPUTED = Opaque("its scale is computed while the model runs")
_COMPUTED_KERNEL = Opaque("its kernel is not a constant but computed")
_UNKNOWN_RANK = Opaque("the rank of its input is not known")
_MATRIX = 2

# --- into codes and back -------------------------------------------------------------------------


def _codes(function: str) -> Row:
    """Codes stand for real values: a quantized 0 is its zero point, and 0 for all that follows.

    A scale and a zero point a channel stand along `axis`; with blocks they have all axes, and one
    entry for each block of positions on `axis`.
    """

    def row(call: Call) -> Operation:
        scale, shape = call.shape(1), call.shape(0)
        reason = _unclear(call)
        if scale is None or reason:
            return Opaque(reason or _COMPUTED.reason)
        channel_axis = None
        if scale not in {(), (1,)}:
            if not shape:
                return _UNKNOWN_RANK
            channel_axis = call.attributes.get("axis", 1) % len(shape)
            if len(scale) == 1 and shape[channel_axis] not in {scale[0], None}:
                return Opaque("its scales are not one a position of their axis")
        needed = (1, 2) if function == "quantize" else (2,)
        known = all(call.is_constant(slot) for slot in needed if call.has(slot))
        if call.attributes.get("block_size", 0):
            return Elementwise(keeps_zero=known, function=function, block_axis=channel_axis)
        return Elementwise(keeps_zero=known, channel_axis=channel_axis, function=function)

    return row


def _unclear(call: Call) -> str:
    """Why it cannot be said what the codes stand for, or ""."""
    scale = call.shape(1)
    if not call.is_fixed(1) or scale is None:
        return _COMPUTED.reason
    if call.attributes.get("block_size", 0) and not _are_blocks(call, scale):
        return "its scales are not one a block of its codes"
    if len(scale) > 1 and not call.attributes.get("block_size", 0):
        return "its scales have more than one axis"
    if call.has(2) and _count(call.shape(2)) != _count(scale):
        return "its zero points are not as many as its scales"
    return ""


def _are_blocks(call: Call, scale: Shape) -> bool:
    """As long as the codes on every axis, but for that of the blocks."""
    shape, size = call.shape(0), call.attributes["block_size"]
    if shape is None or len(shape) != len(scale):
        return False
    axis = call.attributes.get("axis", 1) % len(shape)
    wanted = [ceil((n or 0) / size) if i == axis else n for i, n in enumerate(shape)]
    points = call.shape(2) if call.has(2) else scale
    return size > 0 and list(scale) == wanted and points == scale


def _count(shape: Shape | None) -> int:
    return prod(n or 0 for n in shape or ())


# --- products ------------------------------------------------------------------------------------


def _matmul(kernel: int, along: tuple[int, ...], bias: int | None = None) -> Row:
    """A matrix of codes on the right; some of what belongs to it may be one a column."""

    def row(call: Call) -> Operation:
        left, matrix = call.shape(0), call.shape(kernel)
        if not call.is_constant(kernel) or matrix is None:
            return _COMPUTED_KERNEL
        if left is None or len(matrix) != _MATRIX:
            return Opaque("it does not multiply a tensor of known rank by one matrix")
        operation = Linear(kernel, 1, len(left) - 1, bias if _has(call, bias) else None)
        return _with_scales(call, operation, along)

    return row


def _gemm(call: Call) -> Operation:
    if not call.is_constant(3):
        return _COMPUTED_KERNEL
    kernel_axis = 0 if call.attributes.get("transB", 0) else 1
    operation = Linear(3, kernel_axis, output_axis=1, bias=6 if call.has(6) else None)
    return _with_scales(call, operation, (4, 5))


def _conv(kernel: int, along: tuple[int, ...], bias: int | None = None) -> Row:
    def row(call: Call) -> Operation:
        if not call.is_constant(kernel):
            return _COMPUTED_KERNEL
        groups = int(call.attributes.get("group", 1))
        operation = Linear(kernel, 0, 1, bias if _has(call, bias) else None, groups)
        return _with_scales(call, operation, along)

    return row


def _has(call: Call, slot: int | None) -> bool:
    return slot is not None and call.has(slot)


def _with_scales(call: Call, operation: Linear, slots: tuple[int, ...]) -> Operation:
    """What is one a channel is cut with the kernel; what is one for all stays."""
    width = (call.shape(operation.kernel) or ())[operation.kernel_axis]
    along: list[PerChannel] = []
    for slot in slots:
        shape = call.shape(slot)
        if not call.has(slot) or (shape is not None and prod(n or 0 for n in shape) == 1):
            continue
        if not call.is_constant(slot) or shape is None:
            return _COMPUTED
        if _count(shape) != width or shape[-1] != width:
            return Opaque("its scales and zero points are not one a channel")
        along.append(PerChannel(slot, len(shape) - 1))
    return replace(operation, along=tuple(along))


def _matmul_nbits(call: Call) -> Operation:
    """A kernel of packed codes, [N, blocks, bytes], with a scale a block of the K inputs.

    Scales and zero points stand in one row or in N. A scale of 0 makes every code stand for 0.
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    left, kernel = call.shape(0), call.shape(1)
    if not call.is_constant(1):
        return _COMPUTED_KERNEL
    if left is None or kernel is None:
        return _UNKNOWN_RANK
    units, inputs, size = (int(call.attributes[name]) for name in ("N", "K", "block_size"))
    bits = int(call.attributes.get("bits", 4))
    blocks = ceil(inputs / size)
    if _count(kernel) != units * blocks * (size * bits // 8) or kernel[0] != units:
        return Opaque("its kernel is not as large as its attributes say")
    packed = call.has(3) and call.dtype(3) == "uint8"
    points = ceil(blocks * bits / 8) if packed else blocks
    along: list[PerChannel] = []
    for slot, count in ((2, blocks), (3, points)):
        if call.has(slot) and _count(call.shape(slot)) != units * count:
            return Opaque("its scales and zero points are not one a block")
        if call.has(slot) and not call.is_constant(slot):
            return _COMPUTED
        if call.has(slot):
            along.append(PerChannel(slot, zero=0.0 if slot == _SCALES else None))
    return Linear(
        1,
        kernel_axis=0,
        output_axis=len(left) - 1,
        bias=5 if call.has(5) else None,
        width_attribute="N",
        along=tuple(along),
        packed_bits=bits,
        kernel_zero=None,
    )


_SCALES = 2  # the slot


# --- values --------------------------------------------------------------------------------------


def _join(function: str) -> Row:
    """Two inputs with a scale and a zero point each; a sum adds its constants."""
    offsets = (0, 3) if function == "add" else ()
    return _known(lambda _: Elementwise(offsets=offsets, function=function), (1, 2, 4, 5, 6, 7))


def _activation(function: str, **defaults: float) -> Row:
    def row(call: Call) -> Operation:
        values = {name: float(call.attributes.get(name, v)) for name, v in defaults.items()}
        return Activation(function, parameters=tuple(values.items()))

    return _known(row, (1, 2, 3, 4))


def _softmax(call: Call) -> Operation:
    """The attribute `opset` says which Softmax it was made of."""
    shape = call.shape(0)
    if not shape:
        return _UNKNOWN_RANK
    axis = call.attributes.get("axis", -1) % len(shape)
    together = call.attributes["opset"] < _PER_AXIS and axis != len(shape) - 1
    if together:
        return Opaque(f"it normalizes all axes from {axis} on together, as before opset 13")
    return Activation("softmax", axis=axis)


_PER_AXIS = 13  # the opset since which a softmax goes along one axis


def _pool(call: Call) -> Operation:
    shape = call.shape(0)
    if shape is None:
        return _UNKNOWN_RANK
    if call.attributes.get("channels_last", 0):
        return Pool(tuple(range(1, len(shape) - 1)))
    return Pool(tuple(range(2, len(shape))))


def _global_pool(call: Call) -> Operation:
    shape = call.shape(0)
    if shape is None:
        return _UNKNOWN_RANK
    last = call.attributes.get("channels_last", 0)
    axes = range(1, len(shape) - 1) if last else range(2, len(shape))
    return Reduce(tuple(axes), keepdims=True, function="mean")


def _known(row: Row, slots: tuple[int, ...]) -> Row:
    """The row, where the scales and zero points in these slots are constants, one for all."""

    def checked(call: Call) -> Operation:
        for slot in slots:
            if call.has(slot) and (not call.is_constant(slot) or _count(call.shape(slot)) != 1):
                return Opaque("its scales and zero points are not one constant for all")
        return row(call)

    return checked


def _reading(row: Callable[[Call], Operation]) -> Row:
    """One input of codes and one result of codes."""
    return _known(row, (1, 2, 3, 4))


ROWS: Mapping[str, Row] = {
    "ConvInteger": _conv(1, (3,)),
    "DequantizeLinear": _codes("dequantize"),
    "MatMulInteger": _matmul(1, (3,)),
    "QLinearConv": _conv(3, (4, 5), bias=8),
    "QLinearMatMul": _matmul(3, (4, 5)),
    "QuantizeLinear": _codes("quantize"),
}

# Of the domain com.microsoft, which onnxruntime's own quantizer and optimizer write.
MICROSOFT: Mapping[str, Row] = {
    "DequantizeLinear": _codes("dequantize"),
    "DynamicQuantizeMatMul": _matmul(1, (2, 3), bias=4),
    "MatMulIntegerToFloat": _matmul(1, (3, 5), bias=6),
    "MatMulNBits": _matmul_nbits,
    "QGemm": _gemm,
    "QLinearAdd": _join("add"),
    "QLinearAveragePool": _reading(_pool),
    "QLinearGlobalAveragePool": _reading(_global_pool),
    "QLinearLeakyRelu": _activation("leaky_relu", alpha=0.01),
    "QLinearMul": _join("mul"),
    "QLinearSigmoid": _activation("sigmoid"),
    "QLinearSoftmax": _reading(_softmax),
    "QuantizeLinear": _codes("quantize"),
}
