"""Other operators in ONNX classifiers: refused uses first, then cuts compared with NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.table import REASONS, TABLE
from exporter.graph.edits import Plan
from exporter.modes import MODES
from exporter.trace import trace
from tests.builders import (
    onnx_heads,
    onnx_integer_operators,
    onnx_quantized_kernels,
    onnx_rankings,
    onnx_suppression,
)
from tests.builders.onnx_models import Dims, cut, model, node, numbers, run, softmax
from tests.builders.onnx_operators import (
    AFTER_HEAD,
    BIAS,
    CHAINS,
    COPIED,
    INPUT,
    KERNEL,
    KERNELS,
    ROUND_DOWN,
    Case,
    build,
    floats,
    head,
    ints,
    last,
    through,
)

KEPT = [4, 0, 2]
X = {base: numbers(*shape, seed=1) for base, shape in INPUT.items()}
Z = {
    "dense": X["dense"] @ KERNEL + BIAS,
    "rows": X["rows"] @ KERNEL + BIAS,
    "map": np.einsum("bihw,io->bohw", X["map"], KERNEL) + BIAS[:, None, None],
}
AXIS = {"dense": 1, "rows": 2, "map": 1}


RUNNING = (  # a number that is computed while the model runs
    node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
    node("Cast", ["s"], ["i"], "int", to=TensorProto.INT64),
    node("Reshape", ["i", "one"], ["n"], "vector"),
)
ONE = {"one": ints(1)}

# --- refused --------------------------------------------------------------------------------------

TURNED = (  # the number of units becomes a height
    node("Shape", ["z"], ["shape"], "last"),
    node("Slice", ["shape", "one", "both", "none"], ["units"], "first two"),
    node("Concat", ["lengths", "units", "width"], ["sizes"], "sizes", axis=0),
    node("Resize", ["z", "", "", "sizes"], ["y"], "resize", **ROUND_DOWN),
)

REFUSED = [
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
    """Probabilities are an output too, so that another consumer of the logits refuses the cut."""
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
    "the constant is summed completely": ("bi,i->b", ["x", "k"], {"k": numbers(6)}),
}


@pytest.mark.parametrize("name", EINSUMS_REFUSED)
def test_einsums_without_a_head(name: str) -> None:
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
def test_unsupported_quantization_is_refused_by_name(
    operator: str, domain: str, inputs: int, reason: str
) -> None:
    names = ["x", *(f"c{i}" for i in range(1, inputs))]
    odd = node(operator, names, ["y"], "head", domain=domain)
    constants = {name: numbers(6, 5) for name in names[1:]}
    opened = model([odd], constants, outputs={"y": [None, 5]})
    (refusal,) = trace(opened.graph()).refusals
    assert refusal.operation == f"{operator} 'head'"
    assert reason in refusal.reason


def test_reasons_are_for_operators_without_a_row() -> None:
    assert not set(REASONS) & set(TABLE)


# --- subgraphs ------------------------------------------------------------------------------------


def branch(*nodes: NodeProto, out: str = "inner", shape: Dims = ("batch", 5)) -> Any:
    info = helper.make_tensor_value_info(out, TensorProto.FLOAT, list(shape))
    return helper.make_graph(list(nodes), "branch", [], [info])


def test_loop_after_the_head_is_refused_by_name() -> None:
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


def test_subgraphs_and_functions_elsewhere_are_kept() -> None:
    """A branch in the body of the network, and a function of the file before another output."""
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


# --- after the head -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", AFTER_HEAD, ids=lambda case: case.id)
def test_operators_after_the_head(case: Case) -> None:
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
def test_copied_batch_size_stays_dynamic(case: Case) -> None:
    _, *shape = case.expected(Z["dense"], np.arange(5)).shape
    opened = build(case, fixed=False, outputs={"y": ["batch", *shape]})
    result = cut(opened, KEPT)
    for batch in (1, 3):
        x = X["dense"][:batch]
        expected = case.expected(Z["dense"][:batch, KEPT], np.array(KEPT))
        np.testing.assert_allclose(run(result, {"x": x})["y"], expected, atol=1e-5)


def test_concatenated_linear_operations() -> None:
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
    with pytest.raises(ModelError, match="Concat 'join' would get an empty part"):
        cut(opened, [2, 3])


def test_other_outputs_are_bit_identical() -> None:
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


# --- kernels through other nodes ------------------------------------------------------------------


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


def test_einsum_with_axes_after_the_channels() -> None:
    x, kernel = numbers(2, 6, 4), numbers(5, 6)
    einsum = node("Einsum", ["x", "k"], ["y"], "head", equation="bi...,oi->bo...")
    opened = model([einsum], {"k": kernel}, x=x.shape)
    result = run(cut(opened, KEPT), {"x": x})["y"]
    np.testing.assert_allclose(result, np.einsum("bit,oi->bot", x, kernel[KEPT]), atol=1e-5)


@pytest.mark.parametrize(("value", "possible"), [(0.0, True), (0.25, False)])
def test_kernel_made_by_constant_of_shape(value: float, *, possible: bool) -> None:
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
    """Operator -> the modules with a table of graphs that contain it and are cut and run."""
    tables: dict[str, list[Sequence[NodeProto]]] = {
        "test_onnx_table": [
            *(c.nodes for c in onnx_heads.AFTER_HEAD),
            *(nodes for nodes, *_ in onnx_heads.HEADS.values()),
        ],
        "test_onnx_rows": [
            *(c.nodes for c in AFTER_HEAD),
            *(nodes for nodes, *_ in KERNELS.values()),
        ],
        "test_onnx_codes": [nodes for nodes, *_ in onnx_quantized_kernels.KERNELS.values()],
        "test_onnx_integers": [
            *(nodes for nodes, _ in onnx_integer_operators.FORMS_OF_CODES.values()),
            [node("ConvInteger", [], [])],  # in `onnx_precisions`
        ],
        "test_onnx_ranks": [nodes for nodes, *_ in onnx_rankings.RANKED.values()],
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
