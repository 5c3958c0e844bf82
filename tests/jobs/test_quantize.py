"""Quantization through the command line and the API, on models with outputs computed in NumPy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import exporter as package
from exporter.data.samples import to_model_inputs
from exporter.errors import UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.graph import Array
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.quantize import for_float_checks, quality_warnings, quantization_specs
from exporter.planning.cut import CutOptions, plan_cut
from exporter.quantization import PRECISIONS, QuantizationSpec
from exporter.records import Check, Latency
from tests.builders.commands import Done, exporter, leftover_files, listing
from tests.builders.onnx_models import node, proto, softmax
from tests.builders.shelf import BIAS, FEATURES, KERNEL
from tests.builders.tflite_builder import Builder

KEPT = [1, 4, 6]
POINTS = np.random.default_rng(8).uniform(-1, 1, (120, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def work(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shelf, with valid and invalid inputs to calibrate on."""
    folder = Path(shutil.copytree(shelf, tmp_path_factory.mktemp("quantize") / "work"))
    broken = POINTS.copy()
    broken[3, 2], inf = np.nan, POINTS.copy()
    inf[5, 0] = -np.inf
    arrays = {
        "points": POINTS,
        "few": POINTS[:7],
        "nan": broken,
        "inf": inf,
        "empty": POINTS[:0],
        "wide": np.zeros((120, FEATURES + 1), np.float32),
        "text": np.array(["a"] * 120),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    content = (folder / "points.npy").read_bytes()
    (folder / "truncated.npy").write_bytes(content[: len(content) // 2])
    return folder


def succeeded(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def outputs_of(file: Path, output: str | None = None) -> Array:
    """(samples, ...) dequantized values of an output for every point; of the first by default."""
    model = open_model(file)
    graph, runner = model.graph(), model.runner(RunOptions())
    name, tensor = graph.inputs[0], graph.tensors[output or graph.outputs[0]]
    feeds = (to_model_inputs({name: point[np.newaxis]}, graph) for point in POINTS)
    return np.concatenate([tensor.dequantize(runner(feed)[tensor.name]) for feed in feeds])


def expected(kept: list[int] = KEPT) -> Array:
    return softmax((POINTS.astype(np.float64) @ KERNEL + BIAS)[:, kept])


def sqnr_db(expected: Array, actual: Array) -> float:
    noise = np.sqrt(np.square(actual - expected).mean())
    return float(20 * np.log10(np.sqrt(np.square(expected).mean()) / noise))


# --- refused: one error, and nothing written -----------------------------------------------------

REFUSED = {
    "no data": ("int8", 2, "int8 needs inputs to calibrate on", "--data FILE, or use --synthetic"),
    "wrong shape": ("int8 --data wide.npy", 2, "has the shape [120, 7]; one sample is", ""),
    "empty": ("int8 --data empty.npy", 2, "is empty", ""),
    "NaN": (
        "int8 --data nan.npy",
        2,
        "contains values that are NaN or infinite: 1 in sample 3",
        "",
    ),
    "-inf": (
        "int16x8 --data inf.npy",
        2,
        "contains values that are NaN or infinite: 1 in sample 5",
        "",
    ),
    "dtype": ("int8 --data text.npy", 2, "has dtype <U1, the input float32", ""),
    "missing": ("int8 --data nowhere.npy", 2, "nowhere.npy", ""),
    "damaged": ("int8 --data truncated.npy", 2, "truncated.npy is not a readable", "numpy.savez"),
    "calibration of the wrong shape": (
        "int8 --data points.npy --calibration wide.npy",
        2,
        "has the shape [120, 7]",
        "",
    ),
    "synthetic and given calibration": (
        "int8 --calibration points.npy --synthetic-calibration",
        2,
        "exclude each other",
        "",
    ),
    "integer inputs and outputs with float activations": (
        "fp16 --integer-io",
        2,
        "fp16 has float",
        "int8",
    ),
    "float32": ("fp32", 2, "Invalid value for '--precision'", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(work: Path, name: str) -> None:
    options, code, message, hint = REFUSED[name]
    before = listing(work)
    done = exporter(f"quantize net.onnx -o never.onnx --no-bench --precision {options}", work)
    assert (done.code, done.out) == (code, "")
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert message in error
    assert hint in done.err
    assert listing(work) == before
    assert leftover_files(work) == []


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("quantize net.onnx -o x.tflite --precision fp16", 2, "does not end in .onnx"),
        ("quantize net.onnx -o net.onnx --precision fp16 --force", 2, "is the model itself"),
        ("quantize small8.onnx -o x.onnx --precision fp16", 3, "small8.onnx is quantized already"),
        (
            "quantize nohead.onnx -o x.onnx --precision int4",
            3,
            "cannot quantize any weights of nohead.onnx",
        ),
        ("run small8.onnx -o x --keep 1 --precision int4", 3, "is quantized already (int8)"),
        ("run net.onnx -o x --keep 1 --precision int8", 2, "int8 needs inputs to calibrate on"),
        ("run net.onnx -o x --keep 1 --integer-io", 2, "fp32 has float inputs"),
    ],
)
def test_refused_for_other_reasons(work: Path, line: str, code: int, message: str) -> None:
    if not (work / "small8.onnx").exists():
        make = "quantize net.onnx -o small8.onnx --precision int8 --data points.npy --no-bench"
        succeeded(exporter(make, work))
    before = listing(work)
    done = exporter(line, work)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert listing(work) == before


@pytest.mark.parametrize("data", ["nan", "inf", "empty", "wide"])
def test_invalid_data_refused_before_tflite_runs(work: Path, tmp_path: Path, data: str) -> None:
    with pytest.raises(UsageError, match=f"{data}.npy"):
        package.quantize(
            work / "net.tflite",
            tmp_path / "never.tflite",
            precision="int8",
            data=work / f"{data}.npy",
        )
    assert not list(tmp_path.iterdir())


def test_keras_must_be_converted_first(
    keras_shelf: Path, command_here: Callable[[str, Path], Done]
) -> None:
    done = exporter("quantize net.keras -o x.keras --precision fp16", keras_shelf)
    assert (done.code, done.out) == (2, "")
    assert "error: net.keras is a Keras file, which cannot be quantized directly" in done.err
    line = "run net.keras -o x --keep 1 --to keras,onnx --precision fp16"
    done = command_here(line, keras_shelf)
    assert done.code == 2
    assert "error: Keras files cannot be quantized to fp16" in done.err


# --- quantize -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_quantize(work: Path, kind: str) -> None:
    out = work / f"integers.{kind}"
    line = f"quantize net.{kind} -o {out.name} --precision int8 --data points.npy --integer-io"
    line += " --bench-seconds 0"
    record = succeeded(exporter(f"{line} --json", work)).record
    (row,) = record["precisions"]
    assert (row["artifact"], row["precision"]) == (out.name, "int8")
    assert row["bytes"] == out.stat().st_size
    assert row["sqnr_db"] == pytest.approx(
        sqnr_db(expected(list(range(7))), outputs_of(out)), abs=1
    )
    best = outputs_of(out).argmax(axis=1) == expected(list(range(7))).argmax(axis=1)
    assert row["top1"] == pytest.approx(best.mean())
    assert row["p50_ms"] == record["latency"][0]["p50_ms"] > 0
    calibration = record["inputs"]["calibration"]
    assert (calibration["source"], calibration["samples"]) == ("points.npy", 120)
    assert {check["stage"] for check in record["checks"]} == {"quantize"}
    assert record["artifacts"][0]["precision"] == "int8"
    assert record["memory"][0]["artifact"] == out.name
    line = f"verify net.{kind} {out.name} --precision int8 --data points.npy --json"
    again = succeeded(exporter(line, work))
    assert again.record["precisions"][0]["sqnr_db"] == row["sqnr_db"]


def test_warning_about_few_samples(work: Path) -> None:
    line = "quantize net.onnx -o few.onnx --precision int8 --data few.npy --no-bench --json"
    warnings = succeeded(exporter(line, work)).record["warnings"]
    assert warnings[0].startswith("calibrated on only 7 samples: use 100 or more")


def test_warning_about_synthetic_samples(work: Path) -> None:
    line = "quantize net.tflite -o made.tflite --precision int8 --synthetic-calibration --no-bench"
    done = succeeded(exporter(line, work))
    text = " ".join(done.out.split())
    assert "calibrated on 100 synthetic samples (synthetic, seed 0): the ranges of real" in text
    assert "Calibrated on 100 synthetic samples (seed 0), not real data." in text


def test_no_file_is_written_if_the_tolerance_is_exceeded(work: Path) -> None:
    line = "quantize net.onnx -o gated.onnx --precision int8 --data points.npy --no-bench"
    strict = exporter(f"{line} --tolerance 0.0001 --json", work)
    assert strict.code == 1
    assert strict.record["artifacts"] == []
    (failed,) = [check for check in strict.record["checks"] if not check["passed"]]
    assert (failed["metric"], failed["limit"]) == ("max_abs", 0.0001)
    assert not (work / "gated.onnx").exists()
    assert succeeded(exporter(f"{line} --tolerance 0.1 --json", work)).record["ok"]
    assert (work / "gated.onnx").exists()


def test_quantized_file_keeps_the_remap(work: Path) -> None:
    succeeded(exporter("prune net.tflite -o cut.tflite --keep 1,4,6", work))
    succeeded(exporter("quantize cut.tflite -o cut4.tflite --precision int4 --no-bench", work))
    sidecar = json.loads((work / "cut4.tflite.remap.json").read_text())
    assert sidecar["heads"][0]["kept"] == KEPT
    done = succeeded(exporter("verify net.tflite cut4.tflite --data points.npy --json", work))
    stages = {check["stage"] for check in done.record["checks"] if check["metric"] == "top1"}
    assert stages == {"quantize"}


def test_quantize_in_python(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    report = package.quantize(
        work / "net.onnx", out, precision="fp16", data=work / "points.npy", bench=False
    )
    assert report.ok
    assert sqnr_db(expected(list(range(7))), outputs_of(out)) > 55
    with pytest.raises(UsageError, match="one file has one precision"):
        package.quantize(work / "net.onnx", tmp_path / "b.onnx", precision="fp32")
    with pytest.raises(UsageError, match="no precision to write"):
        package.run(work / "net.onnx", tmp_path / "c", keep=[1], precisions=[])


# --- run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_run_with_every_precision(work: Path, kind: str) -> None:
    wanted = ",".join(PRECISIONS)
    line = f"run net.{kind} -o all-{kind} --keep 1,4,6 --precision {wanted} --data points.npy"
    record = succeeded(exporter(f"{line} --no-bench --json", work)).record
    folder = work / f"all-{kind}"
    rows = {row["precision"]: row for row in record["precisions"]}
    assert list(rows) == list(PRECISIONS)
    assert rows.pop("fp32")["sqnr_db"] is None
    for precision, row in rows.items():
        file = folder / f"pruned.{precision}.{kind}"
        measured = sqnr_db(expected(), outputs_of(file))
        assert row["sqnr_db"] == pytest.approx(measured, abs=1.0)
        plain = open_model(folder / f"pruned.fp32.{kind}").remap
        assert plain is not None
        assert open_model(file).remap == replace(plain, precision=precision)
    assert {(c["stage"], c["artifact"]) for c in record["checks"]} == {
        ("cut", f"pruned.fp32.{kind}"),
        *(("quantize", f"pruned.{precision}.{kind}") for precision in rows),
    }
    report = (folder / "report.md").read_text()
    assert "## Quality and size" in report
    title = report.splitlines()[0]
    assert (
        "fp32 is proved to match the original. fp16: 100.0 % top-1 agreement, above the limit of"
        in title
    )
    assert re.search(
        "int8: .* limit of 60.0 %. int16x8: .* limit of 60.0 %. int4: .* limit of 50.0 %", title
    )


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_emitted_ids_agree_with_the_probabilities_of_each_file(
    work: Path, tmp_path: Path, kind: str
) -> None:
    """A ranking inside the model also reads the probabilities: quantization must change neither."""
    wanted = ["fp32", "fp16", "dynamic", "int8"]
    report = package.run(
        work / f"net.{kind}",
        tmp_path / "run",
        keep=KEPT,
        emit="ids:2",
        precisions=wanted,
        data=work / "points.npy",
        bench=False,
    )
    assert report.ok
    for precision in wanted:
        file = tmp_path / "run" / f"pruned.{precision}.{kind}"
        probabilities, ids = outputs_of(file), outputs_of(file, "ids")
        assert sqnr_db(expected(), probabilities) > 30
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
        np.testing.assert_array_equal(ids, np.array(KEPT)[best])


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_cut_of_a_quantized_model_is_bit_identical(
    work: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    """z of kept units are the quantized values of the original, as in a cut made without a job."""
    source = work / f"net.{kind}"
    keep: Any = {"keep": KEPT, "bench": False}
    data: Any = {"data": work / "points.npy"}
    uncut, by_hand = tmp_path / f"uncut.{kind}", tmp_path / f"hand.{kind}"
    package.quantize(source, uncut, precision=precision, bench=False, **data)
    first = package.run(
        source, tmp_path / "first", precisions=[precision], quantize_first=True, **keep, **data
    )
    cut = [c for c in first.checks if c.stage == "cut" and precision in c.artifact]
    (z,) = [c for c in cut if c.output.endswith("(z)") and c.metric == "max_abs"]
    assert (z.value, z.limit, z.samples) == (0.0, 0.0, 120)
    name = f"pruned.{precision}.{kind}"
    assert [artifact.path for artifact in first.artifacts] == [name]
    cut_model = open_model(uncut).apply(plan_cut(open_model(uncut), CutOptions(keep=KEPT)).plan)
    cut_model.write(by_hand)
    made = tmp_path / "first" / name
    np.testing.assert_array_equal(outputs_of(made), outputs_of(by_hand))
    remap: Any = open_model(made).remap
    assert remap.original.name == source.name, "the user's file, not an intermediate one"
    package.run(source, tmp_path / "then", precisions=[precision], **keep, **data)
    other = tmp_path / "then" / name
    assert sqnr_db(expected(), outputs_of(other)) > 33


def test_tolerance_does_not_change_the_limits_of_the_float_cut(work: Path) -> None:
    line = "run net.onnx -o gated --keep 1,4,6 --precision fp32,int8 --data points.npy --no-bench"
    record = exporter(f"{line} --tolerance 0.2 --json", work).record
    limits = {(c["stage"], c["limit"]) for c in record["checks"] if c["metric"] == "max_abs"}
    assert ("quantize", 0.2) in limits
    assert ("cut", 0.2) not in limits
    assert record["ok"]


# --- costs of a precision ------------------------------------------------------------------------


def timed(factor: float) -> Latency:
    """The times of a model that takes `factor` times as long as the original."""
    times, interval = (1.0, factor, factor, 1.0, 1.0), (0.999 / factor, 1.001 / factor)
    return Latency("x", "engine", 1, 1, *times, 30, 1 / factor, interval, 0.001, "slower")


@pytest.mark.parametrize(
    ("sizes", "times", "message"),
    [
        pytest.param((100, 99), (None, None), [], id="smaller, not timed"),
        pytest.param((100, 50), (timed(1.0), timed(1.0)), [], id="as fast"),
        pytest.param((100, 50), (timed(0.5), timed(0.5)), [], id="as fast as the float file"),
        pytest.param((100, 50), (None, timed(0.5)), [], id="faster"),
        pytest.param((100, 100), (None, None), ["1.00 times as large"], id="as large"),
        pytest.param((100, 131), (None, None), ["1.31 times as large"], id="larger"),
        pytest.param(
            (9, 1), (timed(1.0), timed(11.0)), ["11.00 times as slow"], id="eleven times as slow"
        ),
        pytest.param(
            (9, 1),
            (timed(0.5), timed(1.0)),
            ["2.00 times as slow"],
            id="slower than the float file",
        ),
        pytest.param(
            (9, 1), (None, timed(3.0)), ["3.00 times as slow"], id="slower than the original"
        ),
    ],
)
def test_warnings_about_size_and_speed(
    sizes: tuple[int, int], times: tuple[Latency | None, Latency | None], message: list[str]
) -> None:
    float_times, results = (CheckResults(latency=(row,) if row else ()) for row in times)
    found = quality_warnings("small.onnx", sizes[1], results, sizes[0], float_times.latency)
    warnings = [re.sub(r"^small.onnx is | as the float .*", "", line) for line in found.warnings]
    assert warnings == message


def wide(features: int, units: int) -> bytes:
    """A large TFLite matrix product, which takes a measurable time."""
    random, builder = np.random.default_rng(2), Builder()
    x = builder.feed("x", 1, features)
    names = [
        builder.constant("kernel", random.normal(size=(units, features)).astype(np.float32)),
        builder.constant("bias", random.normal(size=units).astype(np.float32)),
    ]
    z = builder.op("FULLY_CONNECTED", [x, *names], (1, units), "z", "FullyConnectedOptions")
    return builder.content(builder.softmax(z, "y"))


def appears_everywhere(done: Done, report: str, pattern: str) -> None:
    """Check that a warning is on the terminal, with its lines wrapped, and in the report."""
    assert re.search(pattern, " ".join(succeeded(done).out.split()))
    assert re.search(pattern, report)


def test_warnings_contain_factors(tmp_path: Path) -> None:
    """A file with few weights becomes larger; int16x8 is slow, as LiteRT has no fast kernels."""
    (tmp_path / "tiny.tflite").write_bytes(wide(4, 5))
    (tmp_path / "wide.tflite").write_bytes(wide(2048, 512))
    synthetic = "--synthetic-calibration --samples 4"
    run = f"run tiny.tflite -o out --keep 1,2 --precision fp32,int8 {synthetic} --no-bench"
    done = exporter(run, tmp_path)
    larger = r"pruned\.int8\.tflite is 1\.\d\d times as large as the float file"
    appears_everywhere(done, (tmp_path / "out" / "report.json").read_text(), larger)
    quantize = f"wide.tflite --precision int16x8 {synthetic}"
    done = succeeded(exporter(f"quantize {quantize} -o slow.tflite --json", tmp_path))
    slower = r"slow\.tflite is \d[\d.]* times as slow as the float file on this processor"
    assert re.search(slower, done.out)


def test_warning_about_operations_left_float(tmp_path: Path) -> None:
    """The convolution has 8 x 16 weights, the product 16 x 5: 61.5 % are in the convolution."""
    kernels = {"c": np.ones((16, 8, 1, 1), np.float32), "w": np.ones((16, 5), np.float32)}
    made = proto(
        [
            node("Conv", ["x", "c"], ["f"], "f", kernel_shape=[1, 1]),
            node("GlobalAveragePool", ["f"], ["p"], "p"),
            node("Flatten", ["p"], ["flat"], "flat"),
            node("MatMul", ["flat", "w"], ["y"], "y"),
        ],
        kernels,
        x=[1, 8, 4, 4],
        outputs={"y": [1, 5]},
    )
    onnx.save(made, tmp_path / "net.onnx")
    done = exporter("run net.onnx -o out --keep 0-4 --precision int4 --no-bench", tmp_path)
    share = r"left float at int4: 1 Conv of 2 linear operations \(61\.5% of their weights\)"
    appears_everywhere(done, (tmp_path / "out" / "report.json").read_text(), share)


@pytest.mark.parametrize(
    ("decibels", "warned"),
    [([], False), ([3.0, 0.0], False), ([3.0, None], False), ([20.0, -3.6], True)],
)
def test_warning_about_more_noise_than_signal(decibels: list[float | None], warned: bool) -> None:
    checks = [
        Check("quantize", "small.onnx", "y", "sqnr_db", value, None, passed=True, samples=4)
        for value in decibels
    ]
    found = quality_warnings("small.onnx", 1, CheckResults(tuple(checks)), 2).warnings
    assert [("more noise than signal (-3.6 dB)" in line) for line in found] == [True] * warned


def test_int4_mobilenet_has_more_noise_than_signal(zoo: Path, tmp_path: Path) -> None:
    source = zoo / "mobilenet_v1_025_224_float.tflite"
    line = f"quantize {source} -o four.tflite --precision int4 --samples 4 --no-bench"
    done = exporter(line, tmp_path)
    assert (done.code, (tmp_path / "four.tflite").exists()) == (1, False)
    assert "more noise than signal" in " ".join(done.out.split())
    asked = succeeded(exporter(f"{line} --min-sqnr -50 --min-top1 0", tmp_path))
    assert "more noise than signal" in " ".join(asked.out.split())


def test_quantization_specs_of_a_job() -> None:
    job = Job(precisions=("fp32", "fp16", "int8"), integer_io=True, tolerance=0.5)
    assert quantization_specs(job) == (
        QuantizationSpec("fp16"),
        QuantizationSpec("int8", integer_io=True),
    )
    assert for_float_checks(job).tolerance is None
    assert for_float_checks(Job(tolerance=0.5)).tolerance == 0.5
