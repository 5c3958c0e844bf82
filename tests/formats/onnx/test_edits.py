"""Every edit on ONNX models; the source is not changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx import OnnxModel
from exporter.formats.onnx.protos import numpy_dtype
from exporter.graph import Array, Use
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Edit,
    Fill,
    Insert,
    Plan,
    Replace,
    SetAttribute,
    SetShape,
    Take,
)
from tests.builders.onnx_models import classifier, cut, model, node, numbers, run, softmax

X = numbers(3, 6, seed=1)
K, B = numbers(6, 5), numbers(5)
Z = X @ K + B
KERNEL, BIAS = (Use("gemm", 1),), (Use("gemm", 2),)
TWO = np.array([3, 1])


def edited(opened: OnnxModel, *edits: Edit) -> OnnxModel:
    """The result, after a check that the source has not changed."""
    before = opened.to_bytes()
    result = opened.apply(Plan(edits))
    assert opened.to_bytes() == before
    assert opened.apply(Plan(edits)).to_bytes() == result.to_bytes()
    return result


def initializers(opened: OnnxModel) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in opened.proto.graph.initializer}


# --- refused --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Refused:
    id: str
    edit: Edit
    message: str


REFUSED = [
    Refused("no such node", Take("kernel", 1, TWO, (Use("other", 1),)), "'other'"),
    Refused("no such input", Take("kernel", 1, TWO, (Use("gemm", 7),)), "input 7 of 'gemm'"),
    Refused("not a constant", Take("x", 1, TWO, (Use("gemm", 0),)), "'x' is not a constant"),
    Refused("attribute of no node", SetAttribute("other", "axis", 1), "no node named 'other'"),
    Refused("attribute of another type", SetAttribute("softmax", "axis", "last"), "cannot be"),
    Refused("shape of nothing", SetShape("other", (1,)), "'other' is not known"),
    Refused("input that exists", AddInput("z", (5,), "float32"), "'z'"),
    Refused("input of no type", AddInput("gate", (5,), "float24"), "float24"),
    Refused("output of nothing", AddOutput("other", "other"), "'other'"),
    Refused("output that exists", AddOutput("z", "y"), "output named 'y'"),
    Refused("output named as a tensor", AddOutput("y", "z"), "'z'"),
    Refused("unknown operation", Insert("fourier", "z"), "'fourier'"),
    Refused("too few operands", Insert("add", "z"), "0 operands"),
    Refused("too many operands", Insert("sigmoid", "z", (B,)), "1 operands"),
    Refused("missing attribute", Insert("gather", "z", (TWO,)), "needs the attribute 'axis'"),
    Refused("foreign attribute", Insert("relu", "z", (), {"axis": 1}), "has no attribute 'axis'"),
    Refused("after a missing tensor", Insert("relu", "other"), "'other'"),
    Refused("a circle", Insert("add", "z", ("y",)), "reads a tensor that depends on its output"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_refused(case: Refused) -> None:
    opened = classifier()
    before = opened.to_bytes()
    with pytest.raises(ModelError, match=case.message):
        opened.apply(Plan((case.edit,)))
    assert opened.to_bytes() == before


def test_integers_are_not_rounded() -> None:
    reshape = node("Reshape", ["z", "to"], ["y"], "reshape")
    opened = classifier(reshape, constants={"to": np.array([-1, 5])})
    for edit in (
        Replace("to", np.array([-1.0, 2.5]), (Use("reshape", 1),)),
        Fill("to", 0, np.array([1]), 2.5, (Use("reshape", 1),)),
    ):
        with pytest.raises(ModelError, match="'to' is int64 and cannot hold"):
            opened.apply(Plan((edit,)))


# --- constants ------------------------------------------------------------------------------------


def test_take() -> None:
    take = (Take("kernel", 1, TWO, KERNEL), Take("bias", 0, TWO, BIAS), SetShape("y", (None, 2)))
    result = edited(classifier(), *take)
    assert {n: v.shape for n, v in initializers(result).items()} == {"kernel": (6, 2), "bias": (2,)}
    np.testing.assert_allclose(run(result, {"x": X})["y"], softmax(Z[:, TWO]), atol=1e-6)


def test_take_twice_along_two_axes() -> None:
    matmul = node("MatMul", ["x", "k"], ["y"], "matmul")
    other = node("MatMul", ["x", "k"], ["w"], "other")
    opened = model([matmul, other], {"k": K}, x=(3, 6), outputs={"y": None, "w": None})
    uses = (Use("matmul", 1),)
    result = edited(opened, Take("k", 1, TWO, uses), Take("k", 0, np.arange(4), uses))
    copy = result.proto.graph.node[0].input[1]
    np.testing.assert_array_equal(initializers(result)[copy], K[:4, TWO])
    np.testing.assert_array_equal(initializers(result)["k"], K)


def test_fill() -> None:
    fill = (Fill("kernel", 1, TWO, 0.0, KERNEL), Fill("bias", 0, TWO, -2.0, BIAS))
    result = run(
        edited(classifier(node("Relu", ["z"], ["y"])), *fill, AddOutput("z", "z")), {"x": X}
    )
    np.testing.assert_array_equal(result["z"][:, TWO], np.float32(-2))
    np.testing.assert_allclose(result["z"][:, [0, 2, 4]], Z[:, [0, 2, 4]], atol=1e-6)


def test_replace() -> None:
    result = edited(classifier(), Replace("bias", np.arange(5.0), BIAS))
    assert initializers(result)["bias"].dtype == np.float32
    np.testing.assert_allclose(run(result, {"x": X})["y"], softmax(X @ K + np.arange(5)), atol=1e-6)


TYPES = ["float16", "bfloat16", "float64", "int8", "uint8", "int4", "uint4", "int32", "bool"]


@pytest.mark.parametrize("dtype", TYPES)
def test_constants_of_every_type(dtype: str) -> None:
    values = np.arange(7).reshape(7, 1).astype(numpy_dtype(dtype))
    cast = node("Cast", ["k"], ["c"], "cast", to=TensorProto.FLOAT)
    add = node("Add", ["c", "x"], ["y"], "add")
    opened = model([cast, add], {"k": values}, x=(1, 1), opset=21, ir=10)
    positions, use = np.array([6, 1, 3]), (Use("cast", 0),)
    result = edited(opened, Take("k", 0, positions, use), Fill("k", 0, np.array([1]), 0.0, use))
    expected = values[positions].copy()
    expected[1] = 0
    (read,) = (t.read for t in result.graph().tensors.values() if t.name == "k" and t.read)
    assert read().dtype == values.dtype
    np.testing.assert_array_equal(read().astype(np.float32), expected.astype(np.float32))


def two_gemms(**options: Any) -> OnnxModel:
    """The head and another node read the same kernel and bias."""
    head = node("Gemm", ["x", "k", "b"], ["z"], "head")
    second = node("Gemm", ["x", "k", "b"], ["w"], "second")
    softmax_ = node("Softmax", ["z"], ["y"], "softmax", axis=1)
    outputs = {"y": None, "w": None}
    return model([head, second, softmax_], {"k": K, "b": B}, outputs=outputs, **options)


@pytest.mark.parametrize("ir", [3, 8])
def test_shared_constant_is_copied_for_some_uses(ir: int) -> None:
    opened = two_gemms(ir=ir, opset=9 if ir == 3 else 17)
    uses = (Use("head", 1),), (Use("head", 2),)
    takes = [Take(n, a, TWO, u) for n, a, u in zip("kb", (1, 0), uses, strict=True)]
    result = edited(opened, *takes, SetShape("y", (None, 2)))
    assert {n: v.shape for n, v in initializers(result).items()} == {
        "k": (6, 5),
        "b": (5,),
        "k__1": (6, 2),
        "b__1": (2,),
    }
    found = run(result, {"x": X})
    np.testing.assert_allclose(found["y"], softmax(Z[:, TWO]), atol=1e-6)
    np.testing.assert_array_equal(found["w"], run(opened, {"x": X})["w"])
    assert result.graph().inputs == ("x",)


@pytest.mark.parametrize("ir", [3, 8])
def test_shared_constant_is_cut_once_for_all_uses(ir: int) -> None:
    opened = two_gemms(ir=ir, opset=9 if ir == 3 else 17)
    both = [(Use("head", slot), Use("second", slot)) for slot in (1, 2)]
    takes = [Take(n, a, TWO, u) for n, a, u in zip("kb", (1, 0), both, strict=True)]
    result = edited(opened, *takes, SetShape("y", (None, 2)), SetShape("w", (None, 2)))
    assert {n: v.shape for n, v in initializers(result).items()} == {"k": (6, 2), "b": (2,)}
    np.testing.assert_allclose(run(result, {"x": X})["w"], Z[:, TWO], atol=1e-5)


def test_separate_edits_of_one_shared_constant() -> None:
    shapes = [
        node("Reshape", ["z", "to"], ["a"], "first"),
        node("Reshape", ["a", "to"], ["y"], "second"),
    ]
    opened = classifier(*shapes, constants={"to": np.array([-1, 5])})
    result = edited(
        opened,
        Replace("to", np.array([-1, 1, 5]), (Use("first", 1),)),
        Replace("to", np.array([5, -1]), (Use("second", 1),)),
        SetShape("y", (5, None)),
    )
    np.testing.assert_allclose(run(result, {"x": X})["y"], Z.reshape(5, -1), atol=1e-5)
    assert len(initializers(result)) == 4


def test_constant_read_in_a_branch_is_not_cut_there() -> None:
    info = helper.make_tensor_value_info("s", TensorProto.FLOAT, [5])
    branch = helper.make_graph([node("Neg", ["bias"], ["s"])], "branch", [], [info])
    choice = node("If", ["yes"], ["other"], "choice", then_branch=branch, else_branch=branch)
    softmax_ = node("Softmax", ["z"], ["y"], "softmax", axis=1)
    opened = classifier(
        softmax_, choice, constants={"yes": np.array(True)}, outputs={"y": None, "other": [5]}
    )
    found = run(cut(opened, TWO.tolist()), {"x": X})
    np.testing.assert_allclose(found["y"], softmax(Z[:, TWO]), atol=1e-6)
    np.testing.assert_array_equal(found["other"], -B)


def test_constant_that_is_an_output_is_not_cut() -> None:
    opened = classifier(node("Relu", ["z"], ["y"], "relu"), outputs={"y": None, "bias": [5]})
    found = run(cut(opened, TWO.tolist()), {"x": X})
    np.testing.assert_allclose(found["y"], np.maximum(Z[:, TWO], 0), atol=1e-5)
    np.testing.assert_array_equal(found["bias"], B)


HELD: dict[str, Any] = {
    "value": numpy_helper.from_array(B, "inner"),
    "value_floats": B.tolist(),
}


@pytest.mark.parametrize("attribute", HELD)
def test_constant_node_is_cut_in_place(attribute: str) -> None:
    nodes = [
        node("Constant", [], ["b"], "held", **{attribute: HELD[attribute]}),
        node("Gemm", ["x", "k", "b"], ["y"], "gemm"),
    ]
    result = cut(model(nodes, {"k": K}), TWO.tolist())
    assert [n.op_type for n in result.proto.graph.node] == ["Constant", "Gemm"]
    np.testing.assert_allclose(run(result, {"x": X})["y"], Z[:, TWO], atol=1e-5)


# --- shapes and attributes ------------------------------------------------------------------------


def test_set_shape_keeps_the_names_of_dimensions() -> None:
    opened = classifier()
    stated = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 5])
    opened.proto.graph.value_info.append(stated)
    shapes = SetShape("y", (None, 2)), SetShape("z", (None, 2))
    graph = opened.apply(Plan(shapes)).proto.graph
    for info in (graph.output[0], graph.value_info[0]):
        batch, width = info.type.tensor_type.shape.dim
        assert (batch.dim_param, width.dim_value) == ("batch", 2)


def test_set_shape_frees_a_dimension_and_states_a_rank() -> None:
    opened = classifier(x=(3, 6))
    batch = edited(opened, SetShape("y", (None, 5))).proto.graph.output[0].type.tensor_type.shape
    assert not batch.dim[0].HasField("dim_value")
    opened.proto.graph.output[0].type.tensor_type.ClearField("shape")
    graph = edited(opened, SetShape("y", (3, 5))).proto.graph
    assert [d.dim_value for d in graph.output[0].type.tensor_type.shape.dim] == [3, 5]


def test_set_attribute() -> None:
    opened = classifier(node("LeakyRelu", ["z"], ["y"], "leaky", alpha=0.5), x=(3, 6))
    result = edited(opened, SetAttribute("leaky", "alpha", 0.25))
    expected = np.where(Z > 0, Z, Z * 0.25)
    np.testing.assert_allclose(run(result, {"x": X})["y"], expected, atol=1e-6)


def test_set_an_absent_attribute() -> None:
    result = edited(
        classifier(node("Softmax", ["z"], ["y"], "last")), SetAttribute("last", "axis", 0)
    )
    np.testing.assert_allclose(run(result, {"x": X})["y"], softmax(Z, axis=0), atol=1e-6)


# --- inputs and outputs ---------------------------------------------------------------------------


def test_input_with_a_default() -> None:
    gate = np.array([1, 0, 1, 0, 1], np.float32)
    result = edited(
        classifier(node("Identity", ["z"], ["y"], "last")),
        AddInput("gate", (5,), "float32", gate),
        Insert("mul", "z", ("gate",)),
    )
    np.testing.assert_allclose(run(result, {"x": X})["y"], Z * gate, atol=1e-5)
    np.testing.assert_allclose(
        run(result, {"x": X, "gate": 2 * gate})["y"], Z * 2 * gate, atol=1e-5
    )


def test_input_of_an_old_file_has_no_default() -> None:
    """A fed value would not replace the initializer, and the runtime rejects it."""
    gate = np.array([1, 0, 1, 0, 1], np.float32)
    opened = classifier(node("Identity", ["z"], ["y"], "last"), ir=3, opset=9)
    add = AddInput("gate", (5,), "float32", np.ones(5)), Insert("mul", "z", ("gate",))
    result = edited(opened, *add)
    np.testing.assert_allclose(run(result, {"x": X, "gate": gate})["y"], Z * gate, atol=1e-5)


def test_input_without_a_default() -> None:
    opened = classifier(node("Identity", ["z"], ["y"], "last"))
    edits = AddInput("gate", (None, 5), "float32"), Insert("mul", "z", ("gate",))
    result = edited(opened, *edits)
    assert result.graph().inputs == ("x", "gate")
    np.testing.assert_allclose(run(result, {"x": X, "gate": Z})["y"], Z * Z, atol=1e-4)


OUTPUTS = {
    "an inner tensor, under its name": ("z", "z", Z),
    "an inner tensor, under another": ("z", "logits", Z),
    "an output again": ("y", "again", softmax(Z)),
    "an input": ("x", "fed", X),
    "a constant": ("bias", "b", B),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_add_output(name: str) -> None:
    tensor, shown, expected = OUTPUTS[name]
    opened = classifier()
    result = edited(opened, AddOutput(tensor, shown))
    assert result.graph().outputs == ("y", shown)
    found = run(result, {"x": X})
    np.testing.assert_allclose(found[shown], expected, atol=1e-6)
    np.testing.assert_array_equal(found["y"], run(opened, {"x": X})["y"])


def test_added_output_has_the_edited_type() -> None:
    takes = (Take("kernel", 1, TWO, KERNEL), Take("bias", 0, TWO, BIAS))
    shapes = (SetShape("z", (None, 2)), SetShape("y", (None, 2)))
    result = edited(classifier(), *takes, *shapes, AddOutput("z", "z"))
    assert result.graph().shape("z") == (None, 2)
    np.testing.assert_allclose(run(result, {"x": X})["z"], Z[:, TWO], atol=1e-5)


# --- inserted operations --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inserted:
    operation: str
    operands: tuple[str | Array, ...]
    attributes: dict[str, Any]
    expected: Callable[[Array], Array]
    width: int | None = None  # where the shape changes
    since: int = 9


WHERE = np.array([True, False, True, True, False])
INSERTED = [
    Inserted("add", (B,), {}, lambda z: z + B),
    Inserted("sub", (B,), {}, lambda z: z - B),
    Inserted("mul", ("z",), {}, lambda z: z * z),
    Inserted("div", (B,), {}, lambda z: z / B),
    Inserted("maximum", (B,), {}, lambda z: np.maximum(z, B)),
    Inserted("minimum", (B,), {}, lambda z: np.minimum(z, B)),
    Inserted("where", (WHERE, B), {}, lambda z: np.where(WHERE, z, B)),
    Inserted("gather", (TWO,), {"axis": 1}, lambda z: z[:, TWO], 2),
    Inserted("concat", ("z",), {"axis": -1}, lambda z: np.concatenate([z, z], axis=1), 10),
    *(
        Inserted(
            "pad",
            (),
            {"axis": axis, "value": value},
            lambda z, value=value: np.pad(z, ((0, 0), (0, 1)), constant_values=value),  # type: ignore[misc] # bound now
            6,
            since=11,
        )
        for axis, value in ((1, -1e4), (-1, 0.0))
    ),
    Inserted("softmax", (), {}, softmax),
    Inserted("softmax", (), {"axis": 1}, softmax),
    Inserted("softmax", (), {"axis": 0}, lambda z: softmax(z, 0)),
    Inserted("log_softmax", (), {"axis": -2}, lambda z: np.log(softmax(z, 0))),
    Inserted("sigmoid", (), {}, lambda z: 1 / (1 + np.exp(-z))),
    Inserted("relu", (), {}, lambda z: np.maximum(z, 0)),
    Inserted("identity", (), {}, lambda z: z),
]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21])
@pytest.mark.parametrize("case", INSERTED, ids=lambda c: f"{c.operation} {c.attributes or ''}")
def test_insert(case: Inserted, opset: int) -> None:
    """After a tensor that a node reads and that is also an output."""
    last = node("Mul", ["z", "two"], ["y"], "last")
    constants = {"two": np.array(2, np.float32)}
    outputs = {"y": None, "z": None}
    opened = classifier(last, constants=constants, outputs=outputs, opset=opset)
    shape = None if case.width is None else (None, case.width)
    insert = Insert(case.operation, "z", case.operands, case.attributes, shape)
    if opset < case.since:
        with pytest.raises(ModelError, match=f"needs opset {case.since}, the model has {opset}"):
            opened.apply(Plan((insert,)))
        return
    follow = [] if shape is None else [SetShape("y", shape)]
    found = run(edited(opened, insert, *follow), {"x": X})
    assert list(found) == ["y", "z"]
    np.testing.assert_allclose(found["z"], case.expected(Z), atol=1e-5)
    np.testing.assert_allclose(found["y"], 2 * case.expected(Z), atol=1e-5)


@pytest.mark.parametrize("operation", ["greater", "less"])
def test_insert_a_comparison_and_a_cast(operation: str) -> None:
    result = edited(
        classifier(node("Identity", ["z"], ["w"], "inner"), node("Abs", ["w"], ["y"], "last")),
        Insert(operation, "w", (B,)),
        Insert("cast", "w", attributes={"dtype": "float32"}),
    )
    expected = Z > B if operation == "greater" else Z < B
    np.testing.assert_array_equal(run(result, {"x": X})["y"], expected.astype(np.float32))


def test_insert_after_an_input_that_a_branch_reads() -> None:
    info = helper.make_tensor_value_info("s", TensorProto.FLOAT, [3, 6])
    branch = helper.make_graph([node("Neg", ["x"], ["s"])], "branch", [], [info])
    choice = node("If", ["yes"], ["y"], "choice", then_branch=branch, else_branch=branch)
    opened = model([choice], {"yes": np.array(True)}, x=(3, 6), outputs={"y": [3, 6]})
    result = edited(opened, Insert("mul", "x", (np.array(3, np.float32),)))
    np.testing.assert_allclose(run(result, {"x": X})["y"], -3 * X, atol=1e-6)


def test_insert_after_a_constant() -> None:
    result = edited(classifier(node("Relu", ["z"], ["y"])), Insert("add", "bias", (B,)))
    np.testing.assert_allclose(run(result, {"x": X})["y"], np.maximum(Z + B, 0), atol=1e-5)


def test_insert_after_an_input_that_is_an_output_is_refused() -> None:
    relu = node("Relu", ["x"], ["y"])
    opened = model([relu], {}, x=(3, 6), outputs={"y": None, "x": None})
    with pytest.raises(ModelError, match="no node makes the output 'x'"):
        opened.apply(Plan((Insert("relu", "x"),)))


# --- the rest of the file -------------------------------------------------------------------------


def test_rest_of_the_file_is_kept() -> None:
    opened = two_gemms()
    source = opened.proto
    source.doc_string = "a model"
    source.metadata_props.add(key="author", value="tests")
    source.graph.initializer[0].doc_string = "the kernel"
    source.graph.node[0].doc_string = "the head"
    both = (Use("head", 1), Use("second", 1))
    result = edited(opened, Take("k", 0, np.arange(6), both), SetShape("y", (None, 5))).proto
    assert result == source
    assert result.SerializeToString(deterministic=True) == opened.to_bytes()


SCRIPT = """
import hashlib, sys
from tests.formats.onnx.test_edits import B, TWO, classifier, cut, node
from exporter.graph.edits import AddOutput, Insert, Plan
opened = classifier()
edits = Insert("gather", "z", (TWO,), {"axis": 1}), Insert("add", "bias", (B,)), AddOutput("z", "l")
print(hashlib.sha256(cut(opened, [1, 3]).apply(Plan(edits[1:])).to_bytes()).hexdigest())
print(hashlib.sha256(opened.apply(Plan(edits)).to_bytes()).hexdigest())
"""


def test_every_process_writes_the_same_bytes(project: Path) -> None:
    results = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=project,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(project)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(results) == 1
