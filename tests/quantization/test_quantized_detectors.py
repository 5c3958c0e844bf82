"""Detectors in other precisions: quantized, quantized and then cut, cut and then quantized.

Expected values come from uncut files in the same runtime: from the quantized original for its cut,
and from the float original for a cut that is quantized. The positions of boxes and classes on an
axis are written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from exporter.data.samples import Samples
from exporter.errors import ConversionError
from exporter.formats.model import Model, RunOptions
from exporter.formats.onnx import from_proto
from exporter.formats.tflite import from_bytes
from exporter.graph import Array
from exporter.jobs.checks import compare_models
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_model
from exporter.planning.cut import CutOptions
from exporter.quantization import PRECISIONS, QuantizationSpec
from exporter.quantization.quantize import quantize_model
from tests.builders import onnx_suppression, ssd_models, yolo_reference, yolo_tflite
from tests.builders.commands import exporter, listing
from tests.builders.onnx_models import node, proto
from tests.builders.yolo_models import DETECTORS

KEPT = [1, 2, 4]
PRECISE = {"fp16": 45, "dynamic": 20, "int8": 20, "int16x8": 40, "int4": 10}  # dB, at least
YOLO = {
    **{f"ONNX {name}": name for name in ("v5", "v8", "v11", "YOLOX")},
    **{f"TFLite {name}": name for name in ("v5", "v8", "YOLOX")},
}
CELLS = [
    (name, precision)
    for name in YOLO
    for precision in PRECISE
    if (name.split()[0], precision) != ("ONNX", "int4")  # which is only for products
]


def fed(name: str, picture: Array) -> Array:
    return yolo_tflite.fed(picture) if name.startswith("TFLite") else picture


@cache
def yolo(name: str) -> Model:
    if name.startswith("TFLite"):
        return from_bytes(yolo_tflite.converted(YOLO[name]), "net.tflite")
    return from_proto(DETECTORS[YOLO[name]].build(), "net.onnx")


def samples(name: str) -> Samples:
    pictures = [fed(name, yolo_reference.picture(seed)) for seed in range(16)]
    return Samples({yolo(name).graph().inputs[0]: np.stack(pictures)}, "pictures")


@cache
def quantized(name: str, precision: str) -> Model:
    return quantize_model(yolo(name), QuantizationSpec(precision), samples(name)).model


def answer(name: str, model: Model, seed: int = 3) -> Array:
    graph = model.graph()
    picture = fed(name, yolo_reference.picture(seed))
    return model.runner(RunOptions())({graph.inputs[0]: picture})[graph.outputs[0]]


def decibels(wanted: Array, given: Array) -> float:
    noise = np.sqrt(np.square(given.astype(np.float64) - wanted).mean())
    return float(20 * np.log10(np.sqrt(np.square(wanted.astype(np.float64)).mean()) / noise))


def positions(name: str) -> list[int]:
    """The positions of boxes and kept classes on the output axis, computed by hand."""
    first = DETECTORS[YOLO[name]].first
    return [*range(first), *(first + unit for unit in KEPT)]


@pytest.mark.parametrize(("name", "precision"), CELLS)
def test_quantized_then_cut_matches_the_quantized_file(name: str, precision: str) -> None:
    original = quantized(name, precision)
    done = prune_model(original, CutOptions(keep=KEPT), Job(samples=4))
    assert done.results.checks
    assert done.results.passed
    expected = np.take(answer(name, original), positions(name), DETECTORS[YOLO[name]].axis)
    np.testing.assert_allclose(answer(name, done.model), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "precision"), CELLS)
def test_cut_then_quantized_is_close_to_the_float_file(name: str, precision: str) -> None:
    cut = prune_model(yolo(name), CutOptions(keep=KEPT), Job(samples=4))
    made = quantize_model(cut.model, QuantizationSpec(precision), samples(name)).model
    axis = DETECTORS[YOLO[name]].axis
    expected = np.take(answer(name, yolo(name)), positions(name), axis)
    given = answer(name, made)
    assert given.shape == expected.shape
    assert decibels(expected, given) > PRECISE[precision]
    job = Job(quantized_to=precision)
    found = compare_models(job, yolo(name), made, samples(name), cut.remap.heads)
    assert {(check.stage, check.output) for check in found.checks} == {("quantize", "y")}
    assert {check.metric for check in found.checks if check.limit is not None} == {"sqnr_db"}
    assert found.passed


# --- with a post-process --------------------------------------------------------------------------

SSDS: Mapping[str, Callable[[], Model]] = {
    "TFLite": lambda: from_bytes(ssd_models.ssd().content(*ssd_models.ROWS), "ssd.tflite"),
    "TFLite, softmax": lambda: from_bytes(
        ssd_models.ssd(activation="SOFTMAX").content(*ssd_models.ROWS), "ssd.tflite"
    ),
    "ONNX": lambda: from_proto(onnx_suppression.ssd(), "ssd.onnx"),
}
ENTERING = {"TFLite": ("encodings", "scores"), "ONNX": ("corners", "values")}


def random_samples(model: Model, count: int = 32) -> Samples:
    (name,) = model.graph().inputs
    shape = tuple(n or 1 for n in model.graph().shape(name))
    values = np.random.default_rng(4).normal(size=(count, *shape)).astype(np.float32)
    return Samples({name: values}, "noise")


@pytest.mark.parametrize("precision", ["fp16", "dynamic", "int8", "int16x8"])
@pytest.mark.parametrize("name", SSDS)
def test_inputs_of_a_post_process_are_compared_not_its_rows(name: str, precision: str) -> None:
    """The order of rows depends on the last bit: 4 dB for rows, 38 dB for their scores."""
    model = SSDS[name]()
    inputs = random_samples(model)
    cut = prune_model(model, CutOptions(keep=[1, 2]), Job(samples=4))
    boxes, classes = ENTERING[name.partition(",")[0]]
    for small, tables in (
        (quantize_model(model, QuantizationSpec(precision), inputs).model, ()),
        (quantize_model(cut.model, QuantizationSpec(precision), inputs).model, cut.remap.heads),
    ):
        checks = compare_models(Job(quantized_to=precision), model, small, inputs, tables).checks
        lost = {c.output: c.value for c in checks if c.metric == "sqnr_db"}
        assert set(lost) == {boxes, classes}
        assert all(value is not None and value > 30 for value in lost.values())
        assert {c.output for c in checks if c.metric == "top1"} == {classes}
    strict = Job(tolerance=1e-9, quantized_to=precision)
    gated = compare_models(strict, model, small, inputs, tables)
    assert not gated.passed, "a tolerance holds for what enters"


def test_scores_are_compared_if_the_number_of_boxes_differs_from_sample_to_sample() -> None:
    """Boxes below a threshold are dropped before the suppression, which reads the others."""
    model = from_proto(onnx_suppression.moved_apart(least=0.9), "net.onnx")
    inputs = random_samples(model)
    shown = onnx_suppression.moved_apart(least=0.9)
    shown.graph.output.append(helper.make_tensor_value_info("best3", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(shown.SerializeToString())
    boxes = {session.run(["best3"], {"x": x})[0].shape[-1] for x in inputs.values["x"]}
    assert len(boxes) > 1

    small = quantize_model(model, QuantizationSpec("dynamic"), inputs).model
    cut = prune_model(model, CutOptions(keep=KEPT), Job(samples=4))
    small_cut = quantize_model(cut.model, QuantizationSpec("dynamic"), inputs).model
    for made, tables in ((small, ()), (small_cut, cut.remap.heads)):
        found = compare_models(Job(quantized_to="dynamic"), model, made, inputs, tables)
        assert found.passed
        assert {check.output for check in found.checks} == {"cls4"}
        strict = Job(tolerance=1e-9, quantized_to="dynamic")
        assert not compare_models(strict, model, made, inputs, tables).passed


@pytest.mark.parametrize("precision", ["fp16", "dynamic", "int8", "int16x8"])
@pytest.mark.parametrize("name", SSDS)
def test_a_quantized_ssd_is_cut(name: str, precision: str) -> None:
    model = SSDS[name]()
    original = quantize_model(model, QuantizationSpec(precision), random_samples(model)).model
    done = prune_model(original, CutOptions(keep=[0, 3]), Job(samples=4))
    assert done.results.passed
    assert "classes" in {check.metric for check in done.results.checks}


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("build", [onnx_suppression.largest, onnx_suppression.moved_apart])
def test_class_indices_are_not_quantized(build: Callable[[], ModelProto], precision: str) -> None:
    """Quantized class indices, and boxes that are moved apart by them, could not be cut."""
    model = from_proto(build(), "net.onnx")
    original = quantize_model(model, QuantizationSpec(precision), random_samples(model)).model
    done = prune_model(original, CutOptions(keep=[1, 2]), Job(samples=4))
    assert done.results.passed
    found = compare_models(Job(quantized_to=precision), model, original, random_samples(model), ())
    assert any(check.metric == "sqnr_db" for check in found.checks), "something is compared"


# --- float16 and casts ----------------------------------------------------------------------------


def with_cast() -> Model:
    """With integers that are cast to float."""
    made = proto(
        [
            node("ArgMax", ["x"], ["id"], "id", axis=1),
            node("Cast", ["id"], ["real"], "real", to=TensorProto.FLOAT),
            node("MatMul", ["x", "w"], ["m"], "m"),
            node("Add", ["m", "real"], ["y"], "y"),
        ],
        {"w": np.eye(4, dtype=np.float32)},
        x=[1, 4],
        outputs={"y": [1, 4]},
    )
    return from_proto(made, "net.onnx")


def test_float16_does_not_change_casts() -> None:
    made = quantize_model(with_cast(), QuantizationSpec("fp16")).model
    x = np.array([[1, 2, 5, 3]], np.float32)
    assert made.runner(RunOptions())({"x": x})["y"].tolist() == [[3, 4, 7, 5]]


def test_a_library_that_writes_an_invalid_model_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(model: ModelProto, **_: Any) -> ModelProto:
        model.graph.node.append(helper.make_node("Relu", ["nowhere"], ["n"]))
        return model

    monkeypatch.setattr("onnxconverter_common.float16.convert_float_to_float16", broken)
    with pytest.raises(ConversionError, match="it wrote an invalid model"):
        quantize_model(with_cast(), QuantizationSpec("fp16"))


# --- the commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["", "--quantize-first"])
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_run_reports_the_loss_of_each_precision(kind: str, first: str, tmp_path: Path) -> None:
    if kind == "onnx":
        onnx.save(DETECTORS["YOLOX"].build(), tmp_path / "net.onnx")
    else:
        (tmp_path / "net.tflite").write_bytes(ssd_models.ssd().content(*ssd_models.ROWS))
    line = f"run net.{kind} -o out --keep 1,2 --precision fp16,dynamic,int8,int16x8 {first}"
    done = exporter(f"{line} --synthetic-calibration --no-bench --json", tmp_path)
    assert done.code == 0, done.err
    rows = {row["precision"]: row for row in done.record["precisions"]}
    assert set(rows) == {"fp16", "dynamic", "int8", "int16x8"}
    for precision, row in rows.items():
        assert row["sqnr_db"] > PRECISE[precision]
        assert row["top1"] > 0.9
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {check["stage"] for check in record["checks"]} == {"cut", "quantize"}


def test_a_quantized_detector_is_not_quantized_again(zoo: Path, tmp_path: Path) -> None:
    source = zoo / "coco_ssd_mobilenet_v1_uint8_metadata.tflite"
    before = listing(tmp_path)
    for precision in PRECISE:
        line = f"quantize {source} -o small.tflite --synthetic-calibration --precision {precision}"
        done = exporter(line, tmp_path)
        assert (done.code, done.out) == (3, "")
        assert "is quantized already (uint8)" in done.err
    assert listing(tmp_path) == before


@pytest.mark.parametrize("first", ["", "--quantize-first"])
def test_a_real_yolox(zoo: Path, tmp_path: Path, first: str) -> None:
    source = zoo / "yolox_nano_3class.onnx"
    line = f"run {source} -o out --keep 1,2 --precision fp16,int8 {first} --samples 4"
    done = exporter(f"{line} --synthetic-calibration --no-bench --json", tmp_path)
    assert done.code == 0, done.err
    kept = {row["precision"]: row["sqnr_db"] for row in done.record["precisions"]}
    assert kept["fp16"] > 45
    assert kept["int8"] > 15
    if first:
        cut = [c for c in done.record["checks"] if "int8" in c["artifact"] and c["stage"] == "cut"]
        assert {c["value"] for c in cut if c["metric"] == "max_abs"} == {0.0}


@pytest.mark.parametrize(
    "line",
    [
        "quantize net.onnx -o x.onnx",
        "run net.onnx -o x --keep 1",
        "run net.onnx -o x --keep 1 --quantize-first",
    ],
)
def test_a_precision_without_kernels_is_one_line(tmp_path: Path, line: str) -> None:
    """onnxruntime has no int4 convolution."""
    onnx.save(DETECTORS["v8"].build(), tmp_path / "net.onnx")
    before = listing(tmp_path)
    done = exporter(f"{line} --precision int4", tmp_path)
    assert (done.code, done.out) == (3, "")
    (error,) = [message for message in done.err.splitlines() if message.startswith("error: ")]
    assert "cannot quantize any weights of" in error
    assert "to int4" in error
    assert listing(tmp_path) == before


def test_every_precision_is_tested() -> None:
    assert set(PRECISE) == set(PRECISIONS) - {"fp32"}
