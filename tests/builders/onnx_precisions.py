"""One small classifier in every precision that ONNX files come in, quantized here in NumPy.

It shares no code with the package. The document of the precisions lists `HEADS` x `PRECISIONS`;
tests use `Parts` for other shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto

from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders.onnx_models import model, node, numbers

FEATURES, UNITS, BLOCK = 32, 6, 16
WEIGHTS, BIAS = numbers(FEATURES, UNITS), numbers(UNITS)  # [in, units]
DENSE, IMAGE = numbers(3, FEATURES, seed=1), numbers(3, FEATURES, 2, 2, seed=1)
X_SCALE, X_POINT = np.array(0.04, np.float32), np.array(120, np.uint8)
Z_SCALE, Z_POINT = np.array(0.25, np.float32), np.array(131, np.uint8)
Y_SCALE, Y_POINT = np.array(1 / 256, np.float32), np.array(0, np.uint8)
MICROSOFT = "com.microsoft"


@dataclass(frozen=True, eq=False)
class Parts:
    """Nodes and constants that make the float tensor `z`, or the quantized `zq`.

    Attributes:
        quantized_dtype: dtype of `zq`, which has Z_SCALE and Z_POINT; "" for `z`.
        operators: "" if the tail has float operators; "QLinear" if it has quantized ones.
    """

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Array]
    quantized_dtype: str = ""
    operators: str = ""
    opset: int = 17


def microsoft(operator: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return node(operator, inputs, [output], output, domain=MICROSOFT, **attributes)


def per_channel(weights: Array, bits: int = 8) -> tuple[Array, Array]:
    """Symmetric quantized values of [in, units], and per-channel scales."""
    high = 2 ** (bits - 1) - 1
    scale = (np.abs(weights).max(axis=0) / high).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale


def blocks(weights: Array, bits: int = 4) -> tuple[Array, Array, Array]:
    """Unsigned values [in, units]; scales and zero points [blocks, units] of blocks of inputs."""
    parted = weights.reshape(-1, BLOCK, weights.shape[1])
    low, high = parted.min(axis=1), parted.max(axis=1)
    scale = ((high - low) / (2**bits - 1)).astype(np.float32)
    point = np.clip(np.rint(-low / scale), 0, 2**bits - 1)
    quantized = np.clip(np.rint(parted / scale[:, None] + point[:, None]), 0, 2**bits - 1)
    return quantized.reshape(weights.shape).astype(np.uint8), scale, point.astype(np.uint8)


def packed(quantized: Array, bits: int) -> Array:
    """Pack values along the last axis, the first in the lowest bits; the last byte is padded."""
    per_byte = 8 // bits
    missing = -quantized.shape[-1] % per_byte
    full = np.concatenate(
        [quantized, np.zeros((*quantized.shape[:-1], missing), np.uint8)], axis=-1
    )
    parted = full.reshape(*quantized.shape[:-1], -1, per_byte)
    shifts = bits * np.arange(per_byte)
    return np.asarray((parted.astype(np.int64) << shifts).sum(axis=-1).astype(np.uint8))


# --- the product, in each precision ---------------------------------------------------------------


def _kernel(conv: bool, values: Array) -> Array:
    """[in, units], or [units, in, 1, 1]"""
    return values.T[..., None, None].copy() if conv else values


def _float(conv: bool, dtype: Any = np.float32) -> Parts:
    wide = TensorProto.FLOAT
    constants = {"w": _kernel(conv, WEIGHTS).astype(dtype), "b": BIAS.astype(dtype)}
    product = "Conv" if conv else "Gemm"
    if dtype is np.float32:
        return Parts((node(product, ["x", "w", "b"], ["z"], "head"),), constants)
    if dtype is np.float16:
        nodes = (
            node("Cast", ["x"], ["xh"], "half", to=TensorProto.FLOAT16),
            node(product, ["xh", "w", "b"], ["zh"], "head"),
            node("Cast", ["zh"], ["z"], "float", to=wide),
        )
        return Parts(nodes, constants)
    nodes = (  # onnxruntime has no bfloat16 products on CPUs: only the weights are stored in it
        node("Cast", ["w"], ["wf"], "float w", to=wide),
        node("Cast", ["b"], ["bf"], "float b", to=wide),
        node(product, ["x", "wf", "bf"], ["z"], "head"),
    )
    return Parts(nodes, constants)


def _qdq(conv: bool, bits: int = 8, activations: str = "uint8", *, each: bool = True) -> Parts:
    """QuantizeLinear and DequantizeLinear around a plain product."""
    quantized, scale = per_channel(WEIGHTS, bits)
    axis = 0 if conv else 1
    domain, opset = ("", 21) if bits < 8 or "16" in activations else ("", 17)
    if not each:
        scale = scale.max(keepdims=True)
        quantized = np.rint(WEIGHTS / scale).astype(np.int8)
    weights = _kernel(conv, quantized)
    xs = X_SCALE if "16" not in activations else X_SCALE / np.float32(256)
    zs = Z_SCALE if "16" not in activations else Z_SCALE / np.float32(256)
    bs = (xs * scale).astype(np.float32)
    constants = {
        "w": weights.astype(ml_dtypes.int4) if bits < 8 else weights,
        "ws": scale if each else scale[0],
        "b": np.rint(BIAS / bs).astype(np.int32),
        "bs": bs if each else bs[0],
        "xs": xs,
        "xp": _point(X_POINT, activations),
        "zs": zs,
        "zp": _point(Z_POINT, activations),
    }
    quantize, read = "QuantizeLinear", "DequantizeLinear"
    along: dict[str, Any] = {"axis": axis} if each else {}
    nodes = (
        node(quantize, ["x", "xs", "xp"], ["xq"], "quantize x", domain=domain),
        node(read, ["xq", "xs", "xp"], ["xd"], "read x", domain=domain),
        node(read, ["w", "ws"], ["wd"], "read w", domain=domain, **along),
        node(read, ["b", "bs"], ["bd"], "read b", axis=0),
        node("Conv" if conv else "Gemm", ["xd", "wd", "bd"], ["f"], "head"),
        node(quantize, ["f", "zs", "zp"], ["zq"], "quantize z", domain=domain),
    )
    return Parts(nodes, constants, quantized_dtype=activations, opset=opset)


def _point(point: Array, dtype: str) -> Array:
    """The same zero point for another width; for int16 it is 0."""
    return np.array(0, np.int16) if dtype == "int16" else point.astype(dtype)


def _qoperator(conv: bool) -> Parts:
    quantized, scale = per_channel(WEIGHTS)
    bias = np.rint(BIAS / (X_SCALE * scale)).astype(np.int32)
    constants = {
        "w": _kernel(conv, quantized),
        "ws": scale,
        "wp": np.zeros(UNITS, np.int8),
        "b": bias,
        "xs": X_SCALE,
        "xp": X_POINT,
        "zs": Z_SCALE,
        "zp": Z_POINT,
    }
    start = node("QuantizeLinear", ["x", "xs", "xp"], ["xq"], "quantize x")
    left, right = ["xq", "xs", "xp"], ["w", "ws", "wp"]
    if conv:
        inputs = [*left, *right, "zs", "zp", "b"]
        head = node("QLinearConv", inputs, ["zq"], "head")
    else:
        head = microsoft("QGemm", [*left, *right, "b", "zs", "zp"], "zq")
    return Parts((start, head), constants, quantized_dtype="uint8", operators="QLinear")


def _dynamic(conv: bool) -> Parts:
    """onnxruntime's quantize_dynamic: one scale of x, computed while the model runs."""
    quantized, scale = per_channel(WEIGHTS)
    if conv:
        scale = scale.max(keepdims=True)
        quantized = np.rint(WEIGHTS / scale).astype(np.int8)
    constants = {
        "w": _kernel(conv, quantized),
        "ws": scale,
        "wp": np.zeros(1 if conv else UNITS, np.int8).reshape([] if conv else [-1]),
        "b": BIAS.reshape(-1, 1, 1) if conv else BIAS,
    }
    product = "ConvInteger" if conv else "MatMulInteger"
    nodes = (
        node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xp"], "quantize x"),
        node(product, ["xq", "w", "xp", "wp"], ["i"], "head"),
        node("Cast", ["i"], ["f"], "float", to=TensorProto.FLOAT),
        node("Mul", ["xs", "ws"], ["s"], "scales"),
        node("Mul", ["f", "s"], ["m"], "scale"),
        node("Add", ["m", "b"], ["z"], "bias"),
    )
    return Parts(nodes, constants)


def _blocks(conv: bool) -> Parts | None:
    """A DequantizeLinear with one scale a block of inputs (opset 21)."""
    if conv:
        return None
    quantized, scale, point = blocks(WEIGHTS)
    constants = {
        "w": quantized.astype(ml_dtypes.uint4),
        "ws": scale,
        "wp": point.astype(ml_dtypes.uint4),
        "b": BIAS,
    }
    read = node("DequantizeLinear", ["w", "ws", "wp"], ["k"], "read", axis=0, block_size=BLOCK)
    return Parts((read, node("Gemm", ["x", "k", "b"], ["z"], "head")), constants, opset=21)


def _blocks_of_units(conv: bool) -> Parts | None:
    """One scale for several units: no unit can be removed from its block."""
    if conv:
        return None
    width = 3
    scale = np.abs(WEIGHTS).reshape(FEATURES, -1, width).max(axis=2) / np.float32(127)
    quantized = np.rint(WEIGHTS / np.repeat(scale, width, axis=1)).astype(np.int8)
    read = node("DequantizeLinear", ["w", "ws"], ["k"], "read", axis=1, block_size=width)
    head = node("Gemm", ["x", "k", "b"], ["z"], "head")
    return Parts((read, head), {"w": quantized, "ws": scale, "b": BIAS}, opset=21)


def nbits(bits: int, *, flat: bool = False, points: str = "packed", level: int = 0) -> Parts:
    """A MatMulNBits.

    Args:
        bits: 4 or 8.
        flat: scales and zero points have one axis, as before onnxruntime 1.22.
        points: zero points "packed", in "float", or "none".
        level: precision of the product: 0 any, 1 float32, 4 int8.
    """
    quantized, scale, point = blocks(WEIGHTS, bits)
    kernel = quantized.T.reshape(UNITS, -1, BLOCK)
    kinds: Mapping[str, Array] = {
        "packed": packed(point.T, bits),
        "float": point.T.astype(np.float32),
    }
    constants = {"w": packed(kernel, bits), "ws": scale.T.copy(), "b": BIAS}
    inputs = ["x", "w", "ws", "wp" if points in kinds else "", "", "b"]
    if points in kinds:
        constants["wp"] = kinds[points].copy()
    if flat:
        constants |= {n: constants[n].ravel() for n in ("ws", "wp") if n in constants}
    sizes = {"K": FEATURES, "N": UNITS, "bits": bits, "block_size": BLOCK}
    head = microsoft("MatMulNBits", inputs, "z", accuracy_level=level, **sizes)
    return Parts((head,), constants)


# --- after the product ----------------------------------------------------------------------------


def tail(kind: str, parts: Parts) -> list[NodeProto]:
    """From `z` or `zq` to the float `y`."""
    image, function = kind.startswith("convolution"), FUNCTIONS[kind]
    if parts.operators:
        return _tail_of_codes(image, function)
    nodes: list[NodeProto] = []
    z = "z"
    if parts.quantized_dtype:
        nodes.append(node("DequantizeLinear", ["zq", "zs", "zp"], ["z"], "read z"))
    if image:
        nodes.append(node("GlobalAveragePool", ["z"], ["p"], "mean"))
        nodes.append(node("Flatten", ["p"], ["v"], "flat"))
        z = "v"
    if function is None:
        return [*nodes, node("Identity", [z], ["y"], "y")]
    return [*nodes, node(function, [z], ["y"], "y")]


def _tail_of_codes(image: bool, function: str | None) -> list[NodeProto]:
    nodes: list[NodeProto] = []
    z = "zq"
    if image:
        inputs = ["zq", "zs", "zp", "zs", "zp"]
        nodes.append(microsoft("QLinearGlobalAveragePool", inputs, "pq", channels_last=0))
        nodes.append(node("Flatten", ["pq"], ["vq"], "flat"))
        z = "vq"
    if function is None:
        return [*nodes, node("DequantizeLinear", [z, "zs", "zp"], ["y"], "read y")]
    more = {"axis": 1, "opset": 17} if function == "Softmax" else {}
    inputs = [z, "zs", "zp", "ys", "yp"]
    nodes.append(microsoft(OF_CODES[function], inputs, "yq", **more))
    return [*nodes, node("DequantizeLinear", ["yq", "ys", "yp"], ["y"], "read y")]


def assembled(kind: str, parts: Parts) -> OnnxModel:
    constants = dict(parts.constants)
    if parts.operators:
        constants |= {"ys": Y_SCALE, "yp": Y_POINT}
    image = kind.startswith("convolution")
    return model(
        [*parts.nodes, *tail(kind, parts)],
        constants,
        x=[None, *(IMAGE if image else DENSE).shape[1:]],
        outputs={"y": [None, UNITS]},
        opset=parts.opset,
        ir=10,
        domains={MICROSOFT: 1},
    )


OF_CODES = {"Softmax": "QLinearSoftmax", "Sigmoid": "QLinearSigmoid"}

FUNCTIONS: Mapping[str, str | None] = {
    "dense, softmax": "Softmax",
    "dense, sigmoid": "Sigmoid",
    "dense, logits": None,
    "convolution, mean, softmax": "Softmax",
}

# name of the precision -> writes the product; None where there is no such product
PRECISIONS: Mapping[str, Callable[[bool], Parts | None]] = {
    "float32": _float,
    "float16": lambda conv: _float(conv, np.float16),
    "bfloat16 weights": lambda conv: _float(conv, ml_dtypes.bfloat16),
    "int8 QDQ, one scale": lambda conv: _qdq(conv, each=False),
    "int8 QDQ, a scale a unit": _qdq,
    "int16x8 QDQ": lambda conv: _qdq(conv, activations="int16"),
    "int4 QDQ": lambda conv: _qdq(conv, bits=4),
    "int8 QOperator": _qoperator,
    "dynamic int8": _dynamic,
    "int4 in blocks (DequantizeLinear)": _blocks,
    "int8 in blocks of units": _blocks_of_units,
    "int4 in blocks (MatMulNBits)": lambda conv: None if conv else nbits(4),
    "int8 in blocks (MatMulNBits)": lambda conv: None if conv else nbits(8),
}


def built(kind: str, precision: str) -> OnnxModel | None:
    """A head of this kind in this precision; None if the format has none."""
    parts = PRECISIONS[precision](kind.startswith("convolution"))
    return None if parts is None else assembled(kind, parts)
