"""ONNX heads of every operator that computes with quantized values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders import onnx_precisions as made
from tests.builders.onnx_models import model, node, numbers

W8 = np.random.default_rng(5).integers(-127, 128, (6, 5), np.int8)
SCALES = np.array([0.02, 0.05, 0.01, 0.03, 0.04], np.float32)
POINTS = np.array([3, -7, 0, 20, -1], np.int8)
X = numbers(3, 6, seed=1)
ONE: Mapping[str, Array] = {
    "xs": np.array(0.03, np.float32),
    "xp": np.array(128, np.uint8),
    "zs": np.array(0.1, np.float32),
    "zp": np.array(100, np.uint8),
    "ws": SCALES,
    "wp": POINTS,
    "w": W8,
}
START = node("QuantizeLinear", ["x", "xs", "xp"], ["xq"], "quantize")
LEFT, RIGHT = ["xq", "xs", "xp"], ["w", "ws", "wp"]
READ = node("DequantizeLinear", ["zq", "zs", "zp"], ["y"], "read")


def ms(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return node(operator, inputs, [output], output, domain=made.MICROSOFT, **attributes)


FORMS_OF_CODES: Mapping[str, tuple[list[NodeProto], Mapping[str, Array]]] = {
    "a matrix, a zero point a column": (
        [START, node("QLinearMatMul", [*LEFT, *RIGHT, "zs", "zp"], ["zq"], "head"), READ],
        {},
    ),
    "a matrix, per-tensor scale, quantized bias": (
        [
            START,
            node("QLinearMatMul", [*LEFT, "w", "one", "zero", "zs", "zp"], ["mq"], "head"),
            ms("QLinearAdd", ["mq", "zs", "zp", "bq", "bs", "bp", "zs", "zp"], "zq"),
            READ,
        ],
        {
            "one": np.array(0.02, np.float32),
            "zero": np.array(4, np.int8),
            "bq": np.array([1, 200, 30, 90, 140], np.uint8),
            "bs": np.array(0.05, np.float32),
            "bp": np.array(90, np.uint8),
        },
    ),
    "a quantized matrix product": (
        [
            START,
            node("QLinearMatMul", [*LEFT, *RIGHT, "zs", "zp"], ["mq"], "head"),
            ms("QLinearMul", ["mq", "zs", "zp", "bq", "bs", "bp", "zs", "zp"], "zq"),
            READ,
        ],
        {
            "bq": np.array([1, 200, 30, 90, 140], np.uint8),
            "bs": np.array(0.02, np.float32),
            "bp": np.array(90, np.uint8),
        },
    ),
    "a matrix, leaky": (
        [
            START,
            node("QLinearMatMul", [*LEFT, *RIGHT, "zs", "zp"], ["mq"], "head"),
            ms("QLinearLeakyRelu", ["mq", "zs", "zp", "zs", "zp"], "zq", alpha=0.2),
            READ,
        ],
        {},
    ),
    "Gemm, turned, floats out": (
        [START, ms("QGemm", [*LEFT, "wt", "ws", "wp", "b"], "y", transB=1)],
        {"wt": W8.T.copy(), "b": np.array([10, -200, 3000, 4, -5], np.int32)},
    ),
    "an image, pooled": (
        [
            node("Unsqueeze", ["x", "axes"], ["image"], "image"),
            node("QuantizeLinear", ["image", "xs", "xp"], ["xq"], "quantize"),
            node("QLinearConv", [*LEFT, "k", "ws", "zeros", "zs", "zp"], ["cq"], "head"),
            ms("QLinearAveragePool", ["cq", "zs", "zp", "zs", "zp"], "pq", kernel_shape=[1, 1]),
            node("Flatten", ["pq"], ["zq"], "flat"),
            READ,
        ],
        {
            "k": W8.T[..., None, None].copy(),
            "axes": np.array([2, 3]),
            "zeros": np.zeros(5, np.int8),
        },
    ),
    "dynamic in one operator": (
        [ms("DynamicQuantizeMatMul", ["x", *RIGHT, "b"], "y")],
        {"b": SCALES},
    ),
    "dynamic, scaled in one operator": (
        [
            node("DynamicQuantizeLinear", ["x"], ["xq", "ds", "dp"], "quantize"),
            ms("MatMulIntegerToFloat", ["xq", "w", "ds", "ws", "dp", "wp", "b"], "y"),
        ],
        {"b": SCALES},
    ),
    "integers, no zero points": (
        [
            node("DynamicQuantizeLinear", ["x"], ["xq", "ds", "dp"], "quantize"),
            node("MatMulInteger", ["xq", "w", "dp"], ["i"], "head"),
            node("Cast", ["i"], ["y"], "float", to=TensorProto.FLOAT),
        ],
        {},
    ),
    "QOperator operators": (
        [
            ms("QuantizeLinear", ["x", "xs", "wide"], "xw"),
            ms("DequantizeLinear", ["xw", "xs", "wide"], "xd"),
            ms("DequantizeLinear", [*RIGHT], "k", axis=1),
            node("MatMul", ["xd", "k"], ["y"], "head"),
        ],
        {"wide": np.array(7, np.int16)},
    ),
    "one scale a block, then a Transpose": (
        [
            node("DequantizeLinear", ["wb", "sb", "pb"], ["t"], "read", axis=1, block_size=2),
            node("Transpose", ["t"], ["k"], "turn"),
            node("MatMul", ["x", "k"], ["y"], "head"),
        ],
        {
            "wb": W8.T.copy(),
            "sb": np.random.default_rng(1).uniform(0.01, 0.1, (5, 3)).astype(np.float32),
            "pb": np.random.default_rng(2).integers(-9, 9, (5, 3), np.int8),
        },
    ),
    "a scale a block, the last one short": (
        [
            node("DequantizeLinear", ["w", "sb"], ["k"], "read", axis=0, block_size=4),
            node("MatMul", ["x", "k"], ["y"], "head"),
        ],
        {"sb": np.random.default_rng(1).uniform(0.01, 0.1, (2, 5)).astype(np.float32)},
    ),
}


def form(name: str) -> OnnxModel:
    nodes, more = FORMS_OF_CODES[name]
    read = {each for n in nodes for each in n.input}
    known: dict[str, Array] = {**ONE, **more}
    held = {each: value for each, value in known.items() if each in read}
    return model(
        nodes,
        held,
        x=X.shape,
        outputs={"y": [3, 5]},
        opset=21 if "block" in name else 17,
        ir=10,
        domains={made.MICROSOFT: 1},
    )
