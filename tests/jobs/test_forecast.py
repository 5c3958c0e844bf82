"""Forecasts, compared with the files that the jobs write and with counts made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import exporter
from exporter.errors import NotAllowedError, UsageError
from exporter.forecast.forecast import Forecast
from exporter.formats import open_model, size_bytes
from exporter.formats.model import Model
from exporter.jobs import head_share
from exporter.jobs.forecast import forecast_job
from exporter.jobs.job import Job
from exporter.jobs.prune import prune_file
from exporter.planning.cut import CutOptions
from tests.builders.keras_heads import HEADS
from tests.builders.onnx_models import node, numbers, proto
from tests.builders.shelf import FEATURES
from tests.builders.tflite_builder import Builder

pytestmark = pytest.mark.usefixtures("jobs_share_child")

KEPT = [1, 4, 6]
HIDDEN, CLASSES = 40, 64
EVERY = ("fp32", "fp16", "dynamic", "int8", "int16x8", "int4")
WITHOUT_CHECKS: Mapping[str, Any] = {"verify": False, "bench": False}


def two_layers() -> onnx.ModelProto:
    """x[6] -> 40 -> relu -> 64 -> softmax."""
    return proto(
        [
            node("Gemm", ["x", "first", "offset"], ["h"], "hidden"),
            node("Relu", ["h"], ["r"], "relu"),
            node("Gemm", ["r", "kernel", "bias"], ["z"], "head"),
            node("Softmax", ["z"], ["y"], "softmax", axis=1),
        ],
        {
            "first": numbers(FEATURES, HIDDEN),
            "offset": numbers(HIDDEN),
            "kernel": numbers(HIDDEN, CLASSES),
            "bias": numbers(CLASSES),
        },
        outputs={"y": ("batch", CLASSES)},
    )


def two_layers_tflite() -> bytes:
    builder = Builder()
    hidden = builder.dense(builder.feed("x", 1, FEATURES), HIDDEN, "hidden")
    builder.softmax(builder.dense(hidden, CLASSES, "logits"), "y")
    return builder.content("y")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forecast")
    onnx.save(two_layers(), folder / "two.onnx")
    onnx.save(
        two_layers(),
        folder / "external.onnx",
        save_as_external_data=True,
        location="external.data",
        size_threshold=100,
    )
    (folder / "two.tflite").write_bytes(two_layers_tflite())
    np.savez(folder / "points.npz", x=numbers(30, FEATURES))
    return folder


def written(report: exporter.Report, folder: Path) -> dict[str, int]:
    """Kind and precision -> bytes of all files of the model."""
    return {
        f"{each.kind} {each.precision}": size_bytes(folder / each.path) for each in report.artifacts
    }


def sizes(forecast: Forecast | None) -> dict[str, int | None]:
    assert forecast is not None
    return {file.name: file.counts.bytes for file in forecast.files}


# --- sizes --------------------------------------------------------------------------------------

CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "onnx": ("two.onnx", {"keep": KEPT}),
    "tflite": ("two.tflite", {"keep": KEPT}),
    "weights in a file next to the model": ("external.onnx", {"keep": KEPT}),
    "all units": ("two.onnx", {"keep": "0-63"}),
    "another mode": ("two.tflite", {"remove": KEPT, "mode": "mask"}),
    "padded to the old width": ("two.onnx", {"keep": KEPT, "restore_width": True}),
    "merged": ("two.onnx", {"keep": KEPT, "merge": {"rest": "7-9"}}),
    "onnx, quantized": ("two.onnx", {"keep": KEPT, "precisions": EVERY}),
    "tflite, quantized": ("two.tflite", {"keep": KEPT, "precisions": EVERY[:4]}),
    "integer inputs": ("two.tflite", {"keep": KEPT, "precisions": "int8", "integer_io": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_sizes_are_those_of_the_files(case: str, work: Path, tmp_path: Path) -> None:
    """Exact; within 1 % where the job calibrates on other inputs."""
    name, options = CASES[case]
    found = exporter.inspect(work / name, **options).forecast
    assert found is not None
    job = {**options, **WITHOUT_CHECKS, "synthetic_calibration": True, "samples": 9, "seed": 5}
    report = exporter.run(work / name, tmp_path / "out", **job)
    expected = written(report, tmp_path / "out")
    assert sizes(found).keys() == expected.keys()
    for file in found.files:
        size = expected[file.name]
        assert file.counts.bytes == (size if file.is_exact else pytest.approx(size, rel=0.01))
        assert file.is_exact == (file.precision not in {"int8", "int16x8"})
        assert file.original.bytes == size_bytes(work / name)


def test_quantized_before_the_cut(work: Path, tmp_path: Path) -> None:
    job = Job(precisions=("fp32", "fp16"), quantize_first=True, **WITHOUT_CHECKS)
    options = CutOptions(keep=KEPT)
    found = forecast_job(work / "two.tflite", {"": options}, job)[""]
    report = exporter.run(
        work / "two.tflite",
        tmp_path / "out",
        keep=KEPT,
        precisions=("fp32", "fp16"),
        quantize_first=True,
        **WITHOUT_CHECKS,
    )
    assert sizes(found) == written(report, tmp_path / "out")


@pytest.mark.parametrize("name", ["two.onnx", "two.tflite", "external.onnx"])
def test_one_file_of_prune(name: str, work: Path, tmp_path: Path) -> None:
    out, options, job = tmp_path / name, CutOptions(keep=KEPT), Job(verify=False)
    found = forecast_job(work / name, {"": options}, job, out)[""]
    assert not list(tmp_path.iterdir())
    prune_file(work / name, out, options, job)
    (file,) = found.files
    assert file.counts.bytes == size_bytes(out)


def test_keras(keras_shelf: Path, tmp_path: Path) -> None:
    """Converted to both formats as `run` does; cut as it is for `prune`."""
    net = keras_shelf / "net.keras"
    options: dict[str, Any] = {"keep": KEPT, "precisions": ("fp32", "fp16")}
    found = exporter.inspect(net, **options)
    report = exporter.run(net, tmp_path / "out", **options, **WITHOUT_CHECKS)
    assert sizes(found.forecast) == written(report, tmp_path / "out")
    for name in ("net.keras", "net.h5"):
        cut, out = CutOptions(keep=KEPT), tmp_path / name
        alone = forecast_job(keras_shelf / name, {"": cut}, Job(verify=False), out)[""]
        prune_file(keras_shelf / name, out, cut, Job(verify=False))
        assert alone.files[0].counts.bytes == pytest.approx(out.stat().st_size, rel=0.01)
        assert alone.kind == "keras"


def test_a_head_that_is_cut_before_the_conversion(tmp_path: Path) -> None:
    model = HEADS["TimeDistributed Dense with softmax"].made()
    model.save(tmp_path / "steps.keras")
    found = exporter.inspect(tmp_path / "steps.keras", keep=KEPT, to="onnx").forecast
    out = tmp_path / "out"
    report = exporter.run(tmp_path / "steps.keras", out, keep=KEPT, to="onnx", **WITHOUT_CHECKS)
    assert sizes(found) == written(report, out)
    assert found is not None
    assert report.artifacts[0].route.startswith("cut in Keras")
    assert found.kind == "keras"
    assert any("was cut in Keras" in warning for warning in found.warnings)


# --- counts and bounds --------------------------------------------------------------------------


def test_counts_by_hand(work: Path) -> None:
    found = exporter.inspect(work / "two.onnx", keep=KEPT).forecast
    assert found is not None
    (file,) = found.files
    body = FEATURES * HIDDEN
    assert file.original.multiply_adds == body + HIDDEN * CLASSES
    assert file.counts.multiply_adds == body + HIDDEN * 3
    assert file.original.parameters == body + HIDDEN + HIDDEN * CLASSES + CLASSES
    assert file.counts.parameters == body + HIDDEN + HIDDEN * 3 + 3
    assert file.counts.memory.weights_bytes == 4 * file.counts.parameters
    assert file.counts.memory.activation_bytes == 4 * 2 * HIDDEN
    assert file.original.memory.activation_bytes == 4 * 2 * CLASSES
    share = HIDDEN * CLASSES / (body + HIDDEN * CLASSES)
    assert file.bound.share == pytest.approx(share)
    assert file.bound.kept == pytest.approx(3 / CLASSES)
    assert file.bound.speedup == pytest.approx((body + HIDDEN * CLASSES) / (body + HIDDEN * 3))
    record = found.to_dict()
    assert (record["units"], record["kept"], record["kept_labels"]) == (CLASSES, KEPT, None)
    assert record["files"] == [file.to_dict()]
    assert record["verdict"] == [record["files"][0]["verdict"]]


def test_quantized_files_have_the_counts_of_the_float_file(work: Path) -> None:
    found = exporter.inspect(work / "two.onnx", keep=KEPT, precisions=EVERY).forecast
    assert found is not None
    first, *others = found.files
    assert len(others) == 5
    for file in others:
        assert file.counts.parameters == first.counts.parameters
        assert file.counts.multiply_adds == first.counts.multiply_adds
        assert file.counts.memory.weights_bytes < first.counts.memory.weights_bytes


@pytest.mark.parametrize("mode", ["zero", "mask"])
def test_a_mode_that_keeps_the_width_saves_no_work(mode: str, work: Path) -> None:
    found = exporter.inspect(work / "two.onnx", keep=KEPT, mode=mode).forecast
    assert found is not None
    (text,) = found.verdict
    assert text.endswith("latency will not change: no work is removed")


def unknown_work() -> onnx.ModelProto:
    """An operation of another library, with a matrix, before the head."""
    return proto(
        [
            node("CustomThing", ["x", "mix"], ["e"], "strange", domain="somewhere"),
            node("Gemm", ["e", "kernel"], ["y"], "head"),
        ],
        {"mix": numbers(FEATURES, 8), "kernel": numbers(8, CLASSES)},
        outputs={"y": ("batch", CLASSES)},
        domains={"somewhere": 1},
    )


def test_unknown_work_has_no_bound(tmp_path: Path) -> None:
    onnx.save(unknown_work(), tmp_path / "strange.onnx")
    found = exporter.inspect(tmp_path / "strange.onnx", keep=KEPT).forecast
    assert found is not None
    (file,) = found.files
    assert file.counts.multiply_adds is None
    assert file.bound.share is None
    assert file.bound.kept == 3 / CLASSES, "of the units"
    assert file.to_dict()["latency"]["speedup_bound"] is None


# --- the measured share -------------------------------------------------------------------------


@dataclass
class Timed:
    """A simulated bench.

    Attributes:
        speedups: the interval that it measures.
        pairs: the units of the two models of each measurement.
    """

    speedups: tuple[float, float] = (1.9, 2.0)
    pairs: list[tuple[int | None, int | None]] = field(default_factory=list)

    def bench(self, original: Model, small: Model, feeds: Any, _options: Any) -> Any:
        assert len(feeds) == 16
        self.pairs.append((original.graph().shape("y")[1], small.graph().shape("y")[1]))
        return SimpleNamespace(speedup_ci95=self.speedups)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    made = Timed()
    monkeypatch.setattr(head_share, "bench_models", made.bench)
    return made


def test_measured_share(work: Path, timed: Timed) -> None:
    """Half of the time is saved by removing 63 of 64 units: the share is 0.5 * 64 / 63."""
    found = exporter.inspect(work / "two.onnx", keep=KEPT, measure_share=True).forecast
    assert found is not None
    assert timed.pairs == [(CLASSES, 1)]
    bound = found.files[0].bound
    assert bound.source == "measured"
    assert bound.share == pytest.approx(0.5 * 64 / 63)
    assert bound.speedup == pytest.approx(1 / (1 - 0.5 * 64 / 63 * 61 / 64))
    assert bound.interval == pytest.approx(((1 - 1 / 1.9) * 64 / 63, 0.5 * 64 / 63))
    assert "of the measured time" in found.verdict[0]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        pytest.param((0.9, 1.05), (), id="narrow"),
        pytest.param((0.5, 4.0), ("is between 0% and 76%: measure again",), id="wide"),
    ],
)
def test_a_wide_interval_is_a_warning(
    speedups: tuple[float, float], expected: tuple[str, ...], work: Path, timed: Timed
) -> None:
    timed.speedups = speedups
    found = exporter.inspect(work / "two.onnx", keep=KEPT, measure_share=True).forecast
    assert found is not None
    assert len(found.warnings) == len(expected)
    assert all(text in found.warnings[0] for text in expected)


def test_only_the_float_file_is_measured(work: Path, timed: Timed) -> None:
    both = ("fp32", "fp16")
    found = exporter.inspect(work / "two.onnx", keep=KEPT, precisions=both, measure_share=True)
    assert found.forecast is not None
    assert [file.bound.source for file in found.forecast.files] == ["measured", "counted"]
    assert len(timed.pairs) == 1


def test_nothing_is_measured_if_no_unit_is_removed(work: Path, timed: Timed) -> None:
    found = exporter.inspect(work / "two.onnx", keep="0-63", measure_share=True).forecast
    assert found is not None
    assert (found.files[0].bound.source, found.files[0].bound.kept) == ("counted", 1)
    assert timed.pairs == []


# --- variants, warnings, refusals ---------------------------------------------------------------


def test_variants_are_converted_once(work: Path) -> None:
    variants = {"a": CutOptions(keep=[1]), "b": CutOptions(remove=[1])}
    found = forecast_job(work / "two.onnx", variants, Job())
    assert [found[name].cut.remap.heads[0].new_units for name in "ab"] == [1, CLASSES - 1]
    assert found["a"].warnings == ("softmax over one unit always returns 1.0",)
    assert found["b"].warnings == ()


def test_missing_calibration_is_a_warning(work: Path) -> None:
    cut = {"": CutOptions(keep=KEPT)}
    without = Job(precisions=("int8", "int16x8"))
    (text,) = forecast_job(work / "two.onnx", cut, without)[""].warnings
    assert text.startswith("int8 and int16x8 will need inputs to calibrate on")
    data = Job(precisions=("int8",), data=work / "points.npz")
    assert forecast_job(work / "two.onnx", cut, data)[""].warnings == ()


Call = Callable[[Path], object]
REFUSED: Mapping[str, tuple[Call, type[Exception], str]] = {
    "no such unit": (
        lambda work: exporter.inspect(work / "two.onnx", keep=[64]),
        UsageError,
        "there is no unit 64",
    ),
    "a kind that it cannot become": (
        lambda work: exporter.inspect(work / "two.onnx", keep=[1], to="tflite"),
        UsageError,
        "cannot be converted",
    ),
    "options without a selection": (
        lambda work: exporter.inspect(work / "two.onnx", precisions="fp16"),
        UsageError,
        "no units are chosen",
    ),
    "a measurement without a selection": (
        lambda work: exporter.inspect(work / "two.onnx", measure_share=True),
        UsageError,
        "no units are chosen",
    ),
    "weights that are not finite": (
        lambda work: exporter.inspect(work / "nan.onnx", keep=[1]),
        NotAllowedError,
        "NaN",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, work: Path) -> None:
    broken = two_layers()
    broken.graph.initializer[3].CopyFrom(
        onnx.numpy_helper.from_array(np.full(CLASSES, np.nan, np.float32), "bias")
    )
    onnx.save(broken, work / "nan.onnx")
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        call(work)


# --- the zoo ------------------------------------------------------------------------------------

ZOO = {
    "mobilenet_v1_025_224_float.tflite": ("tflite fp32", "1-9,500"),
    "mobilenet_v1_025_224_uint8_metadata.tflite": ("tflite uint8", "1-9,500"),
    "coco_ssd_mobilenet_v1_uint8_metadata.tflite": ("tflite uint8", "person,car"),
    "automl_flowers_uint8_metadata.tflite": ("tflite uint8", "1-3"),
    "light_resnet50.onnx": ("onnx fp32", "1-9"),
}


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, zoo: Path, tmp_path: Path) -> None:
    row, keep = ZOO[name]
    found = exporter.inspect(zoo / name, keep=keep).forecast
    report = exporter.run(zoo / name, tmp_path / "out", keep=keep, **WITHOUT_CHECKS)
    assert sizes(found) == written(report, tmp_path / "out")
    assert list(sizes(found)) == [row]


def test_forecast_of_an_open_model_leaves_it_unchanged(work: Path) -> None:
    before = (work / "two.onnx").read_bytes()
    exporter.inspect(work / "two.onnx", keep=KEPT)
    assert (work / "two.onnx").read_bytes() == before
    assert open_model(work / "two.onnx").graph().shape("y") == (None, CLASSES)
