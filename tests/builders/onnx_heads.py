"""ONNX heads, and the nodes after them that keep the unit axis in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from exporter.graph import Array
from tests.builders.onnx_models import node, numbers, softmax

X = numbers(3, 6, seed=1)


@dataclass(frozen=True, eq=False)
class Case:
    """Nodes from z[batch, 5] to y, and y in NumPy."""

    id: str
    nodes: tuple[NodeProto, ...]
    expected: Callable[[Array, Array], Array]  # z[batch, kept], kept units -> y
    constants: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 17


def const(*values: Any, dtype: Any = np.int64) -> Array:
    return np.array(values, dtype)


C = numbers(5, seed=7) + 3.0  # a constant for each unit, away from 0
HALF_OPEN = np.array(-0.5, np.float32)


def one(operator: str, *constants: str, **attributes: Any) -> tuple[NodeProto, ...]:
    return (node(operator, ["z", *constants], ["y"], "last", **attributes),)


K = numbers(6, 5)
B = numbers(5)
IMAGE = {n: numbers(2, 4, *[3] * n, seed=n) for n in (1, 2, 3)}
FILTER = {n: numbers(5, 4, *[3] * n) for n in (1, 2, 3)}


def gemm(*inputs: str, **attributes: Any) -> list[NodeProto]:
    return [node("Gemm", ["x", *inputs], ["y"], "head", **attributes)]


def added(*order: str) -> list[NodeProto]:
    return [node("MatMul", ["x", "k"], ["m"], "head"), node("Add", [*order], ["y"], "add")]


def constant(name: str, value: Array) -> NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(value))


HEADS: Mapping[str, tuple[list[NodeProto], Mapping[str, Array], Array, Array]] = {
    "gemm": (gemm("k", "b"), {"k": K, "b": B}, X, X @ K + B),
    "gemm, no bias": (gemm("k"), {"k": K}, X, X @ K),
    "gemm, transposed": (gemm("k", "b", transB=1), {"k": K.T.copy(), "b": B}, X, X @ K + B),
    "gemm, transposed input": (gemm("k", transA=1), {"k": K}, X.T.copy(), X @ K),
    "gemm, alpha and beta": (
        gemm("k", "b", alpha=0.5, beta=2.0),
        {"k": K, "b": B},
        X,
        0.5 * (X @ K) + 2.0 * B,
    ),
    "gemm, bias of two axes": (gemm("k", "b"), {"k": K, "b": B[None]}, X, X @ K + B),
    "gemm, one bias for all": (gemm("k", "b"), {"k": K, "b": B[:1]}, X, X @ K + B[0]),
    "gemm, scalar bias": (gemm("k", "b"), {"k": K, "b": B[0]}, X, X @ K + B[0]),
    "gemm, a bias a sample": (gemm("k", "b"), {"k": K, "b": X[:, :1]}, X, X @ K + X[:, :1]),
    "gemm, constants in nodes": (
        [constant("k", K), constant("b", B), *gemm("k", "b")],
        {},
        X,
        X @ K + B,
    ),
    "gemm, bias computed from a second kernel": (
        [node("MatMul", ["x", "l"], ["b"], "second"), *gemm("k", "b")],
        {"k": K, "l": numbers(6, 5, seed=9)},
        X,
        X @ (K + numbers(6, 5, seed=9)),
    ),
    "matmul": ([node("MatMul", ["x", "k"], ["y"], "head")], {"k": K}, X, X @ K),
    "matmul of three axes": (
        [node("MatMul", ["x", "k"], ["y"], "head")],
        {"k": K},
        numbers(2, 3, 6),
        numbers(2, 3, 6) @ K,
    ),
    "matmul, then a bias": (added("m", "b"), {"k": K, "b": B}, X, X @ K + B),
    "matmul, bias added in front": (added("b", "m"), {"k": K, "b": B}, X, X @ K + B),
    **{
        f"conv, {n} axes": (
            [node("Conv", ["x", "k", "b"], ["y"], "head")],
            {"k": FILTER[n], "b": B},
            IMAGE[n],
            (IMAGE[n].reshape(2, -1) @ FILTER[n].reshape(5, -1).T).reshape(2, 5, *[1] * n)
            + B.reshape(5, *[1] * n),
        )
        for n in FILTER
    },
    "conv, no bias": (
        [node("Conv", ["x", "k"], ["y"], "head")],
        {"k": numbers(5, 6, 1)},
        numbers(2, 6, 7),
        np.einsum("bip,oi->bop", numbers(2, 6, 7), numbers(5, 6, 1)[..., 0]),
    ),
}


def erf(values: Array) -> Array:
    return np.asarray(np.vectorize(math.erf)(values))


def elu(z: Array, alpha: float) -> Array:
    return np.where(z > 0, z, alpha * (np.exp(z) - 1))


AFTER_HEAD = [
    Case("Add", one("Add", "c"), lambda z, k: z + C[k], {"c": C}),
    Case("Add, joined", (node("Mul", ["z", "z"], ["w"]), *one("Add", "w")), lambda z, _: z + z * z),
    Case("Sub", one("Sub", "c"), lambda z, k: z - C[k], {"c": C}),
    Case("Sub, reversed", (node("Sub", ["c", "z"], ["y"], "s"),), lambda z, k: C[k] - z, {"c": C}),
    Case("Mul", one("Mul", "c"), lambda z, k: z * C[k], {"c": C[None]}),
    Case("Mul, one number", one("Mul", "c"), lambda z, _: z * C[0], {"c": C[0]}),
    Case("Div", one("Div", "c"), lambda z, k: z / C[k], {"c": C}),
    Case("PRelu", one("PRelu", "c"), lambda z, k: np.where(z > 0, z, z * C[k]), {"c": C}),
    Case(
        "BatchNormalization",
        one("BatchNormalization", "a", "b", "m", "v", epsilon=0.01),
        lambda z, k: (z - C[k]) / np.sqrt(C[k] + 0.01) * C[k] + B[k],
        {"a": C, "b": B, "m": C, "v": C},
    ),
    Case("Identity", one("Identity"), lambda z, _: z),
    Case("Dropout", one("Dropout"), lambda z, _: z),
    Case("Dropout before opset 12", one("Dropout", ratio=0.3), lambda z, _: z, opset=10),
    Case(
        "Cast",
        (
            node("Cast", ["z"], ["half"], "cast", to=TensorProto.FLOAT16),
            node("Cast", ["half"], ["y"], "back", to=TensorProto.FLOAT),
        ),
        lambda z, _: z.astype(np.float16).astype(np.float32),
    ),
    Case("Relu", one("Relu"), lambda z, _: np.maximum(z, 0)),
    Case("Sigmoid", one("Sigmoid"), lambda z, _: 1 / (1 + np.exp(-z))),
    Case(
        "HardSigmoid",
        one("HardSigmoid", alpha=0.3),
        lambda z, _: np.clip(0.3 * z + 0.5, 0, 1),
    ),
    Case("Tanh", one("Tanh"), lambda z, _: np.tanh(z)),
    Case("Exp", one("Exp"), lambda z, _: np.exp(z)),
    Case("Elu", one("Elu", alpha=0.7), lambda z, _: elu(z, 0.7)),
    Case("Selu", one("Selu", alpha=1.5, gamma=1.1), lambda z, _: 1.1 * elu(z, 1.5)),
    Case("LeakyRelu", one("LeakyRelu"), lambda z, _: np.where(z > 0, z, 0.01 * z)),
    Case("Softplus", one("Softplus"), lambda z, _: np.log1p(np.exp(z))),
    Case("Softsign", one("Softsign"), lambda z, _: z / (1 + np.abs(z))),
    Case("Gelu", one("Gelu"), lambda z, _: 0.5 * z * (1 + erf(z / 2**0.5)), opset=20),
    Case(
        "Gelu, approximate",
        one("Gelu", approximate="tanh"),
        lambda z, _: 0.5 * z * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3))),
        opset=20,
    ),
    Case(
        "Clip",
        one("Clip", "low", "high"),
        lambda z, _: np.clip(z, -0.5, 1),
        {"low": HALF_OPEN, "high": np.array(1.0, np.float32)},
    ),
    Case(
        "Clip, one bound", one("Clip", "low"), lambda z, _: np.maximum(z, -0.5), {"low": HALF_OPEN}
    ),
    Case("Clip before opset 11", one("Clip", max=0.25), lambda z, _: np.minimum(z, 0.25), opset=9),
    Case("Softmax", one("Softmax"), lambda z, _: softmax(z)),
    Case("Softmax before opset 13", one("Softmax"), lambda z, _: softmax(z), opset=12),
    Case("LogSoftmax", one("LogSoftmax", axis=1), lambda z, _: np.log(softmax(z))),
    Case(
        "Softmax before opset 13, before axes of length 1",
        (
            node("Unsqueeze", ["z"], ["u"], "unsqueeze", axes=[2, 3]),
            node("Softmax", ["u"], ["y"], "softmax", axis=1),
        ),
        lambda z, _: softmax(z)[..., None, None],
        opset=11,
    ),
    Case(
        "Reshape",
        one("Reshape", "to"),
        lambda z, _: z.reshape(-1, 1, z.shape[1]),
        {"to": const(-1, 1, 5)},
    ),
    Case(
        "Reshape with 0 and -1",
        one("Reshape", "to"),
        lambda z, _: z[..., None],
        {"to": const(0, -1, 1)},
    ),
    Case(
        "Reshape, one target for two",
        (
            node("Reshape", ["z", "to"], ["r"], "first"),
            node("Relu", ["r"], ["s"], "relu"),
            node("Reshape", ["s", "to"], ["y"], "second"),
        ),
        lambda z, _: np.maximum(z, 0),
        {"to": const(-1, 5)},
    ),
    Case(
        "Squeeze and Unsqueeze",
        (
            node("Unsqueeze", ["z", "axes"], ["u"], "unsqueeze"),
            node("Relu", ["u"], ["r"], "relu"),
            node("Squeeze", ["r", "axes"], ["y"], "squeeze"),
        ),
        lambda z, _: np.maximum(z, 0),
        {"axes": const(1)},
    ),
    Case(
        "Flatten",
        (
            node("Unsqueeze", ["z", "axes"], ["u"], "unsqueeze"),
            node("Flatten", ["u"], ["y"], "flatten"),
        ),
        lambda z, _: z,
        {"axes": const(2, 3)},
    ),
    Case(
        "Transpose",
        (
            node("Unsqueeze", ["z", "axes"], ["u"], "unsqueeze"),
            node("Transpose", ["u"], ["y"], "last"),
        ),
        lambda z, _: z.T[None],
        {"axes": const(2)},
    ),
    Case(
        "Transpose, permuted",
        (
            node("Unsqueeze", ["z", "axes"], ["u"], "unsqueeze"),
            node("Transpose", ["u"], ["y"], "last", perm=[2, 0, 1]),
        ),
        lambda z, _: z[None],
        {"axes": const(2)},
    ),
]
