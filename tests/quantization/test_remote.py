"""Quantizing in the child: the same result as in this process; a crash is one line."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exporter as package
from exporter.conversion.process import Child
from exporter.data.samples import Samples
from exporter.errors import ConversionError, ModelError
from exporter.formats import open_model
from exporter.planning.cut import CutOptions, plan_cut
from exporter.quantization import QuantizationSpec
from exporter.quantization.quantize import quantize_model
from exporter.quantization.remote import quantize_in
from tests.builders.commands import exporter, leftover_files
from tests.builders.onnx_models import model, node, numbers
from tests.builders.shelf import FEATURES

POINTS = np.random.default_rng(6).uniform(-1, 1, (20, 1, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_result_is_the_same_as_in_this_process(
    shelf: Path, tmp_path: Path, child: Child, kind: str
) -> None:
    """Bytes, remap, name and warnings; also for a remap that is not in the file."""
    original = open_model(shelf / f"net.{kind}")
    original.remap = plan_cut(original, CutOptions(keep=[2, 3])).remap
    samples = Samples({original.graph().inputs[0]: POINTS}, "points.npy")
    spec = QuantizationSpec("int8", integer_io=True)
    here, there = (
        quantize_model(original, spec, samples),
        quantize_in(child, original, spec, samples),
    )
    for name, made in {"here": here, "there": there}.items():
        made.model.write(tmp_path / name)
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
    assert original.remap is not None
    stated = replace(original.remap, precision="int8")
    assert (there.model.name, there.model.remap) == (original.name, stated)
    assert open_model(tmp_path / "there").remap == stated
    assert there.warnings == here.warnings


def test_warnings_and_refusals_are_returned(child: Child) -> None:
    constants = {"kernel": numbers(6, 5), "bias": np.full(5, 1e6, np.float32)}
    huge = model([node("Gemm", ["x", "kernel", "bias"], ["y"], "gemm")], constants)
    message = quantize_in(child, huge, QuantizationSpec("fp16"), None).warnings
    assert message == ("weights exceed the range of float16: the largest, 1e+06, became 65504",)
    bare = model([node("Relu", ["x"], ["y"], "relu")], {})
    with pytest.raises(ModelError, match=r"cannot quantize any weights of network\.onnx to int4"):
        quantize_in(child, bare, QuantizationSpec("int4"), None)


def test_a_quantized_model_starts_no_child(shelf: Path) -> None:
    net = open_model(shelf / "net.onnx")
    with Child() as idle:
        small = quantize_model(net, QuantizationSpec("fp16")).model
        with pytest.raises(ModelError, match="quantized already"):
            quantize_in(idle, small, QuantizationSpec("int4"), None)
        assert idle.pid is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the signals are those of POSIX")
def test_a_crash_of_the_child_is_an_error(shelf: Path) -> None:
    def kill() -> None:
        while doomed.pid is None:
            time.sleep(0.01)
        os.kill(doomed.pid, signal.SIGSEGV)

    with Child() as doomed:
        threading.Thread(target=kill, daemon=True).start()
        message = r"quantizing net\.tflite to fp16: the child process was killed by SIGSEGV"
        with pytest.raises(ConversionError, match=message):
            quantize_in(doomed, open_model(shelf / "net.tflite"), QuantizationSpec("fp16"), None)
    assert doomed.log is not None, "it stays for people to read"
    doomed.log.unlink()


LIMITS: dict[str, tuple[dict[str, Any], str]] = {
    "time": ({"timeout_s": 0.01}, r"took longer than 0\.01 s"),
    "memory": ({"memory_limit_bytes": 10**6}, "MB of memory, more than the limit of 1 MB"),
}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("whole_job", [False, True], ids=["quantize", "run"])
@pytest.mark.usefixtures("new_processes")
def test_limits(shelf: Path, tmp_path: Path, name: str, whole_job: bool) -> None:
    limit, message = LIMITS[name]
    how: Any = {"keep": [1], "precisions": ["fp16"]} if whole_job else {"precision": "fp16"}
    call: Any = package.run if whole_job else package.quantize
    with pytest.raises(ConversionError, match=message) as caught:
        call(shelf / "net.onnx", tmp_path / "x.onnx", verify=False, bench=False, **how, **limit)
    assert not list(tmp_path.iterdir())
    if "the log is" in caught.value.hint:
        Path(caught.value.hint.rpartition(" ")[2]).unlink()


def test_a_limit_on_the_command_line(shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    line = f"quantize {shelf / 'net.tflite'} -o x.tflite --precision fp16 --memory-limit 1M -q"
    # With a variable the command starts from nothing, and so does its child.
    done = exporter(line, folder, PYTHONHASHSEED="0")
    assert (done.code, done.out) == (5, "")
    error, hint = done.err.splitlines()
    assert error.startswith("error: quantizing net.tflite to fp16 took ")
    assert "raise --memory-limit; the log is " in hint
    assert not list(folder.iterdir())
    assert [Path(name).suffix for name in leftover_files(folder)] == [".log"]
