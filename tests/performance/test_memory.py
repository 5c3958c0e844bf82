"""The memory of models, compared with the weights that it must contain."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from exporter.data.samples import Samples
from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.jobs.checks import measure_models
from exporter.jobs.job import Job
from exporter.ondevice import memory_probe
from exporter.performance import memory
from exporter.performance.memory import Growth, ModelFile, measure_memory, summarize
from tests.builders.onnx_models import numbers, proto
from tests.builders.tflite_builder import classifier

ENGINE = "runtime 1"
SAME = "no measurable change"
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
    result = measure_memory(original, pruned, {"x": numbers(1, FEATURES)}, RunOptions(), ENGINE)
    assert (result.artifact, result.engine) == ("net1.onnx", ENGINE)
    weights = 10_000 * FEATURES * 4
    assert 0.9 * weights <= result.original_bytes - result.bytes <= 3 * weights


def test_input_named_like_an_argument_of_numpy(tmp_path: Path) -> None:
    file = dense(tmp_path, 2, source="file")
    result = measure_memory(file, file, {"file": numbers(1, FEATURES)}, RunOptions(), ENGINE)
    assert result.original_bytes > 0


def test_open_batch(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(classifier(batch=None).content("y"))
    file = ModelFile(open_model(path), path)
    (source,) = file.model.graph().inputs
    result = measure_memory(file, file, {source: numbers(3, 4)}, RunOptions(), ENGINE)
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
        measure_memory(file, file, feed, RunOptions(), ENGINE)


def test_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    file = dense(tmp_path, 2)
    with pytest.raises(ModelError, match=r"one run took more than 0\.01 s"):
        measure_memory(file, file, {"x": numbers(1, FEATURES)}, RunOptions(), ENGINE)


MB = 1_000_000


def of_sizes(*megabytes: float) -> list[Growth]:
    return [{"resident": int(each * MB)} for each in megabytes]


def test_processes_alternate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of a round is original, pruned, original again."""
    growth = iter(of_sizes(50, 10, 52, 90, 30, 51, 70, 20, 53))
    monkeypatch.setattr(memory, "_memory_growth", lambda *_: next(growth))
    file = dense(tmp_path, 2)
    result = measure_memory(file, file, {"x": numbers(1, FEATURES)}, RunOptions(), ENGINE)
    assert (result.original_bytes, result.bytes) == (52.5 * MB, 20 * MB)
    assert result.raw == {
        "original": of_sizes(50, 90, 70),
        "pruned": of_sizes(10, 30, 20),
        "control": of_sizes(52, 51, 53),
    }
    assert result.noise_bytes == 40 * MB
    assert result.anonymous_bytes is None
    assert result.peak_bytes is None


def test_an_original_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growth = iter(of_sizes(50, 10, 52, 90, 30, 51, 70, 20, 53, 11, 12, 13))
    monkeypatch.setattr(memory, "_memory_growth", lambda *_: next(growth))
    file, feed = dense(tmp_path, 2), {"x": numbers(1, FEATURES)}
    known: memory.Originals = {}
    first = measure_memory(file, file, feed, RunOptions(), ENGINE, known=known)
    second = measure_memory(file, dense(tmp_path, 3), feed, RunOptions(), ENGINE, known=known)
    assert (second.artifact, second.bytes) == ("net3.onnx", 12 * MB)
    assert second.original_bytes == first.original_bytes
    assert second.raw["pruned"] == of_sizes(11, 12, 13)
    assert {**second.raw, "pruned": 0} == {**first.raw, "pruned": 0}


@pytest.mark.parametrize(
    ("original", "pruned", "control", "noise", "verdict"),
    [
        pytest.param([10, 10, 10], [10, 10, 10], [10, 10, 10], 0.065536, SAME, id="equal"),
        pytest.param([10, 10, 10], [9.95] * 3, [10, 10, 10], 0.065536, SAME, id="a few pages"),
        pytest.param([10, 9, 10], [9, 9, 9], [10, 10, 10], 1, SAME, id="-10 %, seen in A/A too"),
        pytest.param([10, 10, 10], [9, 9, 9], [9, 10, 10], 1, SAME, id="the control moves"),
        pytest.param([10, 10, 10], [9, 11, 9], [10, 10, 10], 2, SAME, id="the pruned model moves"),
        pytest.param([10, 10.5, 10], [8, 8, 8], [10, 10, 10], 0.5, "smaller", id="smaller"),
        pytest.param([10, 10.5, 10], [12, 12, 12], [10, 10, 10], 0.5, "larger", id="larger"),
    ],
)
def test_verdict(
    original: list[float], pruned: list[float], control: list[float], noise: float, verdict: str
) -> None:
    before, after, again = (of_sizes(*each) for each in (original, pruned, control))
    result = summarize("net", ENGINE, before, after, again)
    assert (result.noise_bytes, result.verdict) == (noise * MB, verdict)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the parts apart")
def test_parts_of_the_memory(tmp_path: Path) -> None:
    """Weights of 40 MB, which onnxruntime copies to memory of its own."""
    original, pruned = dense(tmp_path, 10_000), dense(tmp_path, 1)
    result = measure_memory(original, pruned, {"x": numbers(1, FEATURES)}, RunOptions(), ENGINE)
    assert result.original_anonymous_bytes is not None
    assert result.anonymous_bytes is not None
    assert result.original_mapped_bytes is not None
    assert result.original_peak_bytes is not None
    weights = 10_000 * FEATURES * 4
    assert result.original_anonymous_bytes - result.anonymous_bytes >= 0.9 * weights
    parts = result.original_anonymous_bytes + result.original_mapped_bytes
    assert parts == pytest.approx(result.original_bytes, rel=0.05)
    assert result.original_peak_bytes >= 0.99 * result.original_bytes
    assert result.verdict == "smaller"


def test_probe_on_a_system_without_proc(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_probe, "_STATUS", tmp_path / "missing")
    monkeypatch.setattr(memory_probe, "_CLEAR", tmp_path / "missing" / "too")
    values: dict[str, Any] = {"=x": np.ones(3)}
    np.savez(tmp_path / "x.npz", **values)
    arguments = ["", json.dumps({"kind": "onnx", "path": "net"}), str(tmp_path / "x.npz")]
    seen: list[object] = []
    memory_probe.print_memory_growth(lambda *given: seen.append(given), arguments)
    assert set(json.loads(capsys.readouterr().out)) == {"resident"}
    assert len(seen) == 1


def test_timings_are_kept_if_memory_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    file = dense(tmp_path, 2)
    inputs = Samples({"x": numbers(1, 1, FEATURES)}, "synthetic")
    results = measure_models(Job(bench_seconds=0), file, file, inputs)
    assert len(results.latency) == 1
    assert results.memory == ()
    assert results.warnings == (
        "the memory of net2.onnx could not be measured: one run took more than 0.01 s",
    )
