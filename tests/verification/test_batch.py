"""Three inputs at once give the results of three single runs, and those of the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import exporter
from exporter.data.samples import synthetic_samples
from exporter.formats.model import Model
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.formats.tflite import from_bytes
from exporter.graph.lengths import Lengths
from exporter.planning.cut import CutOptions, plan_cut
from exporter.records import Check
from exporter.verification import answers
from exporter.verification.batch import batch_check
from exporter.verification.verify import VerifyOptions, verify_pair
from tests.builders import mode_cells
from tests.builders import onnx_models as onnx
from tests.builders.tflite_builder import Builder


def cut(model: Any, **options: Any) -> Any:
    return model.apply(plan_cut(model, CutOptions(**options)).plan)


def check(original: Model, pruned: Model, precision: str = "fp32") -> Check | None:
    tables = pruned.remap.heads if pruned.remap else ()
    options = VerifyOptions(synthetic_samples(original.graph(), 4), precision=precision)
    stage: Any = "cut" if precision == "fp32" else "quantize"
    return batch_check(stage, original, pruned, tables, options)


def with_operation(model: OnnxModel, *nodes: Any, **constants: Any) -> OnnxModel:
    """The model with operations between "before" and the output y."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        node.output[:] = ["before" if name == "y" else name for name in node.output]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(onnx.proto([], constants).graph.initializer)
    found = from_proto(proto, "faulty.onnx")
    found.remap = model.remap
    return found


def mixing(model: OnnxModel) -> OnnxModel:
    """Adds the difference from the mean of the batch, which is 0 for one sample."""
    return with_operation(
        model,
        onnx.node("ReduceMean", ["before"], ["mean"], axes=[0]),
        onnx.node("Sub", ["before", "mean"], ["apart"]),
        onnx.node("Add", ["before", "apart"], ["y"]),
    )


def flattening(model: OnnxModel) -> OnnxModel:
    """Computes one sample only."""
    shape = np.array([1, model.graph().shape("y")[1]])
    return with_operation(model, onnx.node("Reshape", ["before", "shape"], ["y"]), shape=shape)


def test_an_open_batch_is_tried() -> None:
    model = onnx.classifier()
    found = check(model, cut(model, keep=[0, 2, 3]))
    assert found is not None
    assert found.passed
    assert (found.metric, found.samples) == ("batch", 3)


def test_an_original_computes_the_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all files that are compared with it on the same samples."""
    model, ran = onnx.classifier(), []
    runs = answers.run

    def counted(shown: Any, *rest: Any) -> Any:
        ran.append(shown[0])
        return runs(shown, *rest)

    monkeypatch.setattr(answers, "run", counted)
    options = VerifyOptions(synthetic_samples(model.graph(), 4))
    for keep in ([0, 2], [1, 3]):
        pruned = cut(model, keep=keep)
        tables = pruned.remap.heads
        verify_pair("cut", model, pruned, tables, options)
        found = batch_check("cut", model, pruned, tables, options)
        assert found is not None
        assert found.passed
        assert sum(each is pruned for each in ran) == 2  # the samples, and the batch
    assert sum(each is model for each in ran) == 2


def test_a_file_that_computes_one_sample_only_fails() -> None:
    model = onnx.classifier()
    small = cut(model, keep=[0, 2, 3])
    for faulty, text in (
        (mixing(small), "y of 3 inputs at once differs from 3 single runs"),
        (flattening(small), "cannot run faulty.onnx"),
    ):
        found = check(model, faulty)
        assert found is not None
        assert not found.passed
        assert text in found.detail


def test_an_output_that_is_wrong_for_all_samples_differs_from_the_original() -> None:
    model = onnx.classifier()
    half = np.array(0.5, np.float32)
    wrong = with_operation(
        cut(model, keep=[0, 2, 3]), onnx.node("Mul", ["before", "half"], ["y"]), half=half
    )
    found = check(model, wrong)
    assert found is not None
    assert found.detail == "y differs from the original"
    assert check(model, wrong, "int8") is not None, "single runs are compared at all precisions"


def test_batches_that_the_original_does_not_allow_are_left() -> None:
    model = onnx.classifier()
    for original in (mixing(model), flattening(model), onnx.classifier(x=(1, 6))):
        assert check(original, original) is None


def test_an_output_without_a_batch_is_left() -> None:
    total = onnx.node("ReduceSum", ["y"], ["total"], keepdims=0)
    softmax = onnx.node("Softmax", ["z"], ["y"], "softmax", axis=1)
    model = onnx.classifier(softmax, total, outputs={"y": None, "total": None})
    found = check(model, model)
    assert found is not None
    assert found.passed, found.detail


def test_samples_with_a_batch_are_left() -> None:
    model = onnx.classifier()
    samples = synthetic_samples(model.graph(), 2, lengths=Lengths({"x": (4, 6)}))
    assert batch_check("cut", model, model, (), VerifyOptions(samples)) is None


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "float16 weights"])
def test_a_tflite_file_is_resized(precision: str) -> None:
    built = Builder(seed=3)
    if precision == "float32":
        built.softmax(built.dense(built.feed("x", None, 8), 6, "z"), "y")
        model: Any = from_bytes(built.content("y"), "net.tflite")
    else:
        model = mode_cells.built("softmax", "tflite", precision)
    found = check(model, cut(model, keep=[0, 2]))
    allowed = all(model.graph().shape(name)[0] is None for name in model.graph().inputs)
    assert (found is not None and found.passed) == allowed
    assert precision != "float32" or allowed


@pytest.mark.parametrize("gate", ["input", "probability > 0.2"])
def test_a_file_with_a_gate_runs_a_batch(gate: str) -> None:
    model = onnx.classifier()
    found = check(model, cut(model, gate=gate))
    assert found is not None
    assert found.passed, found.detail


def test_ranges_of_a_whole_batch_are_no_fault() -> None:
    """Dynamic quantization finds the ranges of a whole batch."""
    model = onnx.classifier()
    found = check(model, mixing(model), "dynamic")
    assert found is not None
    assert found.passed


def test_verify_tries_a_batch(tmp_path: Path) -> None:
    model = onnx.classifier()
    small = cut(model, keep=[0, 2, 3])
    model.write(tmp_path / "net.onnx")
    small.write(tmp_path / "small.onnx")
    mixing(small).write(tmp_path / "faulty.onnx")
    report = exporter.verify(tmp_path / "net.onnx", tmp_path / "small.onnx")
    assert report.ok
    report = exporter.verify(tmp_path / "net.onnx", tmp_path / "faulty.onnx")
    failed = [c for c in report.checks if not c.passed]
    assert {c.metric for c in failed} == {"structure", "probe", "batch"}
