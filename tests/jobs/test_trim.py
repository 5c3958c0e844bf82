"""`trim`: what it writes, what it says about it, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter
from exporter.data.samples import Samples
from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.onnx import OnnxModel
from exporter.graph import Array, Use
from exporter.graph.edits import Plan, Replace
from exporter.jobs.trim_search import _interval
from exporter.report.view import headline
from exporter.trimming.outputs import Difference
from exporter.trimming.split import split_samples
from tests.builders.channel_models import SIDE, UNITS, Network, network
from tests.builders.onnx_models import model as onnx_model
from tests.builders.onnx_models import node, numbers, run

SMALL: dict[str, Any] = {"multiple": 4, "bench": False}


def balanced(x: Array) -> OnnxModel:
    """A network whose units have the same mean logit on these inputs, so that each comes first;
    except unit 2, which seldom does.
    """
    model = network("plain")
    (gemm,) = (node for node in model.graph().nodes if node.operator == "Gemm")
    read = model.graph().tensors[gemm.inputs[2]].read
    assert read is not None
    logits = np.log(run(model, {"x": x}, plain=True)["y"])
    bias = read() - logits.mean(0) - np.array([0, 0, 1, 0, 0], np.float32) * logits.std(0)
    return model.apply(Plan((Replace(gemm.inputs[2], bias, (Use(gemm.name, 2),)),)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, 80 inputs, and labels: the first unit of the original."""
    path = tmp_path_factory.mktemp("trim")
    x = numbers(80, 1, 3, SIDE, SIDE)
    model = balanced(x[:, 0])
    model.write(path / "net.onnx")
    first = run(model, {"x": x[:, 0]}, plain=True)["y"].argmax(1)
    assert len(np.unique(first)) > 3
    np.savez(path / "data.npz", x=x, labels=first)
    np.savez(path / "few.npz", x=x[:9])
    return path


@pytest.fixture(scope="module")
def agreeing(folder: Path) -> exporter.Report:
    """The smallest network with an agreement of 0.7 on samples that are held out."""
    return exporter.trim(
        folder / "net.onnx",
        folder / "agreeing.onnx",
        data=folder / "data.npz",
        min_agreement=0.7,
        pareto=folder / "curve.csv",
        **SMALL,
    )


def test_target(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    report = exporter.trim(
        folder / "net.onnx", out, keep=[0, 1, 3], data=folder / "data.npz", target=0.5, **SMALL
    )
    (row,) = report.trimmed
    assert row.artifact == "small.onnx"
    assert (row.multiply_adds or 0) <= 0.5 * (row.original_multiply_adds or 0)
    assert row.parameters < row.original_parameters
    data = np.load(folder / "data.npz")
    wanted = int(np.isin(data["labels"], [0, 1, 3]).sum())  # samples of kept classes
    assert row.calibration_samples + row.held_out_samples == wanted
    assert report.remap is not None
    assert report.remap.heads[0].kept == (0, 1, 3)
    # NumPy and onnxruntime on the files: the same first unit as the cut original
    x = data["x"][:, 0]
    original = run(balanced(x), {"x": x}, plain=True)["y"][:, [0, 1, 3]].argmax(1)
    small = open_model(out)
    assert isinstance(small, OnnxModel)
    assert small.graph().shape("y")[1] == 3
    trimmed = run(small, {"x": x}, plain=True)["y"].argmax(1)
    assert (original == trimmed).mean() > 0.7


def test_min_agreement_is_a_gate_and_nothing_is_called_equal(
    folder: Path, agreeing: exporter.Report
) -> None:
    report = agreeing
    (row,) = report.trimmed
    assert row.agreement is not None
    assert row.agreement >= 0.7
    assert "trimmed, not equal to the original" in headline(report)
    assert "match" not in headline(report)
    assert all(each.proof is None for each in report.artifacts)
    top1 = next(check for check in report.checks if check.metric == "top1")
    assert (top1.stage, top1.limit, top1.limit_from) == ("trim", 0.7, "user")
    assert "accuracy" in {each.measure for each in report.quality}
    assert exporter.Report.from_json(report.to_json()).trimmed == report.trimmed
    lines = (folder / "curve.csv").read_text().splitlines()
    assert lines[0] == "share,agreement,sqnr_db"
    shares = [float(line.split(",")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert (folder / "curve.svg").read_text().lstrip().startswith("<?xml")


def test_units_that_are_seldom_seen_and_few_samples_are_named(
    folder: Path, agreeing: exporter.Report
) -> None:
    """The calibration samples are counted: those that are not held out."""
    data = np.load(folder / "data.npz")
    labeled = Samples({"x": data["x"]}, "all", labels=tuple(data["labels"].tolist()))
    calibration = split_samples(labeled, 0.25)[0].labels
    assert calibration is not None
    seen = np.bincount(np.array(calibration, int), minlength=UNITS)
    rare = [str(unit) for unit in np.flatnonzero(seen < 5)]
    assert rare
    assert agreeing.trimmed[0].rarely_seen == tuple(rare)
    text = " ".join(agreeing.warnings)
    assert f"fewer than 5 calibration samples show each of {', '.join(rare)}" in text


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "neither target nor agreement": ({}, UsageError, "how far"),
    "both": ({"target": 0.5, "min_agreement": 0.9}, UsageError, "how far"),
    "no data": ({"target": 0.5, "data": None}, UsageError, "samples of its inputs"),
    "too few samples": ({"target": 0.5, "data": "few.npz"}, UsageError, "too few"),
    "an unreachable target": ({"target": 0.01}, UsageError, "narrowest"),
    "no share": ({"target": 1.5}, UsageError, "share"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(folder: Path, tmp_path: Path, name: str) -> None:
    options, error, text = REFUSED[name]
    data = options.get("data", "data.npz")
    given = {**SMALL, **options, "data": data and folder / str(data)}
    with pytest.raises(error, match=text):
        exporter.trim(folder / "net.onnx", tmp_path / "small.onnx", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["c1", "c3"])
def test_a_network_that_returns_nan_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """It agreed with itself: NaN has a first unit too."""
    model = open_model(folder / "net.onnx")
    graph = model.graph()
    ((reader, slot),) = graph.consumers[name]
    shape = graph.shape(name)
    nan = Replace(name, np.full([n or 0 for n in shape], np.nan), (Use(reader.name, slot),))
    model.apply(Plan((nan,))).write(tmp_path / "nan.onnx")
    given = {**SMALL, "data": folder / "data.npz", "target": 0.5}
    with pytest.raises(ModelError, match="NaN"):
        exporter.trim(tmp_path / "nan.onnx", tmp_path / "small.onnx", **given)
    assert not (tmp_path / "small.onnx").exists()


def test_equal_samples_are_on_one_side() -> None:
    """Whatever their order: what is measured on was not calibrated on."""
    x = numbers(60, 1, 3)
    x[30:] = x[:30]
    one, other = split_samples(Samples({"x": x}, "twice"), 0.3)
    rows = [{np.asarray(feed["x"]).tobytes() for feed in part.feeds()} for part in (one, other)]
    assert not rows[0] & rows[1]
    assert one.count + other.count == 60
    shuffled = Samples({"x": x[np.random.default_rng(0).permutation(60)]}, "twice")
    again = {np.asarray(feed["x"]).tobytes() for feed in split_samples(shuffled, 0.3)[1].feeds()}
    assert again == rows[1]


def test_a_quantized_file_is_refused(tmp_path: Path, zoo: Path) -> None:
    np.savez(tmp_path / "data.npz", input=np.zeros((20, 1, 224, 224, 3), np.uint8))
    path = zoo / "mobilenet_v1_025_224_uint8_metadata.tflite"
    with pytest.raises(ModelError, match="float32"):
        exporter.trim(path, tmp_path / "small.tflite", data=tmp_path / "data.npz", target=0.5)


def several(path: Path) -> OnnxModel:
    """A network that returns a class index for each sample, a class map and one number."""
    net = Network()
    a = net.relu(net.conv("x", 8))
    b = net.relu(net.conv(a, 12))
    places = net.conv(b, 4, 1)
    logits = net.dense(net.flat(net.mean(b), 12), 5)
    number = net.dense(net.flat(net.mean(b), 12), 1)
    nodes = [
        *net.nodes,
        node("ArgMax", [logits], ["class"], "best", axis=1, keepdims=0),
        node("Softmax", [places], ["map"], "softmax", axis=1),
        node("Sigmoid", [number], ["number"], "sigmoid"),
    ]
    outputs: dict[str, None] = dict.fromkeys(("map", "number", "class"))
    made = onnx_model(nodes, net.constants, x=("batch", 3, SIDE, SIDE), outputs=outputs)
    made.write(path)
    return made


def test_every_output_is_compared_or_named(folder: Path, tmp_path: Path) -> None:
    """Indices by equality, maps by place, with an interval over samples; numbers are named."""
    x = np.load(folder / "data.npz")["x"]
    made = several(tmp_path / "net.onnx")
    given: dict[str, Any] = {**SMALL, "multiple": 1, "data": folder / "data.npz"}
    report = exporter.trim(tmp_path / "net.onnx", tmp_path / "small.onnx", target=0.3, **given)
    (row,) = report.trimmed
    small = open_model(tmp_path / "small.onnx")
    assert isinstance(small, OnnxModel)
    every = Samples({"x": x}, "all")
    held_out = np.stack([feed["x"] for feed in split_samples(every, 0.25)[1].feeds()])[:, 0]
    before, after = (run(each, {"x": held_out}, plain=True) for each in (made, small))
    same = (before["map"].argmax(1) == after["map"].argmax(1)).reshape(len(held_out), -1)
    expected = {"class": (before["class"] == after["class"]).mean(), "map": same.mean()}
    top1 = {each.output: each.value for each in report.checks if each.metric == "top1"}
    assert top1 == pytest.approx(expected)
    assert row.agreement == pytest.approx(min(expected.values()))
    assert row.not_limited == ("number",)
    noise = np.square(after["number"].astype(float) - before["number"]).sum()
    decibels = 10 * np.log10(np.square(before["number"].astype(float)).sum() / noise)
    (text,) = (each for each in report.warnings if "without units" in each)
    assert f"number ({decibels:.1f} dB SQNR)" in text


def test_places_of_one_sample_are_one_case() -> None:
    """Twenty samples of a hundred places, of which half agree nowhere: no narrow interval."""
    shares = np.repeat([0.0, 1.0], 10)
    found = _interval(Difference(0.0, {}, {"map": shares}, 100, is_finite=True))
    assert found is not None
    assert found[0] < 0.35
    assert found[1] > 0.65
    # Wilson (1927) of 10 of 20, if each sample has one place
    classes = _interval(Difference(0.0, {}, {"map": shares}, 1, is_finite=True))
    assert classes == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert _interval(Difference(0.0, {}, {}, 1, is_finite=True)) is None


@pytest.mark.parametrize("by", ["multiply-adds", "parameters"])
def test_open_lengths(tmp_path: Path, by: str) -> None:
    """--input-shape decides the costs: the dense layers do not depend on it."""
    net = Network()
    a = net.relu(net.conv(net.relu(net.conv("x", 8)), 12))
    logits = net.dense(net.relu(net.dense(net.flat(net.mean(a), 12), 16)), 5)
    shape = ("batch", 3, "height", "width")
    nodes = [*net.nodes, node("Softmax", [logits], ["y"], "softmax", axis=-1)]
    onnx_model(nodes, net.constants, x=shape, outputs={"y": ("batch", 5)}).write(
        tmp_path / "net.onnx"
    )
    np.savez(tmp_path / "data.npz", x=numbers(36, 1, 3, SIDE, SIDE))
    given: dict[str, Any] = {**SMALL, "multiple": 1, "data": tmp_path / "data.npz", "by": by}
    source, out = tmp_path / "net.onnx", tmp_path / "small.onnx"
    lengths: dict[str, Any] = {"input_shapes": {"x": (1, 3, SIDE, SIDE)}}
    if by == "parameters":
        lengths = {}
    else:
        with pytest.raises(UsageError, match="not known") as error:
            exporter.trim(source, out, target=0.5, **given)
        assert "--by parameters" in (error.value.hint or "")
    report = exporter.trim(source, out, target=0.5, **given, **lengths)
    (row,) = report.trimmed
    if by == "parameters":
        assert row.parameters <= 0.5 * row.original_parameters
        assert row.multiply_adds is None
    else:
        places = SIDE * SIDE
        assert row.original_multiply_adds == places * 9 * (3 * 8 + 8 * 12) + 12 * 16 + 16 * 5
        assert (row.multiply_adds or 0) <= 0.5 * row.original_multiply_adds


def test_rows_of_each_product_are_counted(tmp_path: Path) -> None:
    """Twelve samples calibrate: enough for the convolution, which has 81 places in each."""
    net = Network()
    features = net.flat(net.mean(net.relu(net.conv(net.relu(net.conv("x", 8)), 16))), 16)
    net.done(net.relu(net.dense(features, 24))).write(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=numbers(24, 1, 3, SIDE, SIDE))
    given: dict[str, Any] = {**SMALL, "data": tmp_path / "data.npz", "held_out": 0.5}
    report = exporter.trim(tmp_path / "net.onnx", tmp_path / "small.onnx", target=0.7, **given)
    (text,) = (each for each in report.warnings if "ridge" in each)
    assert text.startswith("12 calibration samples give 12 rows for 24 inputs of 'n_t8', ")
    assert "12 rows for 16 inputs of 'n_t6', so that" in text
