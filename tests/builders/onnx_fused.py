"""Networks of one operator that onnxruntime's optimizer writes, as the head or after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto, NodeProto

from tests.builders.onnx_models import node, numbers, proto

MICROSOFT = "com.microsoft"


def fused(operator: str, *inputs: str, out: str = "y", **attributes: Any) -> NodeProto:
    return node(operator, list(inputs), [out], "head", domain=MICROSOFT, **attributes)


CONSTANTS = {
    "kernel": numbers(6, 5),
    "turned": numbers(5, 6),
    "bias": numbers(5),
    "window": numbers(5, 6, 3),
}
GEMM = node("Gemm", ["x", "kernel"], ["z"], "gemm")
OPERATORS: Mapping[str, tuple[Sequence[NodeProto], Sequence[Any]]] = {
    "FusedGemm": ([fused("FusedGemm", "x", "kernel", "bias", activation="Relu")], ("n", 6)),
    "FusedGemm, transposed": (
        [fused("FusedGemm", "x", "turned", activation="Sigmoid", transB=1)],
        ("n", 6),
    ),
    "FusedMatMul": ([fused("FusedMatMul", "x", "kernel", alpha=0.5)], ("n", 6)),
    "FusedMatMul, transposed": ([fused("FusedMatMul", "x", "turned", transB=1)], ("n", 2, 6)),
    "FusedMatMul, both transposed": (
        [fused("FusedMatMul", "x", "turned", transA=1, transB=1)],
        (2, 6, 3),
    ),
    "FusedConv": (
        [fused("FusedConv", "x", "window", "bias", activation="Relu")],
        ("n", 6, 8),
    ),
    "Gelu": ([GEMM, fused("Gelu", "z")], ("n", 6)),
    "QuickGelu": ([GEMM, fused("QuickGelu", "z", alpha=1.7)], ("n", 6)),
    "FastGelu": ([GEMM, fused("FastGelu", "z")], ("n", 6)),
    "FastGelu with a bias": ([GEMM, fused("FastGelu", "z", "bias")], ("n", 6)),
    "BiasGelu": ([GEMM, fused("BiasGelu", "z", "bias")], ("n", 6)),
}


def network(name: str) -> ModelProto:
    """x -> the nodes of OPERATORS -> y; no output states a length."""
    nodes, dims = OPERATORS[name]
    used = {each for n in nodes for each in n.input}
    constants = {key: value for key, value in CONSTANTS.items() if key in used}
    outputs: dict[str, Any] = {"y": ["?"] * len(dims)}
    return proto(nodes, constants, x=dims, outputs=outputs, domains={MICROSOFT: 1})
