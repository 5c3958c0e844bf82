"""Operators that onnxruntime's optimizer makes of several, and fake quantization of QONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.formats.onnx.operators.linear import conv, gemm, matmul
from exporter.formats.onnx.operators.values import activation, elementwise
from exporter.graph.operations import Elementwise, Linear, Operation

NCHWC = "com.microsoft.nchwc"
BLOCKED_CHANNELS = (
    "onnxruntime optimized it for blocked channels (NCHWc) of one processor: cut the file from "
    "before that, and optimize after cutting"
)


def _with_activation(linear: Linear, node: NodeView) -> Linear:
    return replace(linear, altered=linear.altered or bool(node.attributes.get("activation")))


def _fused_conv(node: NodeView) -> Operation:
    """The fourth input is added before the activation."""
    added = 3
    if node.has(added):
        raise UntranslatableError("it adds another tensor to the result of its convolution")
    return _with_activation(conv(node), node)


def _fused_gemm(node: NodeView) -> Operation:
    return _with_activation(gemm(node), node)


def _fused_matmul(node: NodeView) -> Operation:
    """alpha scales the kernel, and transposed kernels are [N, K]."""
    if node.attributes.get("transBatchA", 0) or node.attributes.get("transBatchB", 0):
        raise UntranslatableError("it moves the batch axis of an operand")
    transposed = bool(node.attributes.get("transB", 0))
    scaled = node.attributes.get("transA", 0) or node.attributes.get("alpha", 1.0) != 1.0
    product = matmul(node)
    summed = None
    if product.contraction is not None and not scaled:
        summed = product.contraction._replace(kernel_axis=1 if transposed else 0)
    return replace(product, kernel_axis=0 if transposed else 1, contraction=summed)


def _fast_gelu(node: NodeView) -> Operation:
    """gelu(x + bias), approximated with tanh."""
    if node.has(1):
        return _biased(node)
    approximate = activation("gelu", approximate=1.0)
    return approximate(node)


def _biased(_: NodeView) -> Operation:
    """A function of x + bias."""
    return Elementwise(offsets=(1,), function="other")


ROWS: Mapping[str, Translate] = {
    "BiasGelu": _biased,
    "FastGelu": _fast_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": activation("gelu", approximate=0.0),
    "QuickGelu": elementwise(),
}

# Domain qonnx.custom_op.general: quantized and dequantized again; scales broadcast as in NumPy.
QONNX: Mapping[str, Translate] = dict.fromkeys(
    ("BipolarQuant", "FloatQuant", "IntQuant", "Quant", "Trunc"), elementwise(keeps_zero=False)
)
