"""The memory that models take: held against the weights that must be in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from exporter.data.samples import Samples
from exporter.errors import ModelError
from exporter.formats import open_model
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.jobs.checks import measure_models
from exporter.jobs.options import Job
from exporter.performance import memory
from exporter.performance.memory import measure_memory
from exporter.records import Memory
from tests.builders.onnx_models import numbers, proto
from tests.builders.tflite_builder import classifier

ENGINE = "runtime 1"
FEATURES = 1000


def dense(folder: Path, units: int, source: str = "x") -> tuple[Model, Path]:
    """y = x @ kernel, its only weights being FEATURES x units float32."""
    product = helper.make_node("MatMul", ["x", "kernel"], ["y"], "head")
    net = proto([product], {"kernel": numbers(FEATURES, units)}, x=("batch", FEATURES))
    net.graph.input[0].name = net.graph.node[0].input[0] = source
    path = folder / f"net{units}.onnx"
    path.write_bytes(net.SerializeToString())
    return open_model(path), path


def test_a_process_grows_by_the_weights(tmp_path: Path) -> None:
    """40 MB of weights against 4 kB: the difference is theirs; a runtime may hold a copy more."""
    sides = dense(tmp_path, 10_000), dense(tmp_path, 1)
    found = measure_memory(sides, {"x": numbers(1, FEATURES)}, 1, ENGINE)
    assert (found.artifact, found.engine) == ("net1.onnx", ENGINE)
    weights = 10_000 * FEATURES * 4
    assert 0.9 * weights <= found.original_bytes - found.bytes <= 3 * weights


def test_an_input_may_be_called_as_an_argument_of_numpy(tmp_path: Path) -> None:
    side = dense(tmp_path, 2, source="file")
    found = measure_memory((side, side), {"file": numbers(1, FEATURES)}, 1, ENGINE)
    assert found.original_bytes > 0


def test_a_batch_that_the_file_leaves_open(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(classifier(batch=None).content("y"))
    side = open_model(path), path
    (source,) = side[0].graph().inputs
    found = measure_memory((side, side), {source: numbers(3, 4)}, 1, ENGINE)
    assert found.original_bytes > 0


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({"x": numbers(1, FEATURES + 1)}, "indices"),
        ({}, "x"),
    ],
    ids=["a shape that the runtime refuses", "an input without values"],
)
def test_a_run_that_fails_is_told(tmp_path: Path, feed: dict[str, Array], said: str) -> None:
    side = dense(tmp_path, 2)
    with pytest.raises(ModelError, match=f"the memory of net2.onnx could not.*{said}"):
        measure_memory((side, side), feed, 1, ENGINE)


def test_a_run_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    side = dense(tmp_path, 2)
    with pytest.raises(ModelError, match=r"one run took more than 0\.01 s"):
        measure_memory((side, side), {"x": numbers(1, FEATURES)}, 1, ENGINE)


def test_the_median_of_the_processes_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turns: original, pruned, original, ..."""
    said = iter([50, 10, 90, 30, 70, 20])
    monkeypatch.setattr(memory, "_resident", lambda *_: next(said))
    side = dense(tmp_path, 2)
    found = measure_memory((side, side), {"x": numbers(1, FEATURES)}, 1, ENGINE)
    assert found == Memory("net2.onnx", ENGINE, 70, 20)


def test_what_was_timed_is_not_lost_where_memory_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "TIMEOUT_S", 0.01)
    side = dense(tmp_path, 2)
    found = measure_models(Job(), (side, side), Samples({"x": numbers(1, 1, FEATURES)}, "made up"))
    assert len(found.latency) == 1
    assert found.memory == ()
    assert found.warnings == (
        "the memory of net2.onnx could not be measured: one run took more than 0.01 s",
    )
