"""The report says how a job was started, on which data, and how a failure is replayed."""

from __future__ import annotations

import hashlib
import json
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter
from exporter.data.files import DataFile
from exporter.errors import UsageError
from exporter.jobs.record import digest
from tests.builders import onnx_models as onnx
from tests.builders.commands import exporter as run_command


@pytest.fixture
def work(tmp_path: Path) -> Path:
    onnx.classifier().write(tmp_path / "net.onnx")
    np.savez(tmp_path / "x.npz", x=onnx.numbers(5, 6, seed=7))
    return tmp_path


def replay(command: str, folder: Path) -> Any:
    """The record of a command of a report, run again."""
    _, *words = shlex.split(command)
    return run_command([*words, "--json"], folder).record


# --- how it was started -------------------------------------------------------------------------


def test_a_report_from_python_has_a_command_that_repeats_it(work: Path) -> None:
    options: Any = {"keep": [0, 3], "data": work / "x.npz", "samples": 4, "bench": False}
    report = exporter.run(work / "net.onnx", work / "out", **options)
    again = replay(report.command.replace(str(work / "out"), "again"), work)
    assert [check["value"] for check in again["checks"]] == [c.value for c in report.checks]
    assert again["options"] == {**report.options, "keep": "0,3"}
    assert report.options["keep"] == [0, 3]
    assert report.options["samples"] == 4
    assert json.loads((work / "out" / "report.json").read_text())["options"] == report.options


def test_commands_of_other_functions(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    verified = exporter.verify("net.onnx", "net.onnx", samples=3)
    assert verified.command == "exporter verify net.onnx net.onnx --samples 3"
    made = exporter.quantize("net.onnx", "q.onnx", precision="fp16", bench=False)
    assert made.command == "exporter quantize net.onnx -o q.onnx --precision fp16 --no-bench"
    assert made.options["precision"] == "fp16"


def test_a_report_from_the_command_line_keeps_the_line(work: Path) -> None:
    record = run_command("prune net.onnx -o s.onnx --keep 1 -q --json --no-verify", work).record
    assert record["schema"] == "exporter/prune/1"
    record = run_command("verify net.onnx net.onnx -q --json", work).record
    assert record["command"] == "exporter verify net.onnx net.onnx -q --json"
    assert record["options"]["seed"] == 0


def test_date_and_settings(work: Path) -> None:
    report = exporter.verify(work / "net.onnx", work / "net.onnx", threads=2)
    age = datetime.now().astimezone() - datetime.fromisoformat(report.date)
    assert timedelta(0) <= age + timedelta(seconds=1) < timedelta(minutes=5)
    assert report.settings["threads"] == 2
    assert "all graph optimizations" in report.settings["runtimes"]["onnx"]
    assert report.settings["counted_samples"] == "all, of kept and of removed classes"


# --- on which data ------------------------------------------------------------------------------


def test_the_data_are_hashed(work: Path) -> None:
    expected = hashlib.sha256((work / "x.npz").read_bytes()).hexdigest()
    report = exporter.verify(work / "net.onnx", work / "net.onnx", data=work / "x.npz")
    assert report.inputs == {
        "source": "x.npz",
        "samples": 5,
        "files": 1,
        "sha256": expected,
    }
    synthetic = exporter.verify(work / "net.onnx", work / "net.onnx")
    assert "sha256" not in synthetic.inputs
    made: Any = {"precision": "int8", "bench": False, "calibration": work / "x.npz"}
    quantized = exporter.quantize(work / "net.onnx", work / "q.onnx", **made)
    assert quantized.inputs["calibration"]["sha256"] == expected


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    """As `sha256sum` lists the files: hash, two spaces, name."""
    ones, twos = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    files = [DataFile(tmp_path / "b" / "two.png", twos), DataFile(tmp_path / "a.png", ones)]
    listed = f"{ones}  a.png\n{twos}  b/two.png\n"
    assert digest(files, tmp_path) == hashlib.sha256(listed.encode()).hexdigest()
    moved = [files[0], DataFile(tmp_path / "c.png", ones)]
    assert digest(moved, tmp_path) != digest(files, tmp_path)
    assert digest(files[:1], tmp_path) == twos


# --- replays ------------------------------------------------------------------------------------


def test_a_failed_run_saves_the_input_and_its_replay(work: Path) -> None:
    line = "run net.onnx -o out --keep 0,3 --data x.npz --samples 4 --tolerance 0 --no-bench --json"
    done = run_command(line, work)
    assert done.code == 1
    worst = done.record["worst"][0]
    assert worst["file"] == "worst.pruned.fp32.onnx.npz"
    saved = np.load(work / "out" / worst["file"])["x"]
    given = np.load(work / "x.npz")["x"][worst["sample"]]
    np.testing.assert_array_equal(saved, given[np.newaxis, np.newaxis])
    assert worst["command"] == (
        "exporter verify net.onnx out/pruned.fp32.onnx "
        "--data out/worst.pruned.fp32.onnx.npz --tolerance 0.0"
    )
    again = replay(worst["command"], work)
    failed = [check for check in again["checks"] if not check["passed"]]
    first = next(check for check in done.record["checks"] if not check["passed"])
    assert failed[0]["value"] == first["value"]
    text = (work / "out" / "report.md").read_text()
    assert "## Examples of failures" in text
    assert worst["command"] in text


def test_verify_saves_an_input_if_it_is_asked_to(work: Path) -> None:
    exporter.prune(work / "net.onnx", keep=[0, 3]).save(work / "s.onnx")
    passed = run_command("verify net.onnx s.onnx --save-worst w.npz -q", work)
    assert passed.code == 0
    assert not (work / "w.npz").exists()
    failed = run_command("verify net.onnx s.onnx --tolerance 0 --save-worst w.npz --json", work)
    assert failed.code == 1
    worst = failed.record["worst"][0]
    assert worst["command"] == "exporter verify net.onnx s.onnx --data w.npz --tolerance 0.0"
    assert (worst["unit"], worst["original_unit"]) in {(0, 0), (1, 3)}
    assert replay(worst["command"], work)["inputs"]["samples"] == 1
    before = (work / "w.npz").read_bytes()
    run_command("verify net.onnx s.onnx --tolerance 0 --save-worst w.npz -q", work)
    assert (work / "w.npz").read_bytes() == before, "the same bytes each time"


def test_prune_saves_the_input_of_a_file_that_it_does_not_write(work: Path) -> None:
    line = "prune net.onnx -o s.onnx --keep 0,3 --tolerance 0 --save-worst w.npz"
    done = run_command(line, work)
    assert done.code == 1
    assert not (work / "s.onnx").exists()
    assert "exporter prune net.onnx -o s.onnx --keep 0,3 --data w.npz" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("name", "message"), [("w.npy", "does not end in .npz"), ("x.npz", "would replace the data")]
)
def test_a_wrong_place_is_refused(work: Path, name: str, message: str) -> None:
    options: Any = {"data": work / "x.npz", "save_worst": work / name}
    with pytest.raises(UsageError, match=message):
        exporter.verify(work / "net.onnx", work / "net.onnx", **options)


def test_a_converted_original_is_kept_for_the_replay(keras_shelf: Path, tmp_path: Path) -> None:
    options: Any = {"keep": [1, 2], "to": "onnx", "tolerance": 0.0, "bench": False}
    report = exporter.run(keras_shelf / "net.keras", tmp_path / "out", **options)
    assert not report.ok
    assert (tmp_path / "out" / "original.onnx").is_file()
    commands = {case.stage: case.command for case in report.worst if case.command}
    assert str(tmp_path / "out" / "original.onnx") in commands["cut"]
    assert not replay(commands["cut"], tmp_path)["ok"]


def test_a_live_model_has_no_command(keras_shelf: Path, tmp_path: Path) -> None:
    import keras  # noqa: PLC0415 - seconds, for this test only

    live = keras.models.load_model(keras_shelf / "net.keras")
    options: Any = {"keep": [1], "to": "onnx", "bench": False, "verify": False}
    report = exporter.run(live, tmp_path / "out", **options)
    assert report.command == ""
    assert report.options["keep"] == [1]
