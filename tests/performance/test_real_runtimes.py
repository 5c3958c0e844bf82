"""The timed functions of the real runtimes do the model's work; their durations are not tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper

from exporter.errors import UsageError
from exporter.formats.model import RunOptions, TimedRunner
from exporter.formats.onnx.files import from_proto
from exporter.formats.onnx.model import OnnxModel
from exporter.formats.tflite import from_bytes
from exporter.formats.tflite.runtime import LiteRtRunner
from exporter.performance.latency import bench_models
from exporter.performance.scenario import BenchOptions
from tests.builders import onnx_models, tflite_builder
from tests.builders.commands import exporter
from tests.builders.onnx_models import numbers

QUICK = BenchOptions(min_seconds=0.0, min_runs=1, block_ms=0.1)


def timed(model: OnnxModel) -> TimedRunner:
    return cast("TimedRunner", model.runner(RunOptions()))


def test_onnx() -> None:
    model, x = onnx_models.classifier(), numbers(2, 6)
    expected = model.runner(RunOptions())({"x": x})["y"]
    prepared: Any = timed(model).prepare({"x": x[:, ::-1][:, ::-1]})
    prepared()
    (found,) = prepared.args[0].copy_outputs_to_cpu()
    np.testing.assert_array_equal(found, expected)


def test_onnx_with_strings() -> None:
    """onnxruntime binds no strings: the model is run with a feed."""
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    prepared: Any = timed(from_proto(proto, "net.onnx")).prepare({"x": np.array(["a", "b"])})
    assert [list(each) for each in prepared()] == [["a", "b"]]


def test_tflite() -> None:
    """Preparing feeds the inputs and does not run; running writes the output."""
    model = from_bytes(tflite_builder.classifier().content("y"), "net.tflite")
    (source,) = model.graph().inputs
    first, second = numbers(1, 4), numbers(1, 4, seed=1)
    runner = cast("LiteRtRunner", model.runner(RunOptions()))
    (before,) = runner({source: first}).values()
    (expected,) = model.runner(RunOptions())({source: second}).values()
    prepared = runner.prepare({source: second})
    read = [runner._interpreter.get_tensor(index) for index in runner._outputs.values()]
    np.testing.assert_array_equal(read[0], before)
    prepared()
    read = [runner._interpreter.get_tensor(index) for index in runner._outputs.values()]
    np.testing.assert_array_equal(read[0], expected)


def test_tflite_checks_inputs_before_the_timed_run() -> None:
    model = from_bytes(tflite_builder.classifier().content("y"), "net.tflite")
    with pytest.raises(UsageError, match="shape"):
        cast("LiteRtRunner", model.runner(RunOptions())).prepare(
            {model.graph().inputs[0]: numbers(1, 5)}
        )


def test_bench_of_both_kinds() -> None:
    tflite = from_bytes(tflite_builder.classifier().content("y"), "net.tflite")
    for model, width in ((onnx_models.classifier(), 6), (tflite, 4)):
        feeds = [{model.graph().inputs[0]: numbers(1, width)}]
        result = bench_models(model, model, feeds, QUICK)
        assert result.loads == 10
        assert result.p50_ms > 0


def test_command(tmp_path: Path) -> None:
    """The declared scenario reaches the report, and the terminal states what was not seen."""
    (tmp_path / "net.onnx").write_bytes(onnx_models.classifier().proto.SerializeToString())
    scenario = "--bench-seconds 0 --bench-runs 7 --batch 3 --threads 2"
    done = exporter(f"bench net.onnx net.onnx {scenario} --json", tmp_path)
    record = done.record
    assert "timing: about 10 loads of each model" in done.err
    (row,) = record["latency"]
    settings = row["settings"]
    assert (settings["min_seconds"], settings["min_runs"]) == (0.0, 7)
    assert (row["batch"], row["threads"]) == (3, 2)
    assert len(row["raw"]["p50_ms"]["pruned"]) == row["rounds"]
    assert record["memory"][0]["raw"]["control"]
