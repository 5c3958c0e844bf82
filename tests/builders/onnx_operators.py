"""ONNX classifiers with one more operator after the head, and their results in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from exporter.formats.onnx import OnnxModel
from exporter.graph import Array
from tests.builders.onnx_heads import erf
from tests.builders.onnx_models import Dims, model, node, numbers, softmax

INPUT = {"dense": (3, 6), "rows": (2, 3, 6), "map": (2, 6, 4, 4)}
KERNEL, BIAS = numbers(6, 5), numbers(5)
C = np.abs(numbers(5, seed=7)) + 0.5
V = numbers(5, seed=8)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


@dataclass(frozen=True, eq=False)
class Case:
    """Nodes from z, [3, 5], [2, 3, 5] or [2, 5, 4, 4], to y, and y in NumPy."""

    id: str
    nodes: tuple[NodeProto, ...]
    expected: Callable[[Array, Array], Array] = lambda z, _: z  # z of kept units, kept units -> y
    constants: Mapping[str, Array] = field(default_factory=dict)
    base: str = "dense"
    opset: int = 18
    named: str = "last"  # the node that refuses


def head(base: str, *, fixed: bool = True) -> tuple[list[NodeProto], dict[str, Array], Dims]:
    """The nodes from x to z, their constants, and the shape of x."""
    shape: list[int | str | None] = list(INPUT[base])
    if not fixed:
        shape[0] = "batch"
    if base == "map":
        kernel = KERNEL.T[:, :, None, None].copy()
        return (
            [node("Conv", ["x", "kernel", "bias"], ["z"], "conv")],
            {
                "kernel": kernel,
                "bias": BIAS,
            },
            shape,
        )
    made = [node("MatMul", ["x", "kernel"], ["m"], "dense"), node("Add", ["m", "bias"], ["z"], "a")]
    return made, {"kernel": KERNEL, "bias": BIAS}, shape


def build(case: Case, *, fixed: bool = True, **options: Any) -> OnnxModel:
    nodes, constants, shape = head(case.base, fixed=fixed)
    constants.update(case.constants)
    return model([*nodes, *case.nodes], constants, x=shape, opset=case.opset, **options)


def last(operator: str, *inputs: str, **attributes: Any) -> tuple[NodeProto, ...]:
    return (node(operator, list(inputs or ("z",)), ["y"], "last", **attributes),)


def through(operator: str, *inputs: str, **attributes: Any) -> NodeProto:
    return node(operator, list(inputs or ("z",)), ["w"], "between", **attributes)


ROUND_DOWN = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
COPIED = (  # PyTorch's form of a size of two axes
    node("Shape", ["z"], ["shape"], "shape"),
    node("Slice", ["shape", "none", "both", "none"], ["kept lengths"], "first two"),
    node("Concat", ["kept lengths", "size"], ["sizes"], "sizes", axis=0),
)
RESIZES: list[tuple[str, int, tuple[NodeProto, ...], list[str], dict[str, Array], dict[str, Any]]]
RESIZES = [
    ("scales", 13, (), ["scales"], {"scales": floats(1, 1, 2, 2)}, ROUND_DOWN),
    ("sizes", 13, (), ["", "sizes"], {"sizes": ints(2, 5, 8, 8)}, ROUND_DOWN),
    (
        "sizes of two axes",
        18,
        (),
        ["", "sizes"],
        {"sizes": ints(8, 8)},
        {**ROUND_DOWN, "axes": [2, 3]},
    ),
    (
        "sizes copied from the shape",
        13,
        COPIED,
        ["", "sizes"],
        {"none": ints(0), "both": ints(2), "size": ints(8, 8)},
        ROUND_DOWN,
    ),
]


def unary(operator: str, compute: Callable[[Array], Array], first: str = "Tanh") -> Case:
    before = {"Tanh": np.tanh, "Exp": np.exp, "Identity": np.positive}[first]
    nodes = (through(first), *last(operator, "w"))
    return Case(operator, nodes, lambda z, _: compute(before(z)))


def truth(operator: str, compute: Callable[..., Array]) -> Case:
    """A comparison with a constant, cast to float."""
    binary = operator in {"And", "Or", "Xor"}
    nodes = (
        node("Greater", ["z", "c"], ["p"], "p"),
        node("Less", ["z", "c"], ["q"], "q"),
        node(operator, ["p", "q"] if binary else ["p"], ["t"], "t"),
        *last("Cast", "t", to=TensorProto.FLOAT),
    )
    arguments = (lambda z, k: (z > C[k], z < C[k])) if binary else (lambda z, k: (z > C[k],))
    return Case(operator, nodes, lambda z, k: compute(*arguments(z, k)), {"c": C})


def reduced(operator: str, compute: Callable[[Array], Array]) -> Case:
    nodes = last(operator, "z", "axes", keepdims=0)
    return Case(operator, nodes, lambda z, _: compute(z), {"axes": ints(1)}, base="rows")


def compared(operator: str, compute: Callable[[Array, Array], Array]) -> Case:
    nodes = (node(operator, ["z", "c"], ["t"], "t"), *last("Cast", "t", to=TensorProto.FLOAT))
    return Case(operator, nodes, lambda z, k: compute(z, C[k]), {"c": C})


VALUES = [
    unary("Abs", np.abs),
    unary("Acos", np.arccos),
    Case(
        "Acosh",
        (through("Exp"), node("Add", ["w", "c"], ["v"], "add"), *last("Acosh", "v")),
        lambda z, k: np.arccosh(np.exp(z) + (C + 1)[k]),
        {"c": C + 1},
    ),
    unary("Asin", np.arcsin),
    unary("Asinh", np.arcsinh),
    unary("Atan", np.arctan),
    Case(
        "Atanh",
        (through("Tanh"), node("Mul", ["w", "half"], ["v"], "half"), *last("Atanh", "v")),
        lambda z, _: np.arctanh(np.tanh(z) / 2),
        {"half": np.array(0.5, np.float32)},
    ),
    unary("Ceil", np.ceil),
    unary("Cos", np.cos),
    unary("Cosh", np.cosh),
    unary("Erf", erf),
    unary("Floor", np.floor),
    unary("Log", np.log, "Exp"),
    unary("Neg", np.negative),
    unary("Reciprocal", np.reciprocal, "Exp"),
    unary("Round", np.rint),
    unary("Sign", np.sign),
    unary("Sin", np.sin),
    unary("Sinh", np.sinh),
    unary("Sqrt", np.sqrt, "Exp"),
    unary("Tan", np.tan),
    unary("HardSwish", lambda v: v * np.clip(v / 6 + 0.5, 0, 1), "Identity"),
    unary("Mish", lambda v: v * np.tanh(np.log1p(np.exp(v))), "Identity"),
    Case(
        "Celu",
        last("Celu", alpha=0.5),
        lambda z, _: np.where(z > 0, z, 0.5 * (np.exp(np.minimum(z, 0) / 0.5) - 1)),
    ),
    Case(
        "ThresholdedRelu",
        last("ThresholdedRelu", alpha=0.3),
        lambda z, _: np.where(z > 0.3, z, 0.0),
    ),
    Case("Max", last("Max", "z", "c"), lambda z, k: np.maximum(z, C[k]), {"c": C}),
    Case("Min", last("Min", "c", "z"), lambda z, k: np.minimum(z, C[k]), {"c": C}),
    Case("Sum", last("Sum", "z", "c", "z"), lambda z, k: 2 * z + C[k], {"c": C}),
    Case("Mean", last("Mean", "z", "c"), lambda z, k: (z + C[k]) / 2, {"c": C}),
    Case(
        "Mod",
        last("Mod", "z", "c", fmod=1),
        lambda z, k: np.fmod(z, C[k]),
        {"c": C},
    ),
    Case("Pow", (through("Exp"), *last("Pow", "w", "c")), lambda z, k: np.exp(z) ** C[k], {"c": C}),
    Case(
        "Where",
        (node("Greater", ["z", "c"], ["t"], "t"), *last("Where", "t", "z", "c")),
        lambda z, k: np.where(z > C[k], z, C[k]),
        {"c": C},
    ),
    compared("Equal", np.equal),
    compared("Greater", np.greater),
    compared("GreaterOrEqual", np.greater_equal),
    compared("Less", np.less),
    compared("LessOrEqual", np.less_equal),
    truth("And", np.logical_and),
    truth("Or", np.logical_or),
    truth("Xor", np.logical_xor),
    truth("Not", np.logical_not),
    *(
        Case(
            name,
            (node(name, ["z"], ["t"], "t"), *last("Cast", "t", to=TensorProto.FLOAT)),
            lambda z, _: np.zeros_like(z),
        )
        for name in ("IsInf", "IsNaN")
    ),
]
ROWS_AND_MAPS = [
    Case(
        "a temperature of each unit, then a softmax",
        (through("Div", "z", "c"), *last("Softmax", "w", axis=1)),
        lambda z, kept: softmax(z / C[kept], 1),
        {"c": C},
    ),
    Case(
        "a calibration of each unit before a softmax",
        (through("Mul", "z", "c"), node("Add", ["w", "d"], ["v"]), *last("Softmax", "v", axis=1)),
        lambda z, kept: softmax(z * C[kept] + V[kept], 1),
        {"c": C, "d": V},
    ),
    Case(
        "GlobalAveragePool",
        (through("GlobalAveragePool"), *last("Softmax", "w", axis=1)),
        lambda z, _: softmax(z.mean((2, 3), keepdims=True), 1),
        base="map",
    ),
    Case(
        "GlobalMaxPool",
        last("GlobalMaxPool"),
        lambda z, _: z.max((2, 3), keepdims=True),
        base="map",
    ),
    *(
        Case(
            f"Resize, {name}",
            (*before, node("Resize", ["z", "", *given], ["y"], "last", **attributes)),
            lambda z, _: z.repeat(2, axis=2).repeat(2, axis=3),
            constants,
            base="map",
            opset=opset,
        )
        for name, opset, before, given, constants, attributes in RESIZES
    ),
    Case(
        "Upsample",
        last("Upsample", "z", "scales", mode="nearest"),
        lambda z, _: z.repeat(2, axis=2).repeat(2, axis=3),
        {"scales": floats(1, 1, 2, 2)},
        base="map",
        opset=9,
    ),
    Case(
        "AveragePool",
        last("AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
        lambda z, _: z.reshape(2, -1, 2, 2, 2, 2).mean((3, 5)),
        base="map",
    ),
    Case(
        "MaxPool",
        (
            node("MaxPool", ["z"], ["w", "unread"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
            *last("Relu", "w"),
        ),
        lambda z, _: np.maximum(z.reshape(2, -1, 2, 2, 2, 2).max((3, 5)), 0),
        base="map",
    ),
    Case(
        "ReduceMean",
        last("ReduceMean", "z", "axes", keepdims=0),
        lambda z, _: z.mean((2, 3)),
        {"axes": ints(-1, -2)},
        base="map",
    ),
    Case(
        "ReduceMean before opset 18",
        last("ReduceMean", axes=[1]),
        lambda z, _: z.mean(1, keepdims=True),
        base="rows",
        opset=13,
    ),
    Case(
        "ReduceMean of probabilities",
        (through("Softmax"), *last("ReduceMean", "w", "axes", keepdims=0)),
        lambda z, _: softmax(z).mean(1),
        {"axes": ints(1)},
        base="rows",
    ),
    *(
        reduced(name, compute)
        for name, compute in {
            "ReduceMax": lambda z: z.max(1),
            "ReduceMin": lambda z: z.min(1),
            "ReduceSum": lambda z: z.sum(1),
            "ReduceProd": lambda z: z.prod(1),
            "ReduceL1": lambda z: np.abs(z).sum(1),
            "ReduceL2": lambda z: np.sqrt((z * z).sum(1)),
            "ReduceSumSquare": lambda z: (z * z).sum(1),
            "ReduceLogSumExp": lambda z: np.log(np.exp(z).sum(1)),
        }.items()
    ),
    Case("ReduceSum of nothing", last("ReduceSum", noop_with_empty_axes=1), base="rows"),
    Case(
        "ReduceSum over the batch",
        last("ReduceSum", "z", "axes"),
        lambda z, _: z.sum(0, keepdims=True),
        {"axes": ints(0)},
    ),
    Case(
        "Slice that drops rows",
        last("Slice", "z", "a", "b", "axes"),
        lambda z, _: z[:, -2:],
        {"a": ints(-2), "b": ints(99), "axes": ints(1)},
        base="rows",
    ),
    Case(
        "Slice before opset 10",
        last("Slice", axes=[1], starts=[0], ends=[2]),
        lambda z, _: z[:, :2],
        base="rows",
        opset=9,
    ),
    Case(
        "Slice of everything",
        last("Slice", "z", "a", "b"),
        constants={"a": ints(0, 0), "b": ints(3, 5)},
    ),
    Case(
        "Split along the rows",
        (
            node("Split", ["z", "sizes"], ["p", "q"], "split", axis=1),
            node("ReduceSum", ["p", "axes"], ["r"], "sum"),
            *last("Add", "q", "r"),
        ),
        lambda z, _: z[:, 2:] + z[:, :2].sum(1, keepdims=True),
        {"sizes": ints(2, 1), "axes": ints(1)},
        base="rows",
    ),
    Case(
        "Split, gated",
        (
            node("Concat", ["z", "z"], ["w"], "twice", axis=1),
            node("Split", ["w"], ["p", "q"], "split", axis=1, split=[5, 5]),
            node("Sigmoid", ["p"], ["s"], "gate"),
            *last("Mul", "s", "q"),
        ),
        lambda z, _: z / (1 + np.exp(-z)),
        opset=12,
    ),
    Case(
        "Concat of a background that is cut off",
        (
            node("ReduceMax", ["x", "axes"], ["most"], "most"),
            node("Concat", ["most", "z"], ["w"], "join", axis=1),
            *last("Slice", "w", "a", "b", "axes"),
        ),
        constants={"axes": ints(1), "a": ints(1), "b": ints(6)},
    ),
    Case(
        "Concat along the rows",
        (node("Concat", ["z", "row"], ["w"], "join", axis=1), *last("Relu", "w")),
        lambda z, k: np.maximum(
            np.concatenate([z, np.broadcast_to(C[k], (2, 1, len(k)))], axis=1), 0
        ),
        {"row": np.tile(C, (2, 1, 1))},
        base="rows",
    ),
    Case(
        "Tile",
        last("Tile", "z", "times"),
        lambda z, _: np.tile(z, (1, 3, 1)),
        {"times": ints(1, 3, 1)},
        base="rows",
    ),
    Case(
        "Pad",
        last("Pad", "z", "by", "v"),
        lambda z, _: np.pad(z, ((0, 0), (1, 0), (0, 0)), constant_values=2.0),
        {"by": ints(0, 1, 0, 0, 0, 0), "v": np.array(2.0, np.float32)},
        base="rows",
    ),
    Case(
        "Pad of some axes",
        last("Pad", "z", "by", "", "axes", mode="edge"),
        lambda z, _: np.pad(z, ((0, 0), (0, 2), (0, 0)), mode="edge"),
        {"by": ints(0, 2), "axes": ints(-2)},
        base="rows",
    ),
    Case(
        "Pad before opset 11",
        last("Pad", pads=[0, 1, 0, 0, 0, 0]),
        lambda z, _: np.pad(z, ((0, 0), (1, 0), (0, 0))),
        base="rows",
        opset=10,
    ),
    Case(
        "Expand",
        (node("Unsqueeze", ["z", "axes"], ["u"], "u"), *last("Expand", "u", "to")),
        lambda z, _: np.repeat(z[:, None], 4, axis=1),
        {"axes": ints(1), "to": ints(3, 4, 5)},
    ),
    Case("Expand to the same shape", last("Expand", "z", "to"), constants={"to": ints(1, 1)}),
    Case(
        "Expand of a constant",
        (node("Expand", ["c", "to"], ["w"], "wide"), *last("Add", "z", "w")),
        lambda z, k: z + C[k],
        {"c": C[None], "to": ints(3, 5)},
    ),
    Case(
        "Size of an axis that is not the unit axis",
        (
            node("Size", ["x"], ["n"], "size"),
            node("Cast", ["n"], ["f"], "cast", to=TensorProto.FLOAT),
            *last("Div", "z", "f"),
        ),
        lambda z, _: z / 18,
    ),
]
CHAINS = [
    Case(
        "batch by Gather",
        (
            node("Shape", ["z"], ["shape"], "shape"),
            node("Gather", ["shape", "zero"], ["n"], "take"),
            node("Unsqueeze", ["n", "axes"], ["b"], "vector"),
            node("Concat", ["b", "one", "width"], ["to"], "to", axis=0),
            *last("Reshape", "z", "to"),
        ),
        lambda z, _: z[:, None],
        {"zero": np.array(0), "axes": ints(0), "one": ints(1), "width": ints(5)},
    ),
    Case(
        "batch by Cast and Slice",
        (
            node("Shape", ["z"], ["shape"], "shape"),
            node("Cast", ["shape"], ["small"], "cast", to=TensorProto.INT32),
            node("Slice", ["small", "zero", "one"], ["b"], "take"),
            node("Concat", ["b", "width", "one32"], ["to32"], "to32", axis=0),
            node("Cast", ["to32"], ["to"], "to", to=TensorProto.INT64),
            *last("Reshape", "z", "to"),
        ),
        lambda z, _: z[..., None],
        {
            "zero": ints(0),
            "one": ints(1),
            "one32": np.array([1], np.int32),
            "width": np.array([5], np.int32),
        },
    ),
    Case(
        "batch of the input, the width a number",
        (
            node("Shape", ["x"], ["shape"], "shape", end=1),
            node("Unsqueeze", ["width", "axes"], ["w"], "vector"),
            node("Concat", ["shape", "w"], ["to"], "to", axis=0),
            node("Reshape", ["z", "to"], ["r"], "reshape"),
            *last("Softmax", "r"),
        ),
        lambda z, _: softmax(z),
        {"width": np.array(5), "axes": ints(0)},
    ),
    Case(
        "the rest is left open",
        (
            node("Shape", ["z"], ["shape"], "shape"),
            node("Slice", ["shape"], ["b"], "take", starts=[0], ends=[1]),
            node("Concat", ["b", "open"], ["to"], "to", axis=0),
            *last("Reshape", "z", "to"),
        ),
        constants={"open": ints(-1)},
        opset=9,
    ),
    Case(
        "a target out of constants",
        (
            node("Concat", ["open", "width"], ["to"], "to", axis=0),
            node("Identity", ["to"], ["same"], "same"),
            *last("Reshape", "z", "same"),
        ),
        constants={"open": ints(-1), "width": ints(5)},
    ),
]
AFTER_HEAD = [*VALUES, *ROWS_AND_MAPS, *CHAINS]


def held(name: str, value: Array) -> NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def matmul(*before: NodeProto) -> list[NodeProto]:
    return [*before, node("MatMul", ["x", "k"], ["y"], "head")]


KERNELS: Mapping[str, tuple[list[NodeProto], Mapping[str, Array], Array]] = {
    "Constant": (matmul(held("k", KERNEL)), {}, KERNEL),
    "Identity": (matmul(node("Identity", ["w"], ["k"])), {"w": KERNEL}, KERNEL),
    "Transpose": (matmul(node("Transpose", ["w"], ["k"])), {"w": KERNEL.T.copy()}, KERNEL),
    "Reshape": (
        matmul(node("Reshape", ["w", "to"], ["k"])),
        {"w": KERNEL.reshape(2, 3, 5), "to": ints(6, 5)},
        KERNEL,
    ),
    "Reshape and Squeeze": (
        matmul(
            node("Reshape", ["w", "to"], ["v"], "r"), node("Squeeze", ["v", "axes"], ["k"], "s")
        ),
        {"w": KERNEL, "to": ints(1, -1, 5), "axes": ints(0)},
        KERNEL,
    ),
    "Cast": (
        matmul(node("Cast", ["w"], ["k"], to=TensorProto.FLOAT)),
        {"w": KERNEL.astype(np.float16)},
        KERNEL.astype(np.float16).astype(np.float32),
    ),
    "Concat": (
        matmul(node("Concat", ["v", "w"], ["k"], "join", axis=0)),
        {"v": KERNEL[:2], "w": KERNEL[2:]},
        KERNEL,
    ),
    "a scale a unit": (
        matmul(node("Mul", ["w", "c"], ["k"], "scale")),
        {"w": KERNEL, "c": C},
        KERNEL * C,
    ),
    "Einsum": (
        [node("Einsum", ["x", "k"], ["y"], "head", equation="bi, io -> bo")],
        {"k": KERNEL},
        KERNEL,
    ),
    "Einsum, kernel first": (
        [node("Einsum", ["k", "x"], ["y"], "head", equation="oi,...i->...o")],
        {"k": KERNEL.T.copy()},
        KERNEL,
    ),
    "Gemm": (
        [node("Identity", ["w"], ["k"], "i"), node("Gemm", ["x", "k"], ["y"], "head", transB=1)],
        {"w": KERNEL.T.copy()},
        KERNEL,
    ),
}
