"""Results of `inspect`: widths, shares and refusals, compared with counts made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import UsageError
from exporter.formats import open_model
from exporter.formats.onnx import OnnxModel, from_proto
from exporter.formats.tflite import from_bytes
from exporter.jobs.inspect import inspect_file, inspect_model
from exporter.jobs.job import Job
from tests.builders.channel_models import network
from tests.builders.onnx_models import model, node, numbers
from tests.builders.shelf import FEATURES, UNITS
from tests.builders.tflite_builder import Builder


def test_model_without_heads(shelf: Path) -> None:
    found = inspect_model(open_model(shelf / "double.onnx"))
    assert found.heads == ()
    (refusal,) = found.to_dict()["refused"]
    assert refusal["output"] == "probabilities"
    assert refusal["operation"] == "Softmax 'first'"
    assert "mixes the units" in refusal["reason"]


def test_unknown_operation_makes_the_share_unknown() -> None:
    """The matrix of an unknown operation may be multiplied in any way."""
    hidden = node("Gemm", ["x", "first"], ["h"], "hidden")
    strange = node("CustomThing", ["h", "mix"], ["e"], "strange", domain="somewhere")
    head = node("Gemm", ["e", "kernel"], ["y"], "head")
    made = model(
        [hidden, strange, head],
        {"first": numbers(6, 8), "mix": numbers(8, 8), "kernel": numbers(8, 5)},
        outputs={"y": ("batch", 5)},
    )
    (facts,) = inspect_model(made).heads
    assert facts.multiply_adds == 8 * 5
    assert facts.share_of_multiply_adds is None
    assert facts.share_of_bytes is None, "a live model has no file"
    assert facts.bytes == 8 * 5 * 4


def _labeled(*labels: str) -> OnnxModel:
    opened = model(
        [node("Gemm", ["x", "kernel"], ["y"], "head")], {"kernel": numbers(6, len(labels) or 3)}
    )
    if labels:
        opened.proto.metadata_props.add(key="names", value=repr(list(labels)))
    return from_proto(opened.proto, "network.onnx")


@pytest.mark.parametrize(
    ("pattern", "units"),
    [
        (None, None),
        ("", (0, 1, 2, 3)),
        ("cat", (0, 3)),
        ("*cat*", (0, 3)),
        ("c*", (2, 3)),
        ("a*c", (1,)),
    ],
)
def test_listed_labels(pattern: str | None, units: tuple[int, ...] | None) -> None:
    opened = _labeled("tiger cat", "a*c", "catamaran", "cat")
    found = inspect_model(opened, pattern=pattern)
    assert found.listed == (None if units is None else {"y": units})
    assert found.to_dict().get("listed") == (None if units is None else {"y": list(units)})


def test_labels_that_are_not_there() -> None:
    with pytest.raises(UsageError, match=r"no label of network.onnx matches 'katamaran'") as caught:
        inspect_model(_labeled("tiger cat", "catamaran"), pattern="katamaran")
    assert caught.value.hint == "similar labels: 'catamaran' (1)"
    with pytest.raises(UsageError, match=r"network.onnx has no labels"):
        inspect_model(_labeled(), pattern="")


def test_dense() -> None:
    """x[6] -> 9 -> 5: the head has a kernel of 9 x 5 and 5 biases."""
    hidden = node("Gemm", ["x", "first", "offset"], ["h"], "hidden")
    relu = node("Relu", ["h"], ["r"], "relu")
    head = node("Gemm", ["r", "kernel", "bias"], ["z"], "head")
    made = model(
        [hidden, relu, head, node("Softmax", ["z"], ["y"], "softmax", axis=1)],
        {
            "first": numbers(6, 9),
            "offset": numbers(9),
            "kernel": numbers(9, 5),
            "bias": numbers(5),
        },
        outputs={"y": ("batch", 5)},
    )
    (facts,) = inspect_model(made, 1000).heads
    assert facts.bytes == (9 * 5 + 5) * 4
    assert facts.share_of_bytes == (9 * 5 + 5) * 4 / 1000
    assert facts.multiply_adds == 9 * 5
    assert facts.share_of_multiply_adds == 9 * 5 / (6 * 9 + 9 * 5)


def test_convolution_counts_every_position() -> None:
    """A 3x3 kernel over 4x4 positions without padding gives 2x2 positions."""
    conv = node("Conv", ["x", "kernel", "bias"], ["z"], "conv")
    made = model(
        [conv, node("Sigmoid", ["z"], ["y"], "sigmoid")],
        {"kernel": numbers(5, 2, 3, 3), "bias": numbers(5)},
        x=("batch", 2, 4, 4),
        outputs={"y": ("batch", 5, 2, 2)},
    )
    facts = inspect_model(made).heads[0]
    assert facts.head.axis == 1
    assert facts.multiply_adds == 5 * 2 * 3 * 3 * (2 * 2)
    assert facts.share_of_multiply_adds == 1.0


def test_open_dimension_makes_the_count_unknown() -> None:
    matmul = node("MatMul", ["x", "kernel"], ["y"], "matmul")
    made = model(
        [matmul],
        {"kernel": numbers(6, 5)},
        x=("batch", "time", 6),
        outputs={"y": ("batch", "time", 5)},
    )
    (facts,) = inspect_model(made).heads
    assert facts.multiply_adds is None
    assert facts.share_of_multiply_adds is None


def test_tflite() -> None:
    builder = Builder()
    x = builder.feed("x", 1, FEATURES)
    hidden = builder.dense(x, 9, "hidden")
    builder.softmax(builder.dense(hidden, 5, "logits"), "y")
    content = builder.content("y")
    (facts,) = inspect_model(from_bytes(content, "net.tflite"), len(content)).heads
    assert facts.bytes == (9 * 5 + 5) * 4
    assert facts.multiply_adds == 9 * 5
    assert facts.share_of_multiply_adds == 9 * 5 / (6 * 9 + 9 * 5)


def test_record(shelf: Path) -> None:
    path = shelf / "net.onnx"
    record = inspect_model(open_model(path), path.stat().st_size).to_dict()
    (head,) = record.pop("heads")
    size = (FEATURES * UNITS + UNITS) * 4
    assert record == {
        "schema": "exporter/inspect/1",
        "ok": True,
        "model": {
            "name": "net.onnx",
            "kind": "onnx",
            "precision": "fp32",
            "bytes": path.stat().st_size,
            "sha256": record["model"]["sha256"],
        },
        "inputs": [{"name": "x", "shape": [None, 6], "dtype": "float32"}],
        "refused": [],
        "forecast": None,
        "channels": None,
    }
    assert head == {
        "name": "probabilities",
        "output": "probabilities",
        "axis": 1,
        "units": UNITS,
        "parts": [[0, UNITS]],
        "part_names": ["classes"],
        "activation": "softmax",
        "dtype": "float32",
        "labels": None,
        "bytes": size,
        "share_of_bytes": size / path.stat().st_size,
        "multiply_adds": FEATURES * UNITS,
        "share_of_multiply_adds": 1.0,
    }


@pytest.mark.parametrize(
    ("file", "units", "labels"),
    [
        ("mobilenet_v1_025_224_float.tflite", 1001, False),
        ("mobilenet_v1_025_224_float.onnx", 1001, False),
        ("movie_review_float.tflite", 2, False),
    ],
)
def test_zoo(file: str, units: int, labels: bool, zoo: Path) -> None:
    path = zoo / file
    (facts,) = inspect_model(open_model(path), path.stat().st_size).heads
    assert facts.head.units == units
    assert bool(facts.head.labels) == labels
    assert facts.share_of_bytes is not None
    assert 0 < facts.share_of_bytes < 1


def test_channels(tmp_path: Path) -> None:
    """conv 3 -> 8 of 3 x 3 at 9 x 9 positions, then 8 -> 12 at 5 x 5, then a dense layer to 5."""
    path = tmp_path / "net.onnx"
    network("plain").write(path)
    first, second, scores = inspect_file(path, Job(), channels=True).channels or ()
    assert (first.channels, first.units, first.reason) == (8, 8, "")
    assert first.bytes == 4 * (8 * 3 * 9 + 8 + 12 * 8 * 9)
    assert first.multiply_adds == 81 * 27 * 8 + 25 * 72 * 12
    assert (second.producers, second.consumers) == (("n_t2",), ("n_t7",))
    assert (scores.channels, scores.units) == (5, 0)
    assert "softmax" in scores.reason.lower()
