"""Android devices: programs in place of adb and benchmark_model, which run here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter import bench, prune, verify
from exporter.devices import adb
from exporter.errors import DeviceError, ExporterError, UsageError
from tests.builders.device_programs import benchmark_model, fake_adb, path_with, program


@pytest.fixture
def here(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the programs, and with files to compare."""
    fake_adb(tmp_path)
    benchmark_model(tmp_path)
    monkeypatch.setenv("PATH", path_with(tmp_path))
    monkeypatch.delenv(adb.PROGRAM, raising=False)
    shutil.copy(shelf / "net.tflite", tmp_path)
    prune(tmp_path / "net.tflite", keep=[1, 4], verify=False).save(tmp_path / "cut.tflite")
    return tmp_path


def bench_here(here: Path, on: str = "adb://R58M123", **options: Any) -> Any:
    given = {"benchmark_model": here / "benchmark_model", **options}
    return bench(here / "net.tflite", here / "cut.tflite", on=[on], **given)


def test_measurements(here: Path) -> None:
    """The program prints 200.5 us for the original, 100.5 us for the other, and as many MB."""
    report = bench_here(here, threads=2, bench_runs=40, provider="gpu", samples=1)
    (row,) = report.latency
    assert (row.device, row.engine) == ("R58M123", "benchmark_model, gpu")
    assert row.original_p50_ms == pytest.approx(0.2005)
    assert row.p50_ms == pytest.approx(0.1005)
    assert row.original_load_ms == row.load_ms == pytest.approx(5.685)
    assert row.verdict == "faster"
    assert row.loads == row.rounds == 10
    (memory,) = report.memory
    assert (memory.original_bytes, memory.bytes, memory.device) == (
        200_250_000,
        100_250_000,
        "R58M123",
    )
    assert report.devices[0].cpu == "Phone 7"
    assert report.devices[0].memory_bytes == psutil.virtual_memory().total
    assert any("percentiles" in text for text in report.warnings)
    calls = (here / "calls").read_text().splitlines()
    assert len(calls) == 30
    for option in ("--num_threads=2", "--num_runs=4", "--use_gpu=true"):
        assert all(option in call for call in calls)
    orders = [
        "".join(call.split(".tflite")[0][-1] for call in calls[i : i + 3]) for i in range(0, 30, 3)
    ]
    assert {"".join(sorted(order)) for order in orders} == {"001"}  # the original twice
    assert len(set(orders)) > 1
    assert list((here / "android").iterdir()) == []


def test_program_on_the_device(here: Path) -> None:
    shutil.copy(here / "benchmark_model", here / "android" / "mine")
    report = bench_here(here, "adb://R5/data/local/tmp/mine", benchmark_model=None)
    assert report.latency[0].verdict == "faster"


KILLED = "#!/bin/sh\nkill -9 $$\n"
SILENT = "#!/bin/sh\necho 'ERROR: op 5 is not supported'\n"
FAILS = "#!/bin/sh\necho 'cannot open shared object' >&2; exit 1\n"
WITHOUT_MEMORY = "#!/bin/sh\necho 'Init: 5, First inference: 5, Inference (avg): 7e+01'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (KILLED, "R58M123 killed the process .* memory"),
        (SILENT, "printed no time: ERROR: op 5 is not supported"),
        (FAILS, "R58M123 cannot run .*: cannot open shared object"),
    ],
    ids=["memory", "no time", "status"],
)
def test_program_that_fails(here: Path, text: str, message: str) -> None:
    program(here / "benchmark_model", text)
    with pytest.raises(DeviceError, match=message):
        bench_here(here)
    assert list((here / "android").iterdir()) == []


def test_program_that_does_not_measure_memory(here: Path) -> None:
    program(here / "benchmark_model", WITHOUT_MEMORY)
    report = bench_here(here)
    assert report.latency[0].p50_ms == pytest.approx(0.07)
    assert report.memory == ()


REFUSED: list[Any] = [
    pytest.param("adb://gone", {}, DeviceError, "gone cannot be reached: .*not found", id="gone"),
    pytest.param("adb://full", {}, DeviceError, "not enough space on full", id="full"),
    pytest.param("adb://R5", {"benchmark_model": None}, UsageError, "needs the program", id="none"),
    pytest.param("adb://R5", {"provider": "cuda"}, UsageError, "no provider 'cuda'", id="provider"),
]


@pytest.mark.parametrize(("on", "options", "error", "message"), REFUSED)
def test_refused(
    here: Path, on: str, options: dict[str, Any], error: type[ExporterError], message: str
) -> None:
    with pytest.raises(error, match=message):
        bench_here(here, on, **options)
    assert list((here / "android").iterdir()) == []


def test_no_adb(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(adb.PROGRAM, "no-such-adb")
    with pytest.raises(DeviceError, match="no-such-adb cannot be started"):
        bench_here(here)


def test_values_cannot_be_compared(here: Path) -> None:
    with pytest.raises(UsageError, match="prints no values"):
        verify(here / "net.tflite", here / "cut.tflite", on=["adb://R5/data/local/tmp/x"])


def test_onnx_is_refused(here: Path, shelf: Path) -> None:
    with pytest.raises(UsageError, match=r"net.onnx does not run in benchmark_model"):
        bench(
            shelf / "net.onnx",
            shelf / "net.onnx",
            on=["adb://R5"],
            benchmark_model=here / "benchmark_model",
        )
