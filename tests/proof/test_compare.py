"""What two structures have in common, and where they differ first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.formats.onnx import from_proto
from exporter.formats.structure import End, Step, Structure
from exporter.formats.tflite import from_bytes
from exporter.proof import compare
from exporter.proof.compare import compare_structures, describe_values
from exporter.proof.explain import explain
from tests.builders import onnx_models as onnx
from tests.builders.rewriters import repacked
from tests.builders.tflite_builder import Builder

Change = Callable[[ModelProto], object]


def two_layers() -> ModelProto:
    """x -> Gemm -> Relu -> MatMul -> y; and "spare", a constant that nothing reads."""
    constants = {
        "k": onnx.numbers(6, 4),
        "b": onnx.numbers(4),
        "w": onnx.numbers(4, 3),
        "spare": onnx.numbers(2),
    }
    nodes = [
        onnx.node("Gemm", ["x", "k", "b"], ["h"], "first"),
        onnx.node("Relu", ["h"], ["r"], "relu"),
        onnx.node("MatMul", ["r", "w"], ["y"], "second"),
    ]
    return onnx.proto(nodes, constants)


def structure(model: ModelProto) -> Structure:
    return from_proto(model, "file").structure()


def differences(change: Change, build: Callable[[], ModelProto] = two_layers) -> list[str]:
    expected, found = build(), build()
    change(found)
    return [str(each) for each in compare_structures(structure(expected), structure(found))]


def node(model: ModelProto, name: str) -> NodeProto:
    found: NodeProto = next(each for each in model.graph.node if each.name == name)
    return found


def append(model: ModelProto, *made: NodeProto) -> None:
    model.graph.node.extend(made)


def remove_spare(model: ModelProto) -> None:
    del model.graph.initializer[3]


def as_constant_node(model: ModelProto) -> None:
    tensor = model.graph.initializer[2]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    del model.graph.initializer[2]


def set_default(model: ModelProto) -> None:
    node(model, "first").attribute.append(helper.make_attribute("alpha", 1.0))


def share_computation(model: ModelProto) -> None:
    """Compute the same tensor a second time, for one reader."""
    append(model, helper.make_node("Relu", ["h"], ["again"], "again"))
    node(model, "second").input[0] = "again"
    nodes = sorted(model.graph.node, key=lambda each: each.name == "second")
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def add_opset(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: None, id="nothing"),
        pytest.param(remove_spare, id="a constant that nothing reads is dropped"),
        pytest.param(as_constant_node, id="a Constant node instead of an initializer"),
        pytest.param(set_default, id="an attribute with its default"),
        pytest.param(share_computation, id="the same operation twice"),
        pytest.param(add_opset, id="an operator set that nothing uses"),
        pytest.param(lambda m: node(m, "relu").output.append(""), id="an absent output"),
        pytest.param(lambda m: setattr(m, "producer_name", "other"), id="the producer"),
    ],
)
def test_these_changes_make_no_difference(change: Change) -> None:
    assert differences(change) == []


def other_constant(model: ModelProto, index: int, values: Any) -> None:
    tensor = model.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))


def set_attribute(model: ModelProto, **values: Any) -> None:
    for name, value in values.items():
        node(model, "first").attribute.append(helper.make_attribute(name, value))


def computed(model: ModelProto) -> None:
    """The constant w becomes a computed tensor."""
    append(model, helper.make_node("Neg", ["w"], ["minus"], "minus"))
    node(model, "second").input[1] = "minus"
    nodes = sorted(model.graph.node, key=lambda each: each.name == "second")
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def dead_node(model: ModelProto) -> None:
    append(model, helper.make_node("Exp", ["x"], ["unread"], "dead"))


def dead_constant(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([7.0], np.float32), "payload"))


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        pytest.param(
            lambda m: other_constant(m, 1, onnx.numbers(4) + np.array([0, 0, 0.5, 0], np.float32)),
            ["the constant 'b' is", "at [2]: 1 of 4 values differ", "difference is 0.5"],
            id="one value",
        ),
        pytest.param(
            lambda m: other_constant(m, 2, onnx.numbers(4, 3).astype(np.float64)),
            ["the constant 'w' is float64 [4, 3], expected float32 [4, 3]"],
            id="type of a constant",
        ),
        pytest.param(
            lambda m: set_attribute(m, beta=0.5),
            ["beta of Gemm 'first' is 0.5, expected absent"],
            id="attribute",
        ),
        pytest.param(
            lambda m: setattr(node(m, "relu"), "op_type", "Abs"),
            ["Abs 'relu' computes the values of Relu 'relu'"],
            id="operation",
        ),
        pytest.param(
            lambda m: node(m, "second").input.__setitem__(0, "h"),
            [
                "input 0 of MatMul 'second' is the result of Gemm 'first'",
                "expected the result of Relu 'relu'",
            ],
            id="connection",
        ),
        pytest.param(
            lambda m: node(m, "first").input.pop(),
            ["Gemm 'first' has 2 inputs, expected 3"],
            id="number of inputs",
        ),
        pytest.param(
            lambda m: node(m, "first").input.__setitem__(2, ""),
            ["Gemm 'first' has 2 inputs, expected 3"],
            id="absent input",
        ),
        pytest.param(
            computed, ["the result of Neg 'minus' is read where the constant 'w'"], id="made"
        ),
        pytest.param(dead_node, ["Exp 'dead' is not expected; no output depends on it"], id="dead"),
        pytest.param(dead_constant, ["constant 'payload' is not expected"], id="payload"),
        pytest.param(
            lambda m: m.metadata_props.add(key="a", value="b" * 99),
            ["metadata 'a' is bbb", "..., expected absent"],
            id="metadata",
        ),
        pytest.param(
            lambda m: setattr(m.opset_import[0], "version", 16),
            ["the operator set 'ai.onnx' is 16, expected 17"],
            id="operator set",
        ),
        pytest.param(
            lambda m: m.graph.output[0].type.tensor_type.shape.dim.pop(),
            ["output 'y' has the shape [?], expected [?, 3]"],
            id="stated shape",
        ),
        pytest.param(
            lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"),
            ["output 'y' has the shape of unknown rank, expected [?, 3]"],
            id="no stated shape",
        ),
        pytest.param(
            lambda m: m.training_info.add(), ["training is", "expected absent"], id="training"
        ),
    ],
)
def test_each_difference_is_described(change: Change, facts: Sequence[str]) -> None:
    (found,) = differences(change)
    for fact in facts:
        assert fact in found


def state(*shape: int | None, dtype: int = TensorProto.FLOAT) -> Change:
    def change(model: ModelProto) -> None:
        model.graph.value_info.append(helper.make_tensor_value_info("h", dtype, shape))

    return change


def test_stated_types_of_inner_tensors_agree_where_both_are_known() -> None:
    def stating() -> ModelProto:
        made = two_layers()
        state(None, 4)(made)
        return made

    def other(change: Change) -> list[str]:
        found = two_layers()
        change(found)
        return [str(each) for each in compare_structures(structure(stating()), structure(found))]

    unknown_rank = helper.make_tensor_value_info("h", TensorProto.FLOAT, None)
    assert other(state(3, 4)) == []
    assert other(lambda m: m.graph.value_info.append(unknown_rank)) == []
    assert other(lambda _: None) == []
    assert other(state(None, 5)) == ["'h' is stated as float32 [?, 5], expected float32 [?, 4]"]
    assert other(state(4)) == ["'h' is stated as float32 [4], expected float32 [?, 4]"]
    double = state(None, 4, dtype=TensorProto.DOUBLE)
    assert other(double) == ["'h' is stated as float64 [?, 4], expected float32 [?, 4]"]


def halves() -> ModelProto:
    nodes = [
        onnx.node("Split", ["x"], ["a", "b"], "split", axis=1),
        onnx.node("Sub", ["a", "b"], ["y"], "sub"),
    ]
    return onnx.proto(nodes, {})


def test_outputs_of_one_operation_are_told_apart() -> None:
    swap: Change = lambda m: node(m, "sub").input.reverse()  # noqa: E731 - a short change
    assert differences(swap, halves) == ["the inputs of Sub 'sub' are swapped"]
    both: Change = lambda m: node(m, "sub").input.__setitem__(1, "a")  # noqa: E731 - likewise
    (found,) = differences(both, halves)
    split = "the result of Split 'split'"
    assert found == f"input 1 of Sub 'sub' is {split}, expected {split}"
    first = onnx.proto([onnx.node("Split", ["x"], ["y", "b"], "split", axis=1)], {})
    second = onnx.proto([onnx.node("Split", ["x"], ["a", "y"], "split", axis=1)], {})
    (text,) = compare_structures(structure(first), structure(second))
    assert str(text) == "output 1 of Split 'split' is read, not 0"


# --- branches, functions, defaults ----------------------------------------------------------------


def branches(*, kept: bool = False) -> ModelProto:
    """y = x * big if x.sum() > 0 else x + small; the branches read constants outside.

    Args:
        kept: a product follows, so that the If stays a node while the file is open.
    """
    then, other = (
        helper.make_graph(
            [
                helper.make_node(operator, ["x", name], [f"{name}_z"], name),
                helper.make_node("LeakyRelu", [f"{name}_z"], [f"{name}_y"], alpha=0.5),
            ],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
        )
        for operator, name in (("Mul", "big"), ("Add", "small"))
    )
    nodes = [
        onnx.node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
        onnx.node("Greater", ["s", "zero"], ["c"], "greater"),
        onnx.node("If", ["c"], ["r" if kept else "y"], "if", then_branch=then, else_branch=other),
        *([onnx.node("MatMul", ["r", "w"], ["y"], "last")] if kept else []),
    ]
    constants = {
        "zero": np.array(0.0, np.float32),
        "big": np.array(8.0, np.float32),
        "small": np.array(0.5, np.float32),
        **({"w": onnx.numbers(6, 6)} if kept else {}),
    }
    return onnx.proto(nodes, constants, outputs={"y": ("batch", 6)})


@pytest.mark.parametrize("kept", [False, True])
def test_branches_are_compared_with_the_constants_that_they_read(kept: bool) -> None:
    build = partial(branches, kept=kept)

    def inside(model: ModelProto) -> None:
        node(model, "if").attribute[0].g.node[0].op_type = "Div"

    (found,) = differences(inside, build)
    assert "computes the values of" in found
    assert ("_branch of If 'if'" if kept else "'if/else_branch/small'") in found
    (found,) = differences(lambda m: other_constant(m, 1, np.array(9.0, np.float32)), build)
    assert found.endswith("values differ; the largest difference is 1")
    assert differences(lambda _: None, build) == []


def test_branches_that_are_swapped_are_a_difference() -> None:
    def swap(model: ModelProto) -> None:
        first, second = node(model, "if").attribute
        first.name, second.name = second.name, first.name

    assert differences(swap, branches) == [
        "the inputs of exporter.branches.Choice 'if/0' are swapped"
    ]
    assert differences(swap, partial(branches, kept=True))


def with_function(offset: float = 1.0) -> ModelProto:
    function = helper.make_function(
        "local",
        "Shift",
        ["a"],
        ["b"],
        [
            helper.make_node("Constant", [], ["o"], value_float=offset),
            helper.make_node("Add", ["a", "o"], ["b"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    made = onnx.proto(
        [helper.make_node("Shift", ["x"], ["y"], "shift", domain="local")],
        {},
        outputs={"y": ("batch", 6)},
        domains={"local": 1},
    )
    made.functions.append(function)
    return made


@pytest.mark.parametrize("kept", [False, True])
def test_branches_in_branches_read_constants_outside(kept: bool) -> None:
    def nested() -> ModelProto:
        made = branches(kept=kept)
        outer = node(made, "if").attribute[0].g
        inner = type(outer).FromString(outer.SerializeToString())
        inner.node[1].output[0] = inner.output[0].name = "inner_y"
        inner.node[0].output[0] = inner.node[1].input[0] = "inner_z"
        other = type(inner).FromString(inner.SerializeToString())
        other.name = "other"
        other.node[1].output[0] = other.output[0].name = "other_y"
        outer.node[0].CopyFrom(
            helper.make_node(
                "If", ["c"], list(outer.node[0].output), then_branch=inner, else_branch=other
            )
        )
        return made

    assert differences(lambda _: None, nested) == []
    (found,) = differences(lambda m: other_constant(m, 1, np.array(9.0, np.float32)), nested)[:1]
    assert "is 9.0 instead of 8.0" in found


def test_equal_attributes_are_not_reported() -> None:
    def scaled() -> ModelProto:
        made = two_layers()
        set_attribute(made, alpha=0.5, beta=2.0)
        return made

    (found,) = differences(lambda m: other_constant(m, 1, np.zeros(4, np.float32)), scaled)
    assert "the constant 'b' is 0.0 instead of" in found


def test_functions_of_a_file_are_compared() -> None:
    expected = structure(with_function())
    assert compare_structures(expected, structure(with_function())) == []
    (found,) = compare_structures(expected, structure(with_function(2.0)))
    assert "is 2.0 instead of 1.0" in str(found)
    other = with_function()
    other.functions[0].node[1].op_type = "Sub"
    (found,) = compare_structures(expected, structure(other))
    assert "computes the values of Add" in str(found)
    nodes = [onnx.node("Add", ["x", "o"], ["y"], "add")]
    expanded = onnx.proto(nodes, {"o": np.array(1.0, np.float32)}, outputs={"y": ("batch", 6)})
    assert compare_structures(expected, structure(expanded)) == []
    del other.functions[:]
    (text,) = compare_structures(expected, structure(other))
    assert str(text).startswith("local.Shift 'shift' computes the values of Add")


def optional_input(value: float) -> ModelProto:
    made = onnx.proto(
        [onnx.node("Mul", ["x", "factor"], ["y"], "mul")], {"factor": np.array(value, np.float32)}
    )
    made.graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, []))
    return made


def test_optional_inputs_are_compared() -> None:
    expected = structure(optional_input(1.0))
    assert compare_structures(expected, structure(optional_input(1.0))) == []
    (found,) = compare_structures(expected, structure(optional_input(2.0)))
    assert str(found) == "optional input 'factor' has another default value"
    constant = optional_input(1.0)
    del constant.graph.input[1]
    texts = [str(each) for each in compare_structures(expected, structure(constant))]
    assert texts[0] == "the optional input 'factor' is missing"
    assert texts[1].startswith("the constant 'factor' is read where the tensor 'factor'")


def test_sparse_constants_are_compared() -> None:
    def build(value: float) -> ModelProto:
        values = numpy_helper.from_array(np.array([value], np.float32), "sparse")
        indices = numpy_helper.from_array(np.array([2], np.int64), "sparse_indices")
        made = onnx.proto(
            [onnx.node("Add", ["x", "sparse"], ["y"], "add")], {}, outputs={"y": (1, 6)}
        )
        made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [6]))
        return made

    assert compare_structures(structure(build(1.0)), structure(build(1.0))) == []
    (found,) = compare_structures(structure(build(1.0)), structure(build(2.0)))
    assert "the constant 'sparse' is 2.0 instead of 1.0" in str(found)


def test_tensors_in_attributes_are_compared() -> None:
    def build(value: float) -> ModelProto:
        fill = numpy_helper.from_array(np.array([value], np.float32))
        nodes = [
            onnx.node("Shape", ["x"], ["s"], "shape"),
            onnx.node("ConstantOfShape", ["s"], ["c"], "fill", value=fill),
            onnx.node("Clip", ["x", "low", "c"], ["y"], "clip"),
        ]
        return onnx.proto(nodes, {"low": np.array(0.0, np.float32)}, outputs={"y": ("batch", 6)})

    (found,) = compare_structures(structure(build(1.0)), structure(build(2.0)))
    assert "value of ConstantOfShape 'fill'" in str(found)
    assert "is 2.0 instead of 1.0 at [0]" in str(found)
    other = build(1.0)
    node(other, "shape").attribute.append(helper.make_attribute("start", 1))
    (found,) = compare_structures(structure(build(1.0)), structure(other))
    assert str(found) == "start of Shape 'shape' is 1, expected absent"
    other = build(1.0)
    node(other, "clip").input[1] = ""
    (found,) = compare_structures(structure(build(1.0)), structure(other))
    assert str(found) == "input 1 of Clip 'clip' is nothing, expected the constant 'low'"


def test_operations_without_outputs_are_compared_in_order() -> None:
    def build(*names: str) -> Structure:
        steps = tuple(Step(name, name, {}, (), ()) for name in names)
        return Structure((), (), steps, {})

    assert compare_structures(build("a", "b"), build("a", "b")) == []
    (found,) = compare_structures(build("a", "b"), build("b", "a"))
    assert "operations without outputs" in str(found)


def test_a_variable_is_read_before_or_after_it_is_written() -> None:
    def build(*order: str) -> Structure:
        made = {
            "read": Step("read", "READ_VARIABLE", {}, (), ("y",)),
            "write": Step("write", "ASSIGN_VARIABLE", {}, (), ()),
        }
        steps = tuple(made[name] for name in order)
        return Structure((), (End("y", "y", "float32", (1,)),), steps, {})

    assert compare_structures(build("read", "write"), build("read", "write")) == []
    assert compare_structures(build("read", "write"), build("write", "read"))


@pytest.mark.parametrize("kept", [False, True])
def test_an_optimizer_also_rewrites_branches(kept: bool) -> None:
    expected, found = branches(kept=kept), branches(kept=kept)
    graph = node(found, "if").attribute[0].g
    graph.node[0].op_type = "Relu"
    del graph.node[0].input[1]
    assert explain(structure(expected), structure(found)) == ""


def test_operations_that_return_their_input_do_not_count() -> None:
    def copied() -> ModelProto:
        made = two_layers()
        node(made, "relu").input[0] = "copy"
        made.graph.node.insert(1, onnx.node("Identity", ["h"], ["copy"], "copy"))
        return made

    assert compare_structures(structure(two_layers()), structure(copied())) == []
    (found,) = differences(lambda m: other_constant(m, 1, np.zeros(4, np.float32)), copied)
    assert "the constant 'b' is 0.0 instead of" in found


@pytest.mark.parametrize("kept", [False, True])
def test_shapes_that_branches_state_are_compared(kept: bool) -> None:
    def stated(length: int) -> Structure:
        made = branches(kept=kept)
        for attribute in node(made, "if").attribute:
            output = attribute.g.output[0]
            shaped = helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [length, 6])
            output.CopyFrom(shaped)
        return structure(made)

    assert compare_structures(stated(2), stated(2)) == []
    texts = [str(each) for each in compare_structures(stated(2), stated(4))]
    assert texts
    dtype = "" if kept else "float32 "
    stated_text = f"is stated as {dtype}[4, 6], expected {dtype}[2, 6]"
    assert all(stated_text in text for text in texts)


def test_large_arrays_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_AT_ONCE", 2)
    left = np.arange(7.0)
    text = describe_values(left, left + np.array([0, 0, 0, 1, 0, 0, 3]))
    assert text == (
        "is 4.0 instead of 3.0 at [3]: 2 of 7 values differ; the largest difference is 3"
    )


def test_values_are_described() -> None:
    words = np.array(["a", "b"], dtype=object), np.array(["a", "c"], dtype=object)
    assert describe_values(*words) == "is c instead of b at [1]: 1 of 2 values differ"
    scalar = np.array(1.0, np.float32), np.array(2.0, np.float32)
    text = describe_values(*map(np.asarray, scalar))
    assert text == "is 2.0 instead of 1.0: 1 of 1 values differ; the largest difference is 1"


# --- TFLite ---------------------------------------------------------------------------------------


def conditional(factor: float = 3.0, *, state: bool = False) -> bytes:
    """Subgraph 1 is called by an IF; with `state`, a tensor of the main graph is a variable."""
    builder = Builder(seed=2)
    x = builder.feed("x", 1, 4)
    builder.dense(x, 3, "y")
    if state:
        builder.tensor("state", (1, 3))
        builder.at("state").isVariable = True
    inner = schema.SubGraphT(tensors=[], operators=[], name="inner")
    inner.tensors.append(
        schema.TensorT(
            name="c",
            shape=np.array([1], np.int32),
            type=schema.TensorType.FLOAT32,
            buffer=builder.buffer(np.array([factor], np.float32)),
            hasRank=True,
        )
    )
    inner.inputs, inner.outputs = np.array([], np.int32), np.array([0], np.int32)
    builder.model.subgraphs.append(inner)
    return builder.content("y")


def test_other_subgraphs_are_compared() -> None:
    expected = from_bytes(conditional(), "a").structure()
    again = from_bytes(repacked(conditional()), "b").structure()
    assert compare_structures(expected, again) == []
    other = from_bytes(conditional(4.0), "b").structure()
    (found,) = compare_structures(expected, other)
    assert str(found).startswith("subgraph 1: the constant 'c' is 4.0 instead of 3.0")
    alone = replace(expected, bodies={})
    assert [str(each) for each in compare_structures(expected, alone)] == ["subgraph 1 is missing"]
    (found,) = compare_structures(alone, expected)
    assert str(found) == "subgraph 1 is not expected"


def test_types_and_quantization_of_results_are_compared() -> None:
    def build(scale: float, shape: tuple[int, ...] = (1, 3)) -> Structure:
        builder = Builder(seed=2)
        x = builder.quantize(builder.feed("x", 1, 4, dtype="int8"), 0.1, 0)
        builder.constant("k", np.ones((3, 4), np.int8))
        builder.quantize("k", [scale] * 3, [0] * 3)
        options = "FullyConnectedOptions"
        builder.op("FULLY_CONNECTED", [x, "k", ""], shape, "y", options, "int8", 4)
        builder.quantize("y", 0.5, 0)
        return from_bytes(builder.content("y"), "file").structure()

    assert compare_structures(build(0.25), build(0.25)) == []
    (found,) = compare_structures(build(0.25), build(0.125))
    assert "quantization scale of the constant 'k' is [0.125, 0.125" in str(found)
    texts = [str(each) for each in compare_structures(build(0.25), build(0.25, (1, 3, 1)))]
    assert "shape of the result of FULLY_CONNECTED 'y' is [1, 3, 1], expected [1, 3]" in texts


def test_bytes_that_no_tensor_reads_are_a_difference() -> None:
    def build(payload: bytes) -> Structure:
        builder = Builder(seed=2)
        builder.dense(builder.feed("x", 1, 4), 3, "y")
        if payload:
            builder.buffer(np.frombuffer(payload, np.uint8))
        return from_bytes(builder.content("y"), "file").structure()

    (found,) = compare_structures(build(b""), build(b"payload"))
    assert str(found).startswith("bytes that no tensor reads, 0 is ")
