"""The memory of models, compared with the weights that it must contain."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from exporter.data.samples import Samples
from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.graph import Array
from exporter.jobs.checks import measure_models
from exporter.jobs.options import Job
from exporter.performance import memory
from exporter.performance.memory import ModelFile, measure_memory
from exporter.records import Memory
from tests.builders.onnx_models import numbers, proto
from tests.builders.tflite_builder import classifier

ENGINE = "runtime 1"
FEATURES = 1000


def dense(folder: Path, units: int, source: str = "x") -> ModelFile:
    """y = x @ kernel, with FEATURES x units float32 weights."""
    product = helper.make_node("MatMul", ["x", "kernel"], ["y"], "head")
    net = proto([product], {"kernel": numbers(FEATURES, units)}, x=("batch", FEATURES))
    net.graph.input[0].name = net.graph.node[0].input[0] = source
    path = folder / f"net{units}.onnx"
    path.write_bytes(net.SerializeToString())
    return ModelFile(open_model(path), path)


def test_memory_grows_by_the_weights(tmp_path: Path) -> None:
    """40 MB of weights against 4 kB; a runtime may keep more than one copy."""
    original, pruned = dense(tmp_path, 10_000), dense(tmp_path, 1)
    result = measure_memory(original, pruned, {"x": numbers(1, FEATURES)}, 1, ENGINE)
    assert (result.artifact, result.engine) == ("net1.onnx", ENGINE)
    weights = 10_000 * FEATURES * 4
    assert 0.9 * weights <= result.original_bytes - result.bytes <= 3 * weights


def test_input_named_like_an_argument_of_numpy(tmp_path: Path) -> None:
    file = dense(tmp_path, 2, source="file")
    result = measure_memory(file, file, {"file": numbers(1, FEATURES)}, 1, ENGINE)
    assert result.original_bytes > 0


def test_open_batch(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(classifier(batch=None).content("y"))
    file = ModelFile(open_model(path), path)
    (source,) = file.model.graph().inputs
    result = measure_memory(file, file, {source: numbers(3, 4)}, 1, ENGINE)
    assert result.original_bytes > 0


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"x": numbers(1, FEATURES + 1)}, "indices"),
        ({}, "x"),
    ],
    ids=["a shape that the runtime refuses", "an input without values"],
)
def test_failed_run(tmp_path: Path, feed: dict[str, Array], message: str) -> None:
    file = dense(tmp_path, 2)
    with pytest.raises(ModelError, match=f"the memory of net2.onnx could not.*{message}"):
        measure_memory(file, file, feed, 1, ENGINE)


def test_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    file = dense(tmp_path, 2)
    with pytest.raises(ModelError, match=r"one run took more than 0\.01 s"):
        measure_memory(file, file, {"x": numbers(1, FEATURES)}, 1, ENGINE)


def test_result_is_the_median_of_alternating_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is original, pruned, original, pruned, ..."""
    growth = iter([50, 10, 90, 30, 70, 20])
    monkeypatch.setattr(memory, "_memory_growth", lambda *_: next(growth))
    file = dense(tmp_path, 2)
    result = measure_memory(file, file, {"x": numbers(1, FEATURES)}, 1, ENGINE)
    assert result == Memory("net2.onnx", ENGINE, 70, 20)


def test_timings_are_kept_if_memory_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    file = dense(tmp_path, 2)
    inputs = Samples({"x": numbers(1, 1, FEATURES)}, "synthetic")
    results = measure_models(Job(), file, file, inputs)
    assert len(results.latency) == 1
    assert results.memory == ()
    assert results.warnings == (
        "the memory of net2.onnx could not be measured: one run took more than 0.01 s",
    )
