"""Units are recognized by their weights, at every precision of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from exporter.errors import UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.graph.edits import AddOutput, Plan
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.verification.recover import _same_rows, recover_tables
from exporter.verification.renamed import (
    Renamed,
    match_inputs,
    match_outputs,
    need_no_change,
)
from tests.builders import onnx_models as onnx
from tests.builders import onnx_precisions, tflite_precisions


@pytest.mark.parametrize(
    "precision",
    ["float32", "float16", "int8 QDQ, a scale a unit", "int8 QOperator"],
)
@pytest.mark.parametrize("kind", ["dense, softmax", "convolution, mean, softmax"])
def test_units_of_onnx_files(kind: str, precision: str) -> None:
    model = onnx_precisions.built(kind, precision)
    assert model is not None
    cut = prune_model(model, CutOptions(keep=[3, 1], keep_order=True), Job(samples=2)).model
    (table,) = recover_tables(model, cut)
    assert (table.kept, table.old_units) == ((3, 1), 6)


@pytest.mark.parametrize("precision", ["float32", "int8", "dynamic int8 (hybrid)"])
def test_units_of_tflite_files(precision: str) -> None:
    model = tflite_precisions.built("dense, softmax", precision)
    assert model is not None
    cut = prune_model(model, CutOptions(keep=[0, 2]), Job(samples=2)).model
    (table,) = recover_tables(model, cut)
    assert table.kept == (0, 2)


def test_no_units_are_recognized_where_nothing_was_cut_or_widths_differ() -> None:
    model = onnx.classifier()
    assert list(recover_tables(model, model)) == []
    wider = onnx.model(
        [onnx.node("Gemm", ["x", "k"], ["z"], "g"), onnx.node("Softmax", ["z"], ["y"], "s")],
        {"k": onnx.numbers(7, 3)},
        x=("batch", 7),
    )
    assert list(recover_tables(model, wider)) == []
    few = onnx.classifier(constants={"kernel": onnx.numbers(6, 3), "bias": onnx.numbers(3)})
    assert list(recover_tables(model, few)) == []


def test_rows_of_another_length_have_no_counterpart() -> None:
    assert _same_rows(np.ones((3, 4)), np.ones((2, 5))) is None
    assert _same_rows(np.eye(3), np.eye(3)[[2, 0]]) == (2, 0)


def test_a_renamed_model_runs_and_is_written(tmp_path: Path) -> None:
    """It takes the other names; the file keeps its own."""
    first = onnx.classifier()
    nodes = [
        onnx.node("Relu", ["in"], ["x"], "relu"),  # an inner tensor has the name of the other input
        onnx.node("Neg", ["x"], ["out"], "neg"),
    ]
    second = from_proto(renamed_input(onnx.proto(nodes, {}, outputs={"out": None})), "second.onnx")
    ends = match_inputs(first, second, {}), match_outputs(first, second, {})
    model = Renamed(second, *ends, first.graph())
    graph = model.graph()
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    assert "x (inner)" in graph.tensors
    values = onnx.numbers(1, 6)
    more = model.apply(Plan((AddOutput("x (inner)", "x (inner)"),)))
    answers = more.runner(RunOptions())({"x": values})
    np.testing.assert_array_equal(answers["y"], -np.maximum(values, 0))
    np.testing.assert_array_equal(answers["x (inner)"], np.maximum(values, 0))
    model.write(tmp_path / "second.onnx")
    assert open_model(tmp_path / "second.onnx").graph().inputs == ("in",)


def renamed_input(proto: ModelProto) -> ModelProto:
    proto.graph.input[0].name = "in"
    return proto


def picture_net(*shape: int) -> OnnxModel:
    """A Relu of a picture."""
    net: OnnxModel = onnx.model([onnx.node("Relu", ["x"], ["y"], "relu")], {}, x=shape)
    return net


def test_pictures_of_another_size_do_not_belong_together() -> None:
    nodes = [onnx.node("Relu", ["x"], ["out"], "relu")]
    other = renamed_input(onnx.proto(nodes, {}, x=(1, 9, 9, 3), outputs={"out": None}))
    other.graph.node[0].input[0] = "in"
    with pytest.raises(UsageError, match="has no counterpart"):
        match_inputs(picture_net(1, 3, 8, 8), from_proto(other, "other.onnx"), {})


def test_unknown_names_are_refused() -> None:
    net = onnx.classifier()
    with pytest.raises(UsageError, match="has no input 'z'") as caught:
        match_inputs(net, net, {"x": "z"})
    assert caught.value.hint == "it has 'x'"


def test_outputs_of_another_rank_do_not_belong_together() -> None:
    nodes = [onnx.node("Flatten", ["x"], ["out"], "flat")]
    flat = onnx.model(nodes, {}, x=(1, 3, 8, 8), outputs={"out": None})
    assert match_outputs(picture_net(1, 3, 8, 8), flat, {}).names == {}
    assert match_inputs(flat, picture_net(1, 3, 64), {}).names == {"x": "x"}, "names decide"
    ends = match_inputs(flat, picture_net(1, 3, 64), {}), match_outputs(flat, flat, {})
    assert need_no_change(flat, picture_net(1, 3, 64), *ends)
