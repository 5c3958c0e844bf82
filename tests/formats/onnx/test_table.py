"""Rows of the ONNX table: refused uses first, then cuts compared with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner

from exporter.errors import ModelError
from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.trace import trace
from tests.builders.onnx_heads import AFTER_HEAD, HEADS, C, Case, X, const, one
from tests.builders.onnx_models import classifier, cut, model, node, numbers, run

KEPT = [4, 0, 2]  # units in another order than in the file
Z = X @ numbers(6, 5) + numbers(5)


# --- refused --------------------------------------------------------------------------------------

REFUSED = [
    Case("no row", one("Hardmax"), lambda z, _: z),
    Case(
        "a softmax before opset 13 over two axes",
        (
            node("Reshape", ["z", "to"], ["r"], "reshape"),
            node("Softmax", ["r"], ["y"], "softmax", axis=1),
        ),
        lambda z, _: z,
        {"to": const(-1, 3, 5)},
        opset=11,
    ),
    Case(
        "squeeze that states no axes",
        (
            node("Unsqueeze", ["z", "axes"], ["u"], "unsqueeze"),
            node("Squeeze", ["u"], ["y"], "last"),
        ),
        lambda z, _: z,
        {"axes": const(1)},
    ),
    Case("a computed shape", (node("Shape", ["z"], ["s"]), *one("Reshape", "s")), lambda z, _: z),
    Case(
        "an empty tensor",
        one("Reshape", "to", allowzero=1),
        lambda z, _: z,
        {"to": const(0, 5)},
    ),
    Case(
        "computed bounds",
        (node("ReduceMax", ["z"], ["m"], keepdims=0), *one("Clip", "", "m")),
        lambda z, _: z,
    ),
    Case(
        "dropout in training",
        one("Dropout", "ratio", "training"),
        lambda z, _: z,
        {"ratio": np.array(0.5, np.float32), "training": np.array(True)},
    ),
    Case("chosen positions", one("Gather", "at", axis=1), lambda z, _: z, {"at": const(0, 1)}),
    Case(
        "batch normalization in training",
        (
            node(
                "BatchNormalization",
                ["z", "c", "c", "c", "c"],
                ["y", "m", "v"],
                "last",
                training_mode=1,
            ),
        ),
        lambda z, _: z,
        {"c": C},
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused_by_name(case: Case) -> None:
    opened = classifier(*case.nodes, constants=case.constants, opset=case.opset, x=X.shape)
    traced = trace(opened.graph())
    assert not traced.heads
    refusing = str(traced.refusals[0])
    assert any(repr(n.name) in refusing or "#" in refusing for n in case.nodes), refusing


KERNELS_REFUSED = {
    "computed kernel": (
        [node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["y"], "head")],
        {},
        "not a constant",
    ),
    "constant on the left": (
        [node("Transpose", ["x"], ["t"]), node("MatMul", ["k", "t"], ["y"], "head")],
        {"k": numbers(5, 6)},
        "not a constant",
    ),
    "stack of matrices": (
        [node("MatMul", ["x", "k"], ["y"], "head")],
        {"k": numbers(2, 6, 5)},
        "one matrix",
    ),
    "foreign domain": (
        [node("FusedMatMul", ["x", "k"], ["y"], "head", domain="own.kernels")],
        {"k": numbers(6, 5)},
        "own.kernels",
    ),
}


@pytest.mark.parametrize("name", KERNELS_REFUSED)
def test_kernels_without_a_head(name: str) -> None:
    nodes, constants, reason = KERNELS_REFUSED[name]
    outputs = {"y": [None, 5]}
    refusals = trace(model(nodes, constants, outputs=outputs).graph()).refusals
    assert reason in str(refusals[0])
    assert "'head'" in str(refusals[0])


def test_width_that_contradicts_the_kernel_is_not_used() -> None:
    """onnxruntime only warns of it, and returns what the kernel makes."""
    opened = classifier(node("Relu", ["z"], ["y"], "relu"), outputs={"y": [None, 7]})
    (head,) = trace(opened.graph()).heads
    assert head.units == 5


def test_grouped_convolution_is_refused() -> None:
    conv = node("Conv", ["x", "k"], ["y"], "head", group=2)
    opened = model([conv], {"k": numbers(6, 2, 1)}, x=["batch", 4, 1])
    assert "2 groups" in str(trace(opened.graph()).refusals[0])


def calling(domain: str, name: str, *inner: NodeProto) -> ModelProto:
    """A classifier that calls a function of the file."""
    made = classifier(node("Relu", ["z"], ["y"], "call"), outputs={"y": [None, 5]}).proto
    made.graph.node[-1].op_type, made.graph.node[-1].domain = name, domain
    opsets = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function(domain, name, ["a"], ["b"], [*inner], opsets))
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made


@pytest.mark.parametrize(
    ("domain", "name"), [("", "Neg"), ("ai.onnx", "Neg"), ("com.microsoft", "Gelu")]
)
def test_a_function_with_the_name_of_an_operator_is_refused(domain: str, name: str) -> None:
    """onnxruntime would run the operator; the trace and the proof would read the function."""
    with pytest.raises(ModelError, match=f"its function '{name}' has the name of an operator"):
        from_proto(calling(domain, name, node("Relu", ["a"], ["b"])), "net.onnx")


def test_calls_that_cannot_be_expanded_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = calling("own", "Mine", node("Relu", ["a"], ["b"]))
    monkeypatch.setattr(inliner, "inline_local_functions", lambda model, **_: model)
    with pytest.raises(ModelError, match="cannot be expanded: some calls are left"):
        from_proto(made, "net.onnx")


def test_unit_read_in_a_branch_is_refused() -> None:
    branch = helper.make_graph(
        [node("ReduceMax", ["z"], ["m"], keepdims=0)],
        "branch",
        [],
        [helper.make_tensor_value_info("m", TensorProto.FLOAT, None)],
    )
    chosen = node("If", ["yes"], ["other"], "choice", then_branch=branch, else_branch=branch)
    opened = classifier(
        node("Softmax", ["z"], ["y"], "softmax"),
        chosen,
        constants={"yes": np.array(True)},
        outputs={"y": None, "other": None},
    )
    refusals = {r.output: str(r) for r in trace(opened.graph()).refusals}
    assert "ReduceMax 'choice/then_branch/#0': it mixes the units" in refusals["y"]


# --- heads ----------------------------------------------------------------------------------------


def unit_axis(values: Array) -> int:
    return values.shape.index(5)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("fixed", [False, True], ids=["open batch", "fixed batch"])
def test_heads(name: str, *, fixed: bool) -> None:
    nodes, constants, x, y = HEADS[name]
    dims: list[int | None] = list(x.shape)
    if not fixed and "sample" not in name:
        dims[1 if "transposed input" in name else 0] = None
    opened = model(nodes, constants, x=dims)
    np.testing.assert_allclose(run(opened, {"x": x})["y"], y, atol=1e-5)
    expected = np.take(y, KEPT, axis=unit_axis(y))
    np.testing.assert_allclose(run(cut(opened, KEPT), {"x": x})["y"], expected, atol=1e-5)


SHARED_BIAS = {"gemm, one bias for all", "gemm, scalar bias", "gemm, a bias a sample"}


@pytest.mark.parametrize("name", sorted(SHARED_BIAS))
def test_zero_is_refused_if_all_units_share_a_bias(name: str) -> None:
    nodes, constants, x, _ = HEADS[name]
    with pytest.raises(ModelError, match="Gemm 'head' adds 'b' to all units"):
        cut(model(nodes, constants, x=x.shape), KEPT, "zero")


@pytest.mark.parametrize("name", [name for name in HEADS if name not in SHARED_BIAS])
def test_zero_is_exact(name: str) -> None:
    nodes, constants, x, y = HEADS[name]
    result = run(cut(model(nodes, constants, x=x.shape), KEPT, "zero"), {"x": x})["y"]
    axis = unit_axis(y)
    assert not np.take(result, [1, 3], axis=axis).any()
    kept = np.take(y, KEPT, axis=axis)
    np.testing.assert_allclose(np.take(result, KEPT, axis=axis), kept, atol=1e-5)


# --- after the head -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", AFTER_HEAD, ids=lambda case: case.id)
def test_operators_after_the_head(case: Case) -> None:
    opened = classifier(*case.nodes, constants=case.constants, opset=case.opset)
    every = np.arange(5)
    before = run(opened, {"x": X})["y"]
    np.testing.assert_allclose(before, case.expected(Z, every), atol=2e-5)
    for kept in (KEPT, [3], [0, 1, 2, 3, 4]):
        expected = case.expected(Z[:, kept], np.array(kept))
        result = run(cut(opened, kept), {"x": X})["y"]
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=2e-5)
    np.testing.assert_array_equal(run(opened, {"x": X})["y"], before)


def test_gather_looks_up_rows() -> None:
    lookup = node("Gather", ["table", "ids"], ["rows"], "lookup")
    ids = node("Cast", ["x"], ["ids"], "ids", to=TensorProto.INT64)
    head = node("MatMul", ["rows", "k"], ["y"], "head")
    opened = model([ids, lookup, head], {"table": numbers(9, 4), "k": numbers(4, 5)}, x=[None, 3])
    x = np.array([[0, 8, 2]], np.float32)
    expected = (numbers(9, 4)[[[0, 8, 2]]] @ numbers(4, 5))[..., KEPT]
    np.testing.assert_allclose(run(cut(opened, KEPT), {"x": x})["y"], expected, atol=1e-5)


# --- mode zero with operators between the kernel and z --------------------------------------------

ZERO = {
    "offset": (("Add", "c"), True),
    "subtracted from": (("Sub", "c"), True),
    "scale": (("Mul", "c"), True),
    "divisor": (("Div", "c"), True),
    "batch normalization": (("BatchNormalization", "c", "c", "c", "c"), True),
    "one offset for all units": (("Add", "one"), False),
}


@pytest.mark.parametrize("name", ZERO)
def test_zero_through_constants(name: str) -> None:
    (operator, *inputs), possible = ZERO[name]
    opened = classifier(
        node(operator, ["z", *inputs], ["w"], "between"),
        node("Sigmoid", ["w"], ["y"], "last"),
        constants={"c": C, "one": C[0]},
    )
    if not possible:
        with pytest.raises(ModelError, match="'between' adds 'one' to all units"):
            cut(opened, KEPT, "zero")
        return
    before, after = (run(m, {"x": X})["y"] for m in (opened, cut(opened, KEPT, "zero")))
    np.testing.assert_array_equal(after[:, [1, 3]], np.float32(0.5))
    np.testing.assert_array_equal(after[:, KEPT], before[:, KEPT])
