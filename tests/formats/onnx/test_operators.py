"""What classifiers hold besides kernels and activations, in ONNX: refused first, then by NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx import OnnxModel
from exporter.formats.onnx.table import REASONS, TABLE
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders import onnx_suppression
from tests.builders.onnx_models import Dims, cut, model, node, numbers, run, softmax
from tests.formats.onnx import test_integers, test_quantized_values, test_rankings, test_table

KEPT = [4, 0, 2]
INPUT = {"dense": (3, 6), "rows": (2, 3, 6), "map": (2, 6, 4, 4)}
X = {base: numbers(*shape, seed=1) for base, shape in INPUT.items()}
KERNEL, BIAS = numbers(6, 5), numbers(5)
Z = {
    "dense": X["dense"] @ KERNEL + BIAS,
    "rows": X["rows"] @ KERNEL + BIAS,
    "map": np.einsum("bihw,io->bohw", X["map"], KERNEL) + BIAS[:, None, None],
}
AXIS = {"dense": 1, "rows": 2, "map": 1}
C = np.abs(numbers(5, seed=7)) + 0.5
V = numbers(5, seed=8)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


@dataclass(frozen=True, eq=False)
class Case:
    """Nodes that lead from z, [3, 5], [2, 3, 5] or [2, 5, 4, 4], to y, and what y is in NumPy."""

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


RUNNING = (  # a number that is computed while the model runs
    node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
    node("Cast", ["s"], ["i"], "int", to=TensorProto.INT64),
    node("Reshape", ["i", "one"], ["n"], "vector"),
)
ONE = {"one": ints(1)}

# --- what must be refused ------------------------------------------------------------------------

ROUND_DOWN = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
COPIED = (  # as PyTorch writes a size of two axes
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
TURNED = (  # the number of units becomes a height
    node("Shape", ["z"], ["shape"], "last"),
    node("Slice", ["shape", "one", "both", "none"], ["units"], "first two"),
    node("Concat", ["lengths", "units", "width"], ["sizes"], "sizes", axis=0),
    node("Resize", ["z", "", "", "sizes"], ["y"], "resize", **ROUND_DOWN),
)

REFUSED = [
    Case("maximum over the units", last("ReduceMax", "z", "axes"), constants={"axes": ints(-1)}),
    Case("all axes at once", last("ReduceMean", keepdims=1)),
    Case(
        "axes computed",
        (*RUNNING, *last("ReduceSum", "z", "n")),
        constants=ONE,
    ),
    Case(
        "places of maxima",
        (
            node("MaxPool", ["z"], ["p", "places"], "last", kernel_shape=[2, 2]),
            node("Cast", ["places"], ["f"], "cast", to=TensorProto.FLOAT),
            node("Add", ["p", "f"], ["y"], "sum"),
        ),
        base="map",
    ),
    Case(
        "the number of units becomes a height",
        TURNED,
        constants={
            "none": ints(0),
            "one": ints(1),
            "both": ints(2),
            "lengths": ints(2, 5),
            "width": ints(4),
        },
        base="map",
    ),
    Case(
        "a copied number of units is computed with too",
        (
            *COPIED,
            node("Resize", ["z", "", "", "sizes"], ["big"], "resize", **ROUND_DOWN),
            node("ReduceProd", ["kept lengths"], ["n"], "product"),
            node("Cast", ["n"], ["f"], "cast", to=TensorProto.FLOAT),
            node("Add", ["big", "f"], ["y"], "sum"),
        ),
        constants={"none": ints(0), "both": ints(2), "size": ints(8, 8)},
        base="map",
        named="shape",
    ),
    Case(
        "units resized",
        last("Resize", "z", "", "scales", **ROUND_DOWN),
        constants={"scales": floats(1, 2, 1, 1)},
        base="map",
        opset=13,
    ),
    Case(
        "chosen by place",
        last("Slice", "z", "a", "b", "axes"),
        constants={"a": ints(0), "b": ints(3), "axes": ints(1)},
    ),
    Case(
        "turned round",
        last("Slice", "z", "a", "b", "axes", "by"),
        constants={"a": ints(-1), "b": ints(-9), "axes": ints(1), "by": ints(-1)},
    ),
    Case("bounds computed", (*RUNNING, *last("Slice", "z", "one", "n")), constants=ONE),
    Case(
        "equal parts",
        (
            node("Concat", ["z", "z"], ["w"], "twice", axis=1),
            node("Split", ["w"], ["p", "q"], "last", axis=1, num_outputs=2),
            node("Add", ["p", "q"], ["y"], "sum"),
        ),
    ),
    Case(
        "sizes computed",
        (
            *RUNNING,
            node("Concat", ["n", "n"], ["sizes"], "sizes", axis=0),
            node("Split", ["z", "sizes"], ["p", "q"], "last", axis=1),
            node("Concat", ["p", "q"], ["y"], "join", axis=1),
        ),
        constants=ONE,
    ),
    Case("tiled units", last("Tile", "z", "times"), constants={"times": ints(1, 2)}),
    Case(
        "times computed",
        (*RUNNING, node("Concat", ["n", "n"], ["nn"], "c", axis=0), *last("Tile", "z", "nn")),
        constants=ONE,
    ),
    Case("padded units", last("Pad", "z", "by"), constants={"by": ints(0, 1, 0, 0)}),
    Case(
        "padding computed",
        (*RUNNING, node("Concat", ["n"] * 4, ["by"], "c", axis=0), *last("Pad", "z", "by")),
        constants=ONE,
    ),
    Case(
        "broadcast over the units",
        (
            node("ReduceMean", ["z", "axes"], ["w"], "last", keepdims=1),
            node("Expand", ["w", "to"], ["y"], "expand"),
        ),
        constants={"axes": ints(1), "to": ints(3, 5)},
    ),
    Case(
        "shape computed",
        (*RUNNING, node("Concat", ["n", "n"], ["to"], "c", axis=0), *last("Expand", "z", "to")),
        constants=ONE,
    ),
    Case(
        "scrambled",
        last("Reshape", "z", "to"),
        constants={"to": ints(2, 5, 3)},
        base="rows",
    ),
    Case(
        "a width out of arithmetic",
        (
            node("Shape", ["x"], ["lengths"], "shape"),
            node("Gather", ["lengths", "one"], ["six"], "take", axis=0),
            node("Sub", ["six", "one"], ["w"], "less"),
            node("Concat", ["minus", "w"], ["to"], "c", axis=0),
            *last("Reshape", "z", "to"),
        ),
        constants={"one": ints(1), "minus": ints(-1)},
    ),
    Case(
        "divided by the number of units",
        (
            node("Shape", ["z"], ["shape"], "last"),
            node("Gather", ["shape", "at"], ["n"], "take"),
            node("Cast", ["n"], ["f"], "cast", to=TensorProto.FLOAT),
            node("Div", ["z", "f"], ["y"], "div"),
        ),
        constants={"at": np.array(1)},
    ),
    Case(
        "divided by the number of values",
        (
            node("Size", ["z"], ["n"], "last"),
            node("Cast", ["n"], ["f"], "cast", to=TensorProto.FLOAT),
            node("Div", ["z", "f"], ["y"], "div"),
        ),
    ),
    Case(
        "the length of a range of units",
        (
            node("Shape", ["z"], ["shape"], "last", start=1),
            node("Cast", ["shape"], ["f"], "cast", to=TensorProto.FLOAT),
            node("Div", ["z", "f"], ["y"], "div"),
        ),
    ),
    Case("normalized", last("LpNormalization", axis=1)),
    Case("accumulated", last("CumSum", "z", "at"), constants={"at": np.array(1)}),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused_by_name(case: Case) -> None:
    """Probabilities are an output too, so that what reads the logits elsewhere refuses the cut."""
    shape: list[int | str | None] = [None] * Z[case.base].ndim
    soft = replace(case, nodes=(*case.nodes, node("Softmax", ["z"], ["soft"], "s", axis=1)))
    outputs: Mapping[str, Dims | None] = {"soft": None, "y": shape}
    traced = trace(build(soft, outputs=outputs).graph())
    assert "soft" not in {found.output for found in traced.heads}
    assert f"'{case.named}'" in str(traced.refusals[0])


def test_two_softmaxes_are_refused() -> None:
    case = Case("two", (through("Softmax"), *last("Softmax", "w")))
    (refusal,) = trace(build(case).graph()).refusals
    assert refusal.operation == "Softmax 'between'"
    assert "mixes the units before the last activation" in refusal.reason


EINSUMS_REFUSED = {
    "two computed operands": ("bi,bj->ij", ["x", "x"], {}),
    "no stated result": ("bi,io", ["x", "k"], {"k": KERNEL}),
    "one operand": ("bi->ib", ["x"], {}),
    "several axes of channels": ("bi,ijk->bjk", ["x", "k"], {"k": numbers(6, 2, 5)}),
    "an axis that both have": ("bi,bi->bi", ["x", "k"], {"k": numbers(3, 6)}),
    "no equation": ("", ["x", "k"], {"k": KERNEL}),
    "a damaged equation": ("bi, io\x7f-> bo", ["x", "k"], {"k": KERNEL}),
    "a diagonal": ("bi,ii->bi", ["x", "k"], {"k": numbers(6, 6)}),
    "nothing of the constant left": ("bi,i->b", ["x", "k"], {"k": numbers(6)}),
}


@pytest.mark.parametrize("name", EINSUMS_REFUSED)
def test_einsums_that_are_no_head(name: str) -> None:
    equation, inputs, constants = EINSUMS_REFUSED[name]
    nodes = [
        node("Einsum", inputs, ["e"], "head", equation=equation),
        node("Reshape", ["e", "to"], ["y"], "flat"),
    ]
    outputs = {"y": [1, None]}
    opened = model(nodes, {**constants, "to": ints(1, -1)}, x=INPUT["dense"], outputs=outputs)
    graph = opened.graph()
    (einsum,) = (n for n in graph.nodes if n.name == "head")
    assert type(einsum.operation).__name__ == "Opaque"


FOREIGN = [
    ("DynamicQuantizeLinear", "", 1, "dynamic"),
    ("QLinearConcat", "com.microsoft", 5, "QOperator"),
    ("MatMulFpQ4", "com.microsoft", 3, "4-bit floats"),
    ("QAttention", "com.microsoft", 3, "'com.microsoft'"),
    ("Unheard", "own.domain", 2, "'own.domain'"),
]


@pytest.mark.parametrize(("operator", "domain", "inputs", "reason"), FOREIGN)
def test_other_ways_to_quantize_are_refused_by_name(
    operator: str, domain: str, inputs: int, reason: str
) -> None:
    names = ["x", *(f"c{i}" for i in range(1, inputs))]
    odd = node(operator, names, ["y"], "head", domain=domain)
    constants = {name: numbers(6, 5) for name in names[1:]}
    opened = model([odd], constants, outputs={"y": [None, 5]})
    (refusal,) = trace(opened.graph()).refusals
    assert refusal.operation == f"{operator} 'head'"
    assert reason in refusal.reason


def test_every_reason_belongs_to_an_operator_without_a_row() -> None:
    assert not set(REASONS) & set(TABLE)


# --- graphs inside --------------------------------------------------------------------------------


def branch(*nodes: NodeProto, out: str = "inner", shape: Dims = ("batch", 5)) -> Any:
    info = helper.make_tensor_value_info(out, TensorProto.FLOAT, list(shape))
    return helper.make_graph(list(nodes), "branch", [], [info])


def test_a_head_inside_a_branch_is_refused_by_name() -> None:
    inside = branch(node("MatMul", ["x", "kernel"], ["inner"], "head"))
    chosen = node("If", ["yes"], ["y"], "choice", then_branch=inside, else_branch=inside)
    opened = model([chosen], {"kernel": KERNEL, "yes": np.array(True)}, outputs={"y": [None, 5]})
    (refusal,) = trace(opened.graph()).refusals
    assert (
        str(refusal) == "output 'y': If 'choice': it holds graphs of its own, which are not entered"
    )


def test_a_head_in_front_of_a_branch_is_refused_by_name() -> None:
    inside = branch(node("Relu", ["z"], ["inner"], "relu"))
    chosen = node("If", ["yes"], ["y"], "choice", then_branch=inside, else_branch=inside)
    nodes, constants, _ = head("dense")
    opened = model([*nodes, chosen], {**constants, "yes": np.array(True)}, outputs={"y": [None, 5]})
    assert trace(opened.graph()).refusals[0].operation == "If 'choice'"


def test_a_loop_on_the_way_is_refused_by_name() -> None:
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Relu", ["v"], ["r"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["batch", 5]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("r", TensorProto.FLOAT, ["batch", 5]),
        ],
    )
    nodes, constants, _ = head("dense")
    loop = node("Loop", ["times", "", "z"], ["y"], "loop", body=body)
    opened = model([*nodes, loop], {**constants, "times": np.array(2)}, outputs={"y": [None, 5]})
    assert trace(opened.graph()).refusals[0].operation == "Loop 'loop'"


def test_graphs_and_functions_elsewhere_are_left_alone() -> None:
    """A branch in the body of the network, and a function of the file behind another output."""
    inside = [branch(node("Relu", ["x"], [n], n), out=n, shape=["batch", 6]) for n in ("p", "q")]
    nodes = [
        node("If", ["yes"], ["f"], "choice", then_branch=inside[0], else_branch=inside[1]),
        node("MatMul", ["f", "kernel"], ["y"], "head"),
        node("Mine", ["f"], ["other"], "mine", domain="own"),
    ]
    outputs: dict[str, Dims | None] = {"y": ["batch", 5], "other": ["batch", 6]}
    opened = model(nodes, {"kernel": KERNEL, "yes": np.array(True)}, outputs=outputs)
    opened.proto.functions.append(
        helper.make_function(
            "own", "Mine", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    )
    opened.proto.opset_import.append(helper.make_opsetid("own", 1))
    opened = type(opened)(opened.proto, "network.onnx")
    x = X["dense"]
    before, after = run(opened, {"x": x}), run(cut(opened, KEPT), {"x": x})
    np.testing.assert_array_equal(before["other"], after["other"])
    np.testing.assert_allclose(after["y"], before["y"][:, KEPT], atol=1e-6)


# --- behind the head ------------------------------------------------------------------------------


def unary(operator: str, compute: Callable[[Array], Array], first: str = "Tanh") -> Case:
    before = {"Tanh": np.tanh, "Exp": np.exp, "Identity": np.positive}[first]
    nodes = (through(first), *last(operator, "w"))
    return Case(operator, nodes, lambda z, _: compute(before(z)))


def truth(operator: str, compute: Callable[..., Array]) -> Case:
    """Of what is compared with constants, as floats."""
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
    unary("Erf", test_table.erf),
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
        "a calibration of each unit in front of a softmax",
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
    Case("Expand to what it is", last("Expand", "z", "to"), constants={"to": ints(1, 1)}),
    Case(
        "Expand of a constant",
        (node("Expand", ["c", "to"], ["w"], "wide"), *last("Add", "z", "w")),
        lambda z, k: z + C[k],
        {"c": C[None], "to": ints(3, 5)},
    ),
    Case(
        "Size of what is no unit",
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

BEHIND = [*VALUES, *ROWS_AND_MAPS, *CHAINS]


@pytest.mark.parametrize("case", BEHIND, ids=lambda case: case.id)
def test_behind_the_head(case: Case) -> None:
    shape = case.expected(Z[case.base], np.arange(5)).shape
    opened = build(case, outputs={"y": shape} if case in CHAINS else None)
    feeds = {"x": X[case.base]}
    z, axis = Z[case.base], AXIS[case.base]
    before = run(opened, feeds)["y"]
    np.testing.assert_allclose(before, case.expected(z, np.arange(5)), atol=1e-4)
    for kept in (KEPT, [3], [0, 1, 2, 3, 4]):
        expected = case.expected(np.take(z, kept, axis=axis), np.array(kept))
        result = run(cut(opened, kept), feeds)["y"]
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("case", CHAINS, ids=lambda case: case.id)
def test_a_batch_that_is_copied_stays_open(case: Case) -> None:
    _, *shape = case.expected(Z["dense"], np.arange(5)).shape
    opened = build(case, fixed=False, outputs={"y": ["batch", *shape]})
    result = cut(opened, KEPT)
    for batch in (1, 3):
        x = X["dense"][:batch]
        expected = case.expected(Z["dense"][:batch, KEPT], np.array(KEPT))
        np.testing.assert_allclose(run(result, {"x": x})["y"], expected, atol=1e-5)


def test_parts_from_several_linear_operations() -> None:
    nodes = [
        node("MatMul", ["x", "left"], ["p"], "left"),
        node("MatMul", ["x", "right"], ["q"], "right"),
        node("Concat", ["p", "q"], ["z"], "join", axis=-1),
        node("Softmax", ["z"], ["y"], "softmax"),
    ]
    left, right = numbers(6, 2, seed=1), numbers(6, 3, seed=2)
    opened = model(nodes, {"left": left, "right": right})
    z = X["dense"] @ np.concatenate([left, right], axis=1)
    for kept in ([0, 2], [1, 3, 4]):
        result = run(cut(opened, kept), {"x": X["dense"]})["y"]
        np.testing.assert_allclose(result, softmax(z[:, kept]), atol=1e-5)
    with pytest.raises(ModelError, match="Concat 'join' would be left with a part"):
        cut(opened, [2, 3])


def test_other_outputs_that_do_not_show_the_units_stay_bit_identical() -> None:
    nodes, constants, shape = head("dense")
    nodes += [
        node("Softmax", ["z"], ["y"], "softmax"),
        node("MatMul", ["x", "other"], ["e"], "embedding"),
        node("Tanh", ["z"], ["t"], "tanh"),
    ]
    constants["other"] = numbers(6, 4)
    opened = model(nodes, constants, x=shape, outputs={"y": None, "e": None, "t": None})
    traced = trace(opened.graph()).head("y")
    result = opened.apply(plan_of(traced, KEPT))
    before, after = run(opened, {"x": X["dense"]}), run(result, {"x": X["dense"]})
    assert traced.other_outputs == ("t",)
    np.testing.assert_array_equal(after["e"], before["e"])
    np.testing.assert_array_equal(after["t"], before["t"][:, KEPT])


def plan_of(traced: Any, kept: Sequence[int]) -> Any:
    return Plan(MODES["slice"].edits(traced, kept))


# --- kernels that come through other nodes ------------------------------------------------------


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


@pytest.mark.parametrize("mode", ["slice", "zero"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_through_other_nodes(name: str, mode: str) -> None:
    nodes, constants, kernel = KERNELS[name]
    opened = model(nodes, constants, x=INPUT["dense"])
    y = X["dense"] @ kernel
    np.testing.assert_allclose(run(opened, {"x": X["dense"]})["y"], y, atol=1e-5)
    result = run(cut(opened, KEPT, mode), {"x": X["dense"]})["y"]
    if mode == "zero":
        assert not result[:, [1, 3]].any()
        result = result[:, KEPT]
    np.testing.assert_allclose(result, y[:, KEPT], atol=1e-5)


def test_einsum_with_axes_behind_the_channels() -> None:
    x, kernel = numbers(2, 6, 4), numbers(5, 6)
    einsum = node("Einsum", ["x", "k"], ["y"], "head", equation="bi...,oi->bo...")
    opened = model([einsum], {"k": kernel}, x=x.shape)
    result = run(cut(opened, KEPT), {"x": x})["y"]
    np.testing.assert_allclose(result, np.einsum("bit,oi->bot", x, kernel[KEPT]), atol=1e-5)


@pytest.mark.parametrize(("value", "possible"), [(0.0, True), (0.25, False)])
def test_a_kernel_that_is_stated_as_a_shape(value: float, *, possible: bool) -> None:
    fill = node(
        "ConstantOfShape",
        ["s"],
        ["k"],
        "fill",
        value=numpy_helper.from_array(np.array([value], np.float32)),
    )
    nodes = [fill, node("Gemm", ["x", "k", "b"], ["y"], "head")]
    opened = model(nodes, {"s": ints(6, 5), "b": BIAS}, x=INPUT["dense"])
    x = X["dense"]
    expected = value * x.sum(1, keepdims=True) + BIAS[KEPT]
    np.testing.assert_allclose(run(cut(opened, KEPT), {"x": x})["y"], expected, atol=1e-5)
    if possible:
        result = run(cut(opened, KEPT, "zero"), {"x": x})["y"]
        assert not result[:, [1, 3]].any()
    else:
        with pytest.raises(ModelError, match="ConstantOfShape 'fill' does not map 0 to 0"):
            cut(opened, KEPT, "zero")


def test_transposed_convolution() -> None:
    x, kernel = numbers(2, 6, 3), numbers(6, 5, 1)
    opened = model(
        [node("ConvTranspose", ["x", "k", "b"], ["y"], "head")], {"k": kernel, "b": BIAS}, x=x.shape
    )
    expected = np.einsum("bit,io->bot", x, kernel[:, KEPT, 0]) + BIAS[KEPT, None]
    np.testing.assert_allclose(run(cut(opened, KEPT), {"x": x})["y"], expected, atol=1e-5)


# --- the table ------------------------------------------------------------------------------------


def operators_tested() -> dict[str, set[str]]:
    """Operator -> the modules whose tables hold a graph with it that is cut and run."""
    tables: dict[str, list[Sequence[NodeProto]]] = {
        "test_onnx_table": [
            *(c.nodes for c in test_table.BEHIND),
            *(nodes for nodes, *_ in test_table.HEADS.values()),
        ],
        "test_onnx_rows": [*(c.nodes for c in BEHIND), *(nodes for nodes, *_ in KERNELS.values())],
        "test_onnx_codes": [nodes for nodes, *_ in test_quantized_values.KERNELS.values()],
        "test_onnx_integers": [
            *(nodes for nodes, _ in test_integers.FORMS_OF_CODES.values()),
            [node("ConvInteger", [], [])],  # in `onnx_precisions`
        ],
        "test_onnx_ranks": [nodes for nodes, *_ in test_rankings.RANKED.values()],
        "onnx_suppression": [
            list(build().graph.node)
            for build in (
                onnx_suppression.ssd,
                onnx_suppression.end_to_end,
                onnx_suppression.moved_apart,
            )
        ],
    }
    found: dict[str, set[str]] = {
        "ConstantOfShape": {"test_onnx_rows"},
        "ConvTranspose": {"test_onnx_rows"},
        "Gather": {"test_onnx_table"},
    }
    for module, table in tables.items():
        for nodes in table:
            for each in nodes:
                found.setdefault(each.op_type, set()).add(module)
    return found


def test_every_row_of_the_table_is_tested() -> None:
    assert set(TABLE) <= set(operators_tested())
