"""ONNX heads with quantized kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from exporter.graph import Array
from tests.builders.onnx_models import node, numbers

X = numbers(3, 6, seed=1)
SCALES = np.array([0.02, 0.05, 0.01, 0.03, 0.04], np.float32)  # one a unit
POINTS = np.array([3, -7, 0, 20, -1], np.int8)
S8 = np.random.default_rng(1).integers(-128, 128, (6, 5), np.int8)
U8 = np.random.default_rng(2).integers(0, 256, (6, 5), np.uint8)
ONE = np.array(0.02, np.float32)
EACH = (S8 - POINTS.astype(np.float32)) * SCALES
ALL = (U8.astype(np.float32) - 128) * ONE
MIDDLE = np.array(128, np.uint8)
Nodes = list[NodeProto]


def dequantized(name: str, *more: str, to: str = "k", **attributes: Any) -> NodeProto:
    return node("DequantizeLinear", [name, *more], [to], f"dequantize {to}", **attributes)


def product(*before: NodeProto) -> Nodes:
    return [*before, node("MatMul", ["x", "k"], ["y"], "head")]


def cast_scale() -> NodeProto:
    return node("Cast", ["half"], ["s"], "cast", to=TensorProto.FLOAT)


KERNELS: Mapping[str, tuple[Nodes, Mapping[str, Array], Array]] = {
    "one scale for all": (
        product(dequantized("w", "s", "p")),
        {"w": U8, "s": ONE, "p": MIDDLE},
        ALL,
    ),
    "one scale for all, as a vector": (
        product(dequantized("w", "s", "p")),
        {"w": U8, "s": ONE[None], "p": MIDDLE[None]},
        ALL,
    ),
    "no zero point": (product(dequantized("w", "s")), {"w": S8, "s": ONE}, S8 * ONE),
    "a scale and a zero point a unit": (
        product(dequantized("w", "s", "p", axis=-1)),
        {"w": S8, "s": SCALES, "p": POINTS},
        EACH,
    ),
    "per-channel scales, then a Transpose": (
        product(
            dequantized("w", "s", "p", to="t", axis=0), node("Transpose", ["t"], ["k"], "turn")
        ),
        {"w": S8.T.copy(), "s": SCALES, "p": POINTS},
        EACH,
    ),
    "a scale a unit, turned in front": (
        product(node("Transpose", ["w"], ["t"], "turn"), dequantized("t", "s", "p", axis=1)),
        {"w": S8.T.copy(), "s": SCALES, "p": POINTS},
        EACH,
    ),
    "one scale, reshaped in front": (
        product(node("Reshape", ["w", "to"], ["r"], "reshape"), dequantized("r", "s", "p")),
        {"w": U8[None], "s": ONE, "p": MIDDLE, "to": np.array([6, 5])},
        ALL,
    ),
    "a scale a unit without zero points, reshaped in front": (
        product(node("Reshape", ["w", "to"], ["r"], "reshape"), dequantized("r", "s", axis=1)),
        {"w": S8[None], "s": SCALES, "to": np.array([6, 5])},
        S8 * SCALES,
    ),
    "a scale of another type": (
        product(cast_scale(), dequantized("w", "s", axis=1)),
        {"w": S8, "half": SCALES.astype(np.float16)},
        S8 * SCALES.astype(np.float16).astype(np.float32),
    ),
    "quantized by a node": (
        product(
            node("QuantizeLinear", ["f", "s", "p"], ["w"], "quantize", axis=1),
            dequantized("w", "s", "p", axis=1),
        ),
        {"f": EACH, "s": SCALES, "p": POINTS},
        EACH,
    ),
    "a convolution": (
        [
            dequantized("w", "s", "p", axis=0),
            dequantized("b", "bs", to="bias", axis=0),
            node("Unsqueeze", ["x", "axes"], ["image"], "image"),
            node("Conv", ["image", "k", "bias"], ["z"], "head"),
            node("Flatten", ["z"], ["y"], "flat"),
        ],
        {
            "w": S8.T[..., None].copy(),
            "s": SCALES,
            "p": POINTS,
            "b": np.zeros(5, np.int32),
            "bs": SCALES,
            "axes": np.array([2]),
        },
        EACH,
    ),
}
