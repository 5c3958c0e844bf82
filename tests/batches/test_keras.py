"""A Keras model is converted once for all cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import exporter as package
from tests.builders.batches import FAST, made


def test_each_format_is_converted_once(
    keras_shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(keras_shelf / "net.keras", tmp_path / "net.keras")
    (tmp_path / "bad.keras").write_bytes((tmp_path / "net.keras").read_bytes()[:500])
    monkeypatch.chdir(tmp_path)
    plan: dict[str, Any] = {
        "models": {"net": "net.keras", "bad": "bad.keras"},
        "selections": {"a": "0,1"},
        "formats": ["onnx", "tflite"],
        "options": FAST,
    }
    batch = package.batch(plan, "out", workers=1)
    status = {row["name"]: row["status"] for row in batch.cells}
    expected = {"net/a.onnx": "passed", "net/a.tflite": "passed"}
    assert status == {**expected, "bad/a.onnx": "error", "bad/a.tflite": "error"}
    conversions = [task for task in made(tmp_path / "out") if task.startswith("converted/net")]
    assert [task.split(".")[1] for task in conversions] == ["onnx", "tflite"]
    report = json.loads((tmp_path / "out" / "net" / "a.onnx" / "report.json").read_text())
    assert {check["stage"] for check in report["checks"]} == {"cut", "export"}
    assert report["artifacts"][0]["route"]

    before = made(tmp_path / "out")
    one = {**plan, "models": {"net": "net.keras"}, "selections": {"a": "0,1", "b": "2-4"}}
    (tmp_path / "out" / conversions[0] / "original.onnx").unlink()  # damaged: converted again
    assert package.batch(one, "out", workers=1).ok, made(tmp_path / "out")
    again = made(tmp_path / "out")[len(before) :]
    assert sorted(again) == sorted([*conversions, "net/b.onnx", "net/b.tflite"])
    lines = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()
    seconds = {each["task"]: each["seconds"] for each in map(json.loads, lines[len(before) :])}
    assert seconds[conversions[1]] < seconds[conversions[0]]  # that one was there

    command = report["command"].removeprefix("exporter ")
    assert command.startswith("run net.keras -o net/a.onnx --keep 0,1")
