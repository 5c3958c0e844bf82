"""Heads in the branches of an If: both branches are traced, and cut alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx import from_proto
from exporter.graph import Array
from exporter.trace import trace
from tests.builders import commands
from tests.builders.onnx_decoders import merged_decoder
from tests.builders.onnx_models import cut, node, numbers

KEPT = (1, 3)
YES = "yes"


def network(
    branches: Sequence[tuple[Sequence[NodeProto], Mapping[str, Array]]],
    constants: Mapping[str, Array],
    *,
    before: Sequence[NodeProto] = (),
    after: Sequence[NodeProto] = (),
    result: str = "inner",
    width: int = 5,
) -> ModelProto:
    """x[batch, 6] -> nodes -> If(yes) -> y; branches are their nodes and their own constants."""
    graphs = [
        helper.make_graph(
            list(nodes),
            "branch",
            [],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["batch", width])],
            [numpy_helper.from_array(value, name) for name, value in own.items()],
        )
        for nodes, own in branches
    ]
    chosen = "y" if not after else "chosen"
    nodes = [
        *before,
        helper.make_node(
            "If", [YES], [chosen], "choice", then_branch=graphs[0], else_branch=graphs[1]
        ),
        *after,
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6]),
        helper.make_tensor_value_info(YES, TensorProto.BOOL, []),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "network", inputs, [y], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def dense(source: str = "x", kernel: str = "kernel") -> list[NodeProto]:
    return [
        node("MatMul", [source, kernel], ["product"], "matmul"),
        node("Add", ["product", "bias"], ["inner"], "add"),
    ]


KERNEL, BIAS = numbers(6, 5), numbers(5)
SHARED = {"kernel": KERNEL, "bias": BIAS}
HIDDEN = [node("Relu", ["x"], ["hidden"], "relu")]

MODELS: Mapping[str, ModelProto] = {
    "the same weights": network([(dense(), {}), ([*HIDDEN, *dense("hidden")], {})], SHARED),
    "weights of their own": network(
        [(dense(), SHARED), (dense(), {"kernel": KERNEL * 2, "bias": BIAS + 1})], {}
    ),
    "one kernel is shared": network(
        [(dense(), {"bias": BIAS + 1}), (dense(), {"bias": BIAS})], {"kernel": KERNEL}
    ),
    "the head is before the If": network(
        [([node("Relu", ["z"], ["inner"], "r")], {}), ([node("Neg", ["z"], ["inner"], "n")], {})],
        SHARED,
        before=[node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm")],
    ),
    "a branch returns a tensor that it did not make": network(
        [([node("Identity", ["z"], ["inner"], "i")], {}), ([node("Neg", ["z"], ["inner"])], {})],
        SHARED,
        before=[node("Gemm", ["x", "kernel", "bias"], ["z"], "gemm")],
    ),
    "an activation after the If": network(
        [(dense(), {}), ([*HIDDEN, *dense("hidden")], {})],
        SHARED,
        after=[node("Sigmoid", ["chosen"], ["y"], "sigmoid")],
    ),
    "constants in nodes": network(
        [
            (
                [
                    node("Constant", [], ["kernel"], value=numpy_helper.from_array(KERNEL * sign)),
                    *dense(),
                ],
                {},
            )
            for sign in (1, -1)
        ],
        {"bias": BIAS},
    ),
}


def run(model: ModelProto, x: Array, *, yes: bool) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result: Array = session.run(["y"], {"x": x, YES: np.array(yes)})[0]
    return result


@pytest.mark.parametrize("yes", [True, False])
@pytest.mark.parametrize("mode", ["slice", "mask"])
@pytest.mark.parametrize("name", MODELS)
def test_both_branches_are_cut(name: str, mode: str, yes: bool) -> None:
    model, x = MODELS[name], numbers(4, 6)
    opened = from_proto(model, "network.onnx")
    before = run(model, x, yes=yes)
    after = run(cut(opened, KEPT, mode).proto, x, yes=yes)
    np.testing.assert_allclose(
        after if mode == "slice" else after[:, list(KEPT)], before[:, list(KEPT)], atol=1e-6
    )
    if mode == "mask":
        lost = np.delete(after, KEPT, axis=1)
        assert (lost <= 0).all() or name == "the head is before the If"


@pytest.mark.parametrize("name", MODELS)
def test_a_cut_file_is_cut_again(name: str) -> None:
    """The file that was written has its branches in the If."""
    first = cut(from_proto(MODELS[name], "network.onnx"), (0, 1, 3))
    operators = [n.op_type for n in first.proto.graph.node]
    assert (operators.count("If"), operators.count("Choice")) == (1, 0)
    onnx.checker.check_model(first.proto, full_check=True)
    again = cut(from_proto(ModelProto.FromString(first.to_bytes()), "network.onnx"), (1, 2))
    x = numbers(4, 6)
    for yes in (True, False):
        expected = run(MODELS[name], x, yes=yes)[:, list(KEPT)]
        np.testing.assert_allclose(run(again.proto, x, yes=yes), expected, atol=1e-6)


def softmax_inside() -> ModelProto:
    tail = [node("Softmax", ["inner"], ["shares"], "softmax", axis=1)]
    return network([([*dense(), *tail], {})] * 2, SHARED, result="shares")


def mixed() -> ModelProto:
    """The branches return the units in different orders."""
    turned = [*dense(), node("Gather", ["inner", "order"], ["other"], "turn", axis=1)]
    same = [*dense(), node("Identity", ["inner"], ["other"], "same")]
    order = {"order": np.array([4, 3, 2, 1, 0])}
    return network([(turned, {}), (same, {})], SHARED | order, result="other")


def of_another_rank() -> ModelProto:
    """As PyTorch writes squeeze() of an axis whose length is not known."""
    model = MODELS["the same weights"]
    result = ModelProto()
    result.CopyFrom(model)
    body = next(a.g for a in result.graph.node[0].attribute if a.name == "else_branch")
    body.node.append(node("Unsqueeze", ["inner", "axis"], ["wide"], "wide"))
    body.output[0].CopyFrom(helper.make_tensor_value_info("wide", TensorProto.FLOAT, None))
    result.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    result.graph.output[0].type.tensor_type.ClearField("shape")
    return result


@pytest.mark.parametrize("make", [softmax_inside, mixed, of_another_rank])
def test_branches_that_do_not_agree_are_refused(make: Any) -> None:
    found = trace(from_proto(make(), "network.onnx").graph())
    assert not found.heads
    with pytest.raises(ModelError):
        found.head()


def test_an_if_in_the_body_is_kept() -> None:
    """Nothing in a branch before the head is touched."""
    relu: Any = ([node("Relu", ["x"], ["inner"], "r")], {})
    neg: Any = ([node("Neg", ["x"], ["inner"], "n")], {})
    head = node("Gemm", ["chosen", "kernel", "bias"], ["y"], "gemm")
    model = network([relu, neg], SHARED, after=[head], width=6)
    opened = from_proto(model, "network.onnx")
    after = cut(opened, KEPT).proto
    assert after.graph.node[0] == model.graph.node[0]


@pytest.mark.parametrize("layers", [1, 2])
def test_a_merged_decoder(layers: int, tmp_path: Path) -> None:
    model = merged_decoder(layers)
    onnx.save(model, tmp_path / "decoder.onnx")
    line = "prune decoder.onnx -o cut.onnx --keep 1,3 --head logits --samples 4"
    done = commands.exporter(line, tmp_path)
    assert done.code == 0, done.err
    after = onnx.load(tmp_path / "cut.onnx")
    kernels = [t for t in after.graph.initializer if t.name.startswith("lm_head")]
    assert [list(kernel.dims) for kernel in kernels] == [[16, 2]], "shared, and cut once"
    for use_cache, past in ((True, 3), (False, 1)):
        feeds = {
            "input_ids": np.array([[5, 7, 9]]),
            "attention_mask": np.ones((1, 3 + past * use_cache), np.int64),
            "use_cache_branch": np.array([use_cache]),
        }
        for i in range(layers):
            for kind in ("key", "value"):
                feeds[f"past_key_values.{i}.{kind}"] = numbers(1, 2, past, 8, seed=i)
        outputs = []
        for each in (model, after):
            session = onnxruntime.InferenceSession(each.SerializeToString())
            names = [output.name for output in session.get_outputs()]
            outputs.append(dict(zip(names, session.run(names, feeds), strict=True)))
        expected = outputs[0].pop("logits")[..., list(KEPT)]
        np.testing.assert_allclose(outputs[1].pop("logits"), expected, atol=1e-6)
        for name, value in outputs[0].items():
            np.testing.assert_array_equal(outputs[1][name], value)


@pytest.mark.parametrize("in_function", [False, True])
def test_a_choice_in_a_file_is_refused(in_function: bool) -> None:
    """It would be written as an If, but no runtime runs the file."""
    choice = node("Choice", ["yes", "a", "b"], ["y"], "choice", domain="exporter.branches")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in ("a", "b", "y")]
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("exporter.branches", 1)]
    functions = []
    called = choice
    if in_function:
        inputs = ["yes", "a", "b"]
        functions = [helper.make_function("own", "F", inputs, ["y"], [choice], opsets)]
        called = node("F", inputs, ["y"], domain="own")
        opsets = [*opsets, helper.make_opsetid("own", 1)]
    graph = helper.make_graph([called], "g", [yes, *ends[:2]], ends[2:])
    made = helper.make_model(graph, opset_imports=opsets, functions=functions)
    with pytest.raises(ModelError, match="no runtime has the operator Choice"):
        from_proto(made, "net.onnx")
