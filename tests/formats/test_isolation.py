"""Libraries run in a process of their own: a crash, a hang or too much memory is one error."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from exporter.errors import ConversionError, ExporterError, ModelError, UsageError
from exporter.formats.isolation import Limits, call, is_isolated, isolated, runner_of
from exporter.graph import Array

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")


def _killed() -> Mapping[str, Array]:
    faulthandler.disable()  # pytest would print where
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def _exits() -> Mapping[str, Array]:
    os._exit(3)


def _hangs() -> Mapping[str, Array]:
    time.sleep(60)
    return {}


def _takes_memory() -> Mapping[str, Array]:
    return {"bytes": np.array(np.ones(1 << 26).nbytes)}  # 0.5 GiB


def _fails() -> Mapping[str, Array]:
    raise KeyError("unit")


def _refuses() -> Mapping[str, Array]:
    message, hint = "no such input", "give another one"
    raise UsageError(message, hint)


FAILURES: dict[str, tuple[Callable[[], Mapping[str, Array]], type[ExporterError], str]] = {
    "signal": (_killed, ModelError, "reading net: the process was killed by SIGSEGV"),
    "exit": (_exits, ModelError, "reading net: the process ended with exit status 3"),
    "time": (_hangs, ConversionError, "reading net took longer than 0.5 s"),
    "memory": (_takes_memory, ModelError, "reading net needs more than 0.27 GB of memory"),
    "exception": (_fails, ModelError, "reading net failed: KeyError: 'unit'"),
    "refusal": (_refuses, UsageError, "no such input"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_error(name: str) -> None:
    work, kind, message = FAILURES[name]
    with isolated(Limits(0.5)), pytest.raises(ExporterError) as caught:
        call("reading net", 100, work)
    assert type(caught.value) is kind
    assert caught.value.message == message
    assert caught.value.hint


def test_no_process_is_left() -> None:
    before = {child.pid for child in psutil.Process().children()}
    for work, _, _ in FAILURES.values():
        with isolated(Limits(0.5)), pytest.raises(ExporterError):
            call("reading net", 100, work)
    assert {child.pid for child in psutil.Process().children()} == before


def test_a_short_limit_of_the_work_means_a_damaged_file() -> None:
    with isolated(Limits(60)), pytest.raises(ModelError, match=r"took longer than 0\.3 s"):
        call("reading net", 100, _hangs, most_s=0.3)


def test_the_traceback_of_another_error_is_a_note() -> None:
    with isolated(Limits(60)), pytest.raises(ModelError) as caught:
        call("reading net", 100, _fails)
    (note,) = caught.value.__notes__
    assert "in _fails" in note


def test_the_memory_limit_is_the_users() -> None:
    with isolated(Limits(60, memory_bytes=1 << 30)):
        assert call("reading net", 100, _takes_memory)["bytes"] == 1 << 29


ARRAYS: dict[str, Array] = {
    "float16": np.arange(6, dtype=np.float16).reshape(2, 3),
    "big-endian strides": np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    "no elements": np.zeros((0, 3), np.int8),
    "rank 0": np.array(3.5, np.float32),
    "bool": np.array([True, False]),
    "text": np.array([["a", "ü"], ["", "b"]], object),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_cross_unchanged(name: str) -> None:
    value = ARRAYS[name]
    with isolated(Limits(60)):
        answer = call("reading net", 100, lambda: {name: value})
    assert answer[name].dtype == value.dtype
    assert answer[name].shape == value.shape
    np.testing.assert_array_equal(answer[name], value)


class _Doubles:
    engine = "doubler 1.0"

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.runs += 1
        if "stop" in inputs:
            _killed()
        if "wrong" in inputs:
            _refuses()
        return {
            "y": 2 * inputs["x"],
            "runs": np.array(self.runs),
            "pid": np.array(os.getpid()),
        }


def test_a_runner_answers_many_times_and_survives_refusals() -> None:
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    assert runner.engine == "doubler 1.0"
    first = runner({"x": np.arange(3)})
    with pytest.raises(UsageError, match="no such input"):
        runner({"wrong": np.zeros(1)})
    third = runner({"x": np.ones(2)})
    assert first["y"].tolist() == [0, 2, 4]
    assert third["runs"] == 3
    assert first["pid"] == third["pid"] != os.getpid()


def test_a_runner_that_dies_says_so_each_time() -> None:
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    for _ in range(2):
        with pytest.raises(ModelError, match="running net: the process"):
            runner({"stop": np.zeros(1)})


def test_a_dropped_runner_leaves_no_process() -> None:
    """Its process is killed at once, and waited for when the next one starts."""
    before = {child.pid for child in psutil.Process().children()}
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
        assert runner({"x": np.ones(1)})["y"] == 2
        del runner
        call("reading net", 100, dict)
    assert {child.pid for child in psutil.Process().children()} == before


def test_without_limits_everything_runs_here() -> None:
    with isolated(Limits(60)), isolated(None):
        assert not is_isolated()
        assert call("reading net", 1, lambda: {"pid": np.array(os.getpid())})["pid"] == os.getpid()
        assert isinstance(runner_of("running net", 1, _Doubles), _Doubles)


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """A parent that is killed cannot clean up: the kernel ends the process."""
    note = tmp_path / "pid"
    parent = os.fork()
    if not parent:
        with isolated(Limits(60)):
            runner = runner_of("running net", 100, _Doubles)
        note.write_text(str(runner({"x": np.ones(1)})["pid"]))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    process = int(note.read_text())
    for _ in range(100):
        if not psutil.pid_exists(process):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the process is still running")
