"""`run --trim`: trimmed files next to the pruned ones, in one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import exporter
from exporter.cli import run as run_command
from exporter.errors import ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.model import RunOptions
from exporter.report.view import cards, headline
from tests.builders.channel_models import SIDE, network
from tests.builders.onnx_models import numbers

SMALL: dict[str, Any] = {"multiple": 4, "bench": False, "plots": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run_trim")
    x = numbers(80, 1, 3, SIDE, SIDE)
    network("plain").write(path / "net.onnx")
    np.savez(path / "data.npz", x=x, labels=np.arange(80) % 5)
    return path


@pytest.fixture(scope="module")
def report(folder: Path) -> exporter.Report:
    found: exporter.Report = exporter.run(
        folder / "net.onnx",
        folder / "out",
        keep=[0, 1, 3],
        data=folder / "data.npz",
        trim=True,
        target=0.6,
        precisions=("fp32", "int8"),
        min_accuracy=0.01,
        **SMALL,
    )
    assert "--trim --target 0.6" in found.command
    return found


def test_each_pruned_file_has_a_trimmed_one(folder: Path, report: exporter.Report) -> None:
    names = [artifact.path for artifact in report.artifacts]
    assert names == [f"{stem}.{p}.onnx" for stem in ("pruned", "trimmed") for p in ("fp32", "int8")]
    size = {each.path: each.bytes for each in report.artifacts}
    assert size["trimmed.fp32.onnx"] < size["pruned.fp32.onnx"]
    (row,) = report.trimmed
    assert row.artifact == "trimmed.fp32.onnx"
    assert (row.multiply_adds or 0) <= 0.6 * (row.original_multiply_adds or 0)
    assert {c.artifact for c in report.checks if c.stage == "trim"} == {"trimmed.fp32.onnx"}
    assert "trimmed.fp32.onnx: trimmed, not equal to the original" in headline(report)
    assert headline(report).startswith("3 of 5 units kept: fp32 is proved to match the original")
    assert (row.calibration_samples, row.held_out_samples) == (36, 12)  # of three kept classes


def test_cards_say_what_a_trimmed_file_was_compared_with(report: exporter.Report) -> None:
    notes = {
        card.artifact.path: measure.note
        for card in cards(report)
        for measure in card.measures
        if measure.title == "Top-1 agreement"
    }
    assert notes == {
        "pruned.int8.onnx": "same first answer as the original",
        "pruned.fp32.onnx": "same first answer as the original",
        "trimmed.fp32.onnx": "same first answer as the untrimmed file, on held-out samples",
        "trimmed.int8.onnx": "same first answer as the trimmed float file",
    }


def test_the_agreement_is_that_of_both_files(folder: Path, report: exporter.Report) -> None:
    """On the samples that were held out, with the runtime itself."""
    x = np.load(folder / "data.npz")["x"][:, 0]
    first, second = (
        np.concatenate([runner({"x": each})["y"] for each in x[:, None]]).argmax(1)
        for runner in (
            open_model(folder / "out" / f"{stem}.fp32.onnx").runner(RunOptions())
            for stem in ("pruned", "trimmed")
        )
    )
    (row,) = report.trimmed
    assert (
        abs((first == second).mean() - (row.agreement or 0.0)) < 0.35
    )  # most samples calibrated it
    quantized = [c for c in report.checks if c.artifact == "trimmed.int8.onnx"]
    assert {c.stage for c in quantized} == {"quantize", "quality"}


def test_every_file_has_the_gate_on_the_task_quality(report: exporter.Report) -> None:
    files = {each.path for each in report.artifacts}
    gates = [check for check in report.checks if check.stage == "quality"]
    assert {check.artifact for check in gates} == files
    assert {row.artifact for row in report.quality} == files


def test_what_is_not_verified_is_not_called_so(folder: Path, tmp_path: Path) -> None:
    found = exporter.run(
        folder / "net.onnx",
        tmp_path / "out",
        keep=[0, 1, 3],
        data=folder / "data.npz",
        trim=True,
        min_agreement=1.0,
        precisions=("fp32", "int8"),
        verify=False,
        **{**SMALL, "multiple": 1000},  # of which no group has as many channels
    )
    assert {each.path: each.proof for each in found.artifacts}["trimmed.int8.onnx"] is None
    (row,) = found.trimmed
    assert row.multiply_adds == row.original_multiply_adds
    assert any(text.startswith("0 channels were removed") for text in found.warnings)


def test_only_the_precisions_that_are_wanted_are_written(folder: Path, tmp_path: Path) -> None:
    found = exporter.run(
        folder / "net.onnx",
        tmp_path / "out",
        keep=[0, 1, 3],
        data=folder / "data.npz",
        trim=True,
        target=0.6,
        precisions="int8",
        **SMALL,
    )
    names = {each.path for each in found.artifacts}
    assert names == {"pruned.int8.onnx", "trimmed.int8.onnx"}
    assert {p.name for p in (tmp_path / "out").glob("*.onnx")} == names


def test_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    given = [str(folder / "net.onnx"), "-o", str(tmp_path / "out"), "--keep", "0,1,3", "--json"]
    given += ["--data", str(folder / "data.npz"), "--no-bench", "--no-plots", "--multiple", "4"]
    done = CliRunner().invoke(
        run_command.command, [*given, "--trim", "--target", "0.6"], standalone_mode=False
    )
    assert done.return_value == 0, done.output
    record = json.loads(done.stdout)
    assert [row["artifact"] for row in record["trimmed"]] == ["trimmed.fp32.onnx"]
    assert (record["options"]["trim"], record["options"]["target"]) == (True, 0.6)
    for arguments, message in ((["--target", "0.5"], "add --trim"), (["--trim"], "--target 0.5")):
        refused = CliRunner().invoke(run_command.command, [*given, *arguments])
        assert message in getattr(refused.exception, "hint", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trim": True, "target": 0.5}, "on samples of its inputs"),
        ({"trim": True, "target": 0.5, "data": "data.npz", "quantize_first": True}, "float32"),
        ({"target": 0.5}, "--target is an option of trimmed files"),
    ],
)
def test_refused(folder: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    if "data" in options:
        options = {**options, "data": folder / options["data"]}
    with pytest.raises(UsageError, match=message):
        exporter.run(folder / "net.onnx", tmp_path / "out", keep=[0, 1], bench=False, **options)
    assert not (tmp_path / "out").exists()


def test_a_quantized_source_is_refused(zoo: Path, tmp_path: Path) -> None:
    source = zoo / "mobilenet_v1_025_224_uint8_metadata.tflite"
    data = tmp_path / "x.npz"
    np.savez(data, input=np.zeros((16, 1, 224, 224, 3), np.uint8))
    with pytest.raises(ModelError, match="refitted in float32"):
        exporter.run(
            source, tmp_path / "out", keep=[1], data=data, trim=True, target=0.5, bench=False
        )
