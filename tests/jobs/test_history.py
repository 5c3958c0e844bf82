"""The history of timings, in real SQLite files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.cli.history import command as history_command
from exporter.errors import ExporterError, ModelError, OutputError, UsageError
from exporter.jobs.history import draw_history, read_history, save_timings
from exporter.jobs.job import Job
from exporter.records import Artifact, Device, Latency, Original, Report

ARTIFACT = Artifact("cut.onnx", "onnx", "fp32", 10, "b" * 64, "")
MACHINE = {"cpu": "Some CPU", "cores": 4, "memory_bytes": 1, "system": "Linux", "python": "3.11"}
VERSIONS = {"python": "3.11.7", "numpy": "2.4.6"}


def report(speedup: float, width: float = 0.01, device: str = "", **changes: Any) -> Report:
    row = Latency(
        artifact="cut.onnx",
        engine=changes.pop("engine", "onnxruntime 1.0"),
        threads=1,
        batch=1,
        original_p50_ms=10.0,
        p50_ms=10.0 / speedup,
        p90_ms=1.0,
        original_load_ms=1.0,
        load_ms=1.0,
        samples=20,
        speedup=speedup,
        speedup_ci95=(speedup * (1 - width), speedup * (1 + width)),
        noise_floor=0.01,
        verdict="faster",
        settings={"threads": 1, "batch": 1, "seed": changes.pop("seed", 0)},
        raw={"load": [1] * 1000},
        device=device,
    )
    original = Original("net.onnx", "onnx", "fp32", 20, "a" * 64)
    values: dict[str, Any] = {
        "versions": VERSIONS,
        "machine": MACHINE,
        "date": "2026-12-01T10:00:00",
    }
    return Report(
        command="",
        inputs={},
        original=original,
        remap=None,
        artifacts=(ARTIFACT,),
        latency=(row,),
        **{**values, **changes},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def test_a_regression_fails_and_is_saved(file: Path) -> None:
    """2.0 times as fast, then 1.6 times: the artifact takes 25 % more time."""
    first = save_timings(file, report(2.0), 0.05)
    assert first.checks == ()
    assert "no earlier timing" in first.warnings[0]
    second = save_timings(file, report(1.6), 0.05)
    (check,) = second.checks
    assert (check.stage, check.metric, check.passed, check.limit) == (
        "history",
        "regression",
        False,
        0.05,
    )
    assert check.value == pytest.approx(0.25)
    assert "25.0% slower than the median of 1 earlier run" in check.detail
    history = read_history(file, 0.05)
    assert not history.ok
    assert [change.trend for change in history.changes["net.onnx -> cut.onnx"]] == [
        "first",
        "slower",
    ]
    assert read_history(file, 0.5).ok
    assert read_history(file).ok


def test_without_a_limit_there_is_no_check(file: Path) -> None:
    for speedup in (2.0, 1.0):
        results = save_timings(file, report(speedup), None)
        assert (results.checks, results.warnings) == ((), ())


def test_a_wide_interval_passes_with_a_warning(file: Path) -> None:
    save_timings(file, report(2.0), 0.05)
    results = save_timings(file, report(1.6, width=0.3), 0.05)
    assert [check.passed for check in results.checks] == [True]
    assert "too wide to show a regression of 5%" in results.warnings[0]


OTHERS: list[Any] = [
    pytest.param({"machine": {**MACHINE, "cpu": "Other"}}, True, id="processor"),
    pytest.param({"versions": {**VERSIONS, "numpy": "2.5"}}, True, id="version"),
    pytest.param({"engine": "onnxruntime 1.1"}, True, id="runtime"),
    pytest.param({"engine": "onnxruntime 1.0, xnnpack"}, True, id="provider"),
    pytest.param({"machine": {**MACHINE, "memory_bytes": 2}}, False, id="memory after a reboot"),
    pytest.param({"versions": {**VERSIONS, "keras": "4"}}, False, id="a library that is not used"),
    pytest.param({"seed": 3}, False, id="seed"),
]


@pytest.mark.parametrize(("changes", "is_new"), OTHERS)
def test_only_equal_machines_and_versions_are_compared(
    file: Path, changes: dict[str, Any], is_new: bool
) -> None:
    save_timings(file, report(2.0), 0.05)
    assert (save_timings(file, report(1.6, **changes), 0.05).checks == ()) is is_new


def test_devices_have_series_of_their_own(file: Path) -> None:
    device = Device("pi", cpu="Arm", versions={"python": "3.9"})
    for name, devices in (("", ()), ("pi", (device,)), ("pi", (replace(device, governor="x"),))):
        save_timings(file, report(2.0, device=name, devices=devices), None)
    history = read_history(file)
    assert {name: len(found) for name, found in history.changes.items()} == {
        "net.onnx -> cut.onnx": 1,
        "net.onnx -> cut.onnx on pi": 2,
    }
    assert history.changes["net.onnx -> cut.onnx on pi"][1].earlier == 1
    assert list(read_history(file, artifact="on pi").changes) == ["net.onnx -> cut.onnx on pi"]


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: save_timings(file, report(2.0), 0.05), range(16)))
    (changes,) = read_history(file).changes.values()
    assert [change.earlier for change in changes] == [min(5, i) for i in range(16)]


def _text(path: Path) -> None:
    path.write_text("not a database " * 100)


def _other_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE users (name TEXT)")
    database.close()


def _damaged(path: Path) -> None:
    save_timings(path, report(2.0), None)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE timing SET latency = '{}'")
    database.close()


REFUSED: list[Any] = [
    pytest.param(_damaged, ModelError, "reading the timings of .*history.sqlite", id="damaged"),
    pytest.param(_text, UsageError, "is no history", id="text"),
    pytest.param(_other_database, UsageError, "is not a history", id="another database"),
    pytest.param(lambda path: path.mkdir(), OutputError, "cannot be used", id="folder"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_refused(
    file: Path, make: Callable[[Path], None], error: type[ExporterError], message: str
) -> None:
    make(file)
    before = file.read_bytes() if file.is_file() else b""
    with pytest.raises(error, match=message):
        save_timings(file, report(2.0), None)
    assert (file.read_bytes() if file.is_file() else b"") == before


def test_nothing_to_show(file: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_history(file)
    save_timings(file, report(2.0), None)
    with pytest.raises(UsageError, match="has no timing of owl"):
        read_history(file, artifact="owl")


def test_limit_needs_a_file() -> None:
    with pytest.raises(UsageError, match="compares with a history"):
        Job(fail_on_regression=0.05)


def test_picture(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for speedup in (2.0, 1.6, 2.5):
        save_timings(file, report(speedup), None)
    history = read_history(file)
    draw_history(history, tmp_path / "trend.svg")
    text = (tmp_path / "trend.svg").read_text()
    assert text.startswith("<svg ")
    assert "xmlns" in text[:200]
    assert "net.onnx -&gt; cut.onnx" in text
    assert "2026-12-01" in text
    assert "var(--bad)" in text  # the second is slower
    assert "--bad:" in text
    with pytest.raises(UsageError, match=r"does not end in .svg"):
        draw_history(history, tmp_path / "trend.png")


def test_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for speedup in (2.0, 1.6):
        save_timings(file, report(speedup), None)
    given = [str(file), "--fail-on-regression", "5%"]
    assert history_command.main(given, standalone_mode=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net.onnx -> cut.onnx"
    assert lines[2].split() == ["2026-12-01", "10:00", "5.00", "ms", "0.500", "-", "-", "first"]
    assert lines[3].endswith("1 by ratio  slower")
    assert "+25.0 %" in lines[3]
    assert lines[4].startswith("FAILED: at least +")
    assert history_command.main([*given, "--json"], standalone_mode=False) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["ok"]) == ("exporter/history/1", False)
    assert [each["trend"] for each in record["series"][0]["timings"]] == ["first", "slower"]
