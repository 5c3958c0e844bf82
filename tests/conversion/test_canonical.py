"""Converted ONNX graphs: one form for equal models, and only standard operators."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.conversion.canonical import canonicalize
from exporter.conversion.check_onnx import check_standard
from exporter.errors import ConversionError
from exporter.formats.onnx.protos import all_nodes

NAMES = {"input_0": "features", "Identity:0": "scores"}


def model_of(nodes: list[NodeProto], tensors: Mapping[str, object], opset: int = 17) -> ModelProto:
    values = [helper.make_tensor_value_info("input_0", TensorProto.FLOAT, ["unk__7", 3])]
    results = [helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, ["n", "m"])]
    constants = [numpy_helper.from_array(np.asarray(v), name) for name, v in tensors.items()]
    graph = helper.make_graph(nodes, "tf2onnx", values, results, constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    model.doc_string = "written today"
    return model


def two_branches(prefix: str, seed: int) -> ModelProto:
    """relu(x @ k + b) + tanh(x @ k), with nodes, constants and names in any order."""
    nodes = [
        helper.make_node("MatMul", ["input_0", "k"], [f"{prefix}m"], doc_string=prefix),
        helper.make_node("Add", [f"{prefix}m", "b"], [f"{prefix}a"], name=f"{prefix}7"),
        helper.make_node("Relu", [f"{prefix}a"], [f"{prefix}r"], domain="ai.onnx"),
        helper.make_node("Tanh", [f"{prefix}m"], [f"{prefix}t"]),
        helper.make_node("Add", [f"{prefix}r", f"{prefix}t"], [f"{prefix}out"]),
        helper.make_node("Identity", [f"{prefix}out"], ["Identity:0"]),
        helper.make_node("Neg", [f"{prefix}m"], [f"{prefix}unused"]),
    ]
    constants = {
        "k": np.arange(12, dtype=np.float32).reshape(3, 4) - 5,
        "b": np.array([1, -2, 3, -4], np.float32),
        "unused": np.zeros(9, np.float32),
    }
    shuffled = list(constants)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, no secret
    if seed % 2:
        nodes = [nodes[0], nodes[3], nodes[6], nodes[1], nodes[2], nodes[4], nodes[5]]
    return model_of(nodes, {name: constants[name] for name in shuffled})


def canonical(model: ModelProto) -> ModelProto:
    canonicalize(model, NAMES)
    return model


def test_order_and_names_do_not_change_the_result() -> None:
    contents = {
        canonical(two_branches(prefix, seed)).SerializeToString(deterministic=True)
        for prefix, seed in [("a", 0), ("zz", 1), ("unk__", 2), ("q", 3), ("", 4)]
    }
    assert len(contents) == 1


def test_outputs_do_not_change() -> None:
    values = {"input_0": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}
    before = run(two_branches("a", 0), values)
    after = run(canonical(two_branches("a", 0)), {"features": values["input_0"]})
    np.testing.assert_array_equal(before, after)


def run(model: ModelProto, values: Mapping[str, object]) -> object:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, values)[0]


def test_canonical_parts() -> None:
    model = canonical(two_branches("a", 1))
    onnx.checker.check_model(model, full_check=True)
    graph = model.graph
    assert [info.name for info in (*graph.input, *graph.output)] == ["features", "scores"]
    assert [tensor.name for tensor in graph.initializer] == ["constant_0", "constant_1"]
    assert [node.name for node in graph.node] == ["MatMul_0", "Add_0", "Relu_0", "Tanh_0", "Add_1"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert not model.doc_string
    assert not any(node.doc_string or node.domain for node in graph.node)


def test_an_inner_tensor_with_the_name_of_an_output_is_renamed() -> None:
    nodes = [
        helper.make_node("Neg", ["input_0"], ["scores"]),
        helper.make_node("Abs", ["scores"], ["Identity:0"]),
    ]
    graph = canonical(model_of(nodes, {})).graph
    assert [list(node.output) for node in graph.node] == [["Neg_0:0"], ["scores"]]


def loop(swapped: bool) -> ModelProto:
    """A loop with a body that returns one value twice, with an Identity in either direction."""
    first, second = ("v", "w") if swapped else ("w", "v")
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Add", ["state", "outer"], [first]),
            helper.make_node("Identity", [first], [second]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [f"unk__{swapped}", 3]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [f"unk__{swapped}", 3]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [None, 3]),
        ],
    )
    nodes = [
        helper.make_node("Abs", ["input_0"], ["abs"]),
        helper.make_node("Identity", ["abs"], ["outer"]),
        helper.make_node("Loop", ["steps", "", "outer"], ["last", "all"], body=body),
        helper.make_node("ReduceSum", ["all", "axis"], ["sum"], keepdims=0),
        helper.make_node("Add", ["last", "sum"], ["Identity:0"]),
    ]
    return model_of(nodes, {"steps": np.int64(3), "axis": np.array([0], np.int64)})


def test_bodies_are_canonical_too() -> None:
    values = np.array([[1.0, -2.0, 3.0]], np.float32)
    expected = 4 * abs(values) + (2 + 3 + 4) * abs(values)
    contents = set()
    for swapped in (False, True):
        model = canonical(loop(swapped))
        onnx.checker.check_model(model, full_check=True)
        np.testing.assert_array_equal(run(model, {"features": values}), expected)
        contents.add(model.SerializeToString(deterministic=True))
    assert len(contents) == 1


def outputs_of(graph: GraphProto) -> list[str]:
    return [info.name for info in graph.output]


def test_outputs_with_the_same_value_keep_their_names() -> None:
    nodes = [
        helper.make_node("Neg", ["input_0"], ["negative"]),
        helper.make_node("Identity", ["negative"], ["Identity:0"]),
        helper.make_node("Identity", ["negative"], ["Identity_1:0"]),
        helper.make_node("Identity", ["input_0"], ["Identity_2:0"]),
    ]
    model = model_of(nodes, {})
    for i in (1, 2):
        info = helper.make_tensor_value_info(f"Identity_{i}:0", TensorProto.FLOAT, ["n", "m"])
        model.graph.output.append(info)
    canonicalize(model, NAMES | {"Identity_1:0": "again", "Identity_2:0": "same"})
    onnx.checker.check_model(model, full_check=True)
    assert outputs_of(model.graph) == ["scores", "again", "same"]
    assert [node.op_type for node in all_nodes(model.graph)] == ["Neg", "Identity", "Identity"]


REFUSED = {
    "operator that ONNX lacks": (helper.make_node("Erfc", ["input_0"], ["Identity:0"]), 17),
    "function call": (helper.make_node("PartitionedCall", ["input_0"], ["Identity:0"]), 17),
    "newer than the opset": (helper.make_node("Gelu", ["input_0"], ["Identity:0"]), 17),
    "another domain": (
        helper.make_node("FusedGelu", ["input_0"], ["Identity:0"], domain="com.microsoft"),
        17,
    ),
    "no longer in the opset": (helper.make_node("Upsample", ["input_0"], ["Identity:0"]), 17),
}


@pytest.mark.parametrize(("node", "opset"), REFUSED.values(), ids=REFUSED)
def test_nonstandard_operators_are_refused(node: NodeProto, opset: int) -> None:
    with pytest.raises(ConversionError, match=node.op_type) as raised:
        check_standard(model_of([node], {}, opset))
    assert node.domain in raised.value.message


def test_a_nonstandard_operator_in_a_body_is_refused() -> None:
    model = loop(swapped=False)
    body = model.graph.node[2].attribute[0].g
    body.node.append(helper.make_node("Erfc", ["state"], ["odd"]))
    with pytest.raises(ConversionError, match="Erfc"):
        check_standard(model)


def test_an_invalid_graph_is_refused() -> None:
    node = helper.make_node("MatMul", ["input_0", "k"], ["Identity:0"])
    with pytest.raises(ConversionError, match="invalid graph"):
        check_standard(model_of([node], {"k": np.zeros((5, 2), np.float32)}))
