"""Libraries run in a process of their own: a crash, a hang or too much memory is one error."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from exporter.errors import ConversionError, ExporterError, ModelError, UsageError
from exporter.formats.isolated_process import Limits
from exporter.formats.isolation import call, is_isolated, isolated, runner_of
from exporter.formats.model import RunOptions, run_each
from exporter.graph import Array
from tests.builders.onnx_models import classifier, cut

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


class _Slow(_Doubles):
    """Works 0.2 s on each sample."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        time.sleep(0.2)
        if "hang" in inputs:
            _hangs()
        return super().__call__(inputs)


@pytest.mark.parametrize("size", [1, 1000, 200_000, 700_000])  # float64: the last is 5.6 MB
@pytest.mark.parametrize("count", [0, 1, 7, 200])
def test_many_samples_are_answered_in_order(size: int, count: int) -> None:
    """Small ones several at a time, large ones through the pipe."""
    count = min(count, 7) if size > 1000 else count
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    answers = run_each(runner, ({"x": np.full(size, float(i))} for i in range(count)))
    found = [(*each["y"].shape, each["y"].min(), each["y"].max(), each["runs"]) for each in answers]
    assert found == [(size, 2.0 * i, 2.0 * i, i + 1) for i in range(count)]


def test_answers_stay_the_same_while_later_ones_are_read() -> None:
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    answers = list(run_each(runner, ({"x": np.full(10_000, i)} for i in range(300))))
    assert [set(each["y"]) for each in answers] == [{2 * i} for i in range(300)]


def test_samples_of_many_shapes_are_answered_in_order() -> None:
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    sizes = [3, 2_000_000, 0, 5, 900_000, 1, 1, 400_000, 400_000, 400_000]
    answers = run_each(runner, ({"x": np.arange(n)} for n in sizes))
    assert [each["y"].tolist() for each in answers] == [(2 * np.arange(n)).tolist() for n in sizes]


def test_a_pass_that_is_left_early_changes_no_later_answer() -> None:
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    each = run_each(runner, ({"x": np.array(i)} for i in range(100)))
    assert next(each)["y"] == 0
    assert runner({"x": np.array(7)})["y"] == 14
    assert [int(a["y"]) for a in run_each(runner, [{"x": np.array(8)}])] == [16]


def test_a_refusal_among_many_is_raised() -> None:
    with isolated(Limits(60)):
        runner = runner_of("running net", 100, _Doubles)
    inputs = [{"x" if i != 50 else "wrong": np.array(i)} for i in range(100)]
    with pytest.raises(UsageError, match="no such input"):
        list(run_each(runner, inputs))
    assert runner({"x": np.array(7)})["y"] == 14


def test_the_time_limit_is_for_each_sample() -> None:
    """Twelve samples take longer than the limit, and each of them less."""
    with isolated(Limits(0.6)):
        runner = runner_of("running net", 100, _Slow)
    assert len(list(run_each(runner, [{"x": np.zeros(1)}] * 12))) == 12
    with pytest.raises(ConversionError, match=r"took longer than 0\.6 s"):
        list(run_each(runner, [*[{"x": np.zeros(1)}] * 6, {"hang": np.zeros(1)}]))


def test_processes_that_are_forked_later_do_not_see_the_values_of_a_runner() -> None:
    before = _shared_bytes()
    with isolated(Limits(60)):
        first = runner_of("running net", 100, _Doubles)
        of_one = _shared_bytes() - before
        second = runner_of("running net", 100, _Reports)
    assert of_one > 0
    assert second({})["bytes"] == of_one
    assert first({"x": np.ones(1)})["y"] == 2


def _shared_bytes() -> int:
    """The shared memory of this process that no file contains."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    shared = [line.split()[0] for line in lines if "/dev/zero" in line]
    return sum(int(b, 16) - int(a, 16) for a, b in (each.split("-") for each in shared))


class _Reports:
    engine = "reporter 1.0"

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert not inputs
        return {"bytes": np.array(_shared_bytes())}


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


def _computes_for_ever() -> Mapping[str, Array]:
    while True:
        pass


def test_work_without_an_end_is_stopped_by_its_processor_time() -> None:
    with (
        isolated(Limits(60, processor_s=0.5)),
        pytest.raises(ConversionError, match=r"reading net took more than \d s of processor time"),
    ):
        call("reading net", 100, _computes_for_ever)


def test_each_answer_has_its_own_processor_time() -> None:
    """A runner that works for half a second per sample may serve many samples."""

    class Works(_Doubles):
        def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            ends = time.process_time() + 0.45
            while time.process_time() < ends:
                pass
            return super().__call__(inputs)

    with isolated(Limits(60, processor_s=0.5)):
        runner = runner_of("running net", 100, Works)
    for run in range(1, 4):
        assert runner({"x": np.ones(1)})["runs"] == run


LARGER = {"none": (None, 0, 0, None), "bytes": (5, 10**7, 0, 25), "work": (5, 0, 10**10, 105)}


@pytest.mark.parametrize("name", LARGER)
def test_large_models_get_more_processor_time(name: str) -> None:
    given, size, multiply_adds, expected = LARGER[name]
    assert Limits(60, processor_s=given).with_work(size, multiply_adds).processor_s == expected


def test_many_threads_have_room_for_their_stacks() -> None:
    """256 threads reserve more address space than a small model may take."""

    def start_threads() -> _Doubles:
        threads = [threading.Thread(target=lambda: bytearray(1 << 16)) for _ in range(255)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return _Doubles()

    with isolated(Limits(60)):
        runner = runner_of("running net", 100, start_threads, threads=256)
        assert not isinstance(runner, _Doubles)  # it started, in a process of its own


def test_a_memory_limit_may_be_larger_than_any_address_space() -> None:
    with isolated(Limits(60, memory_bytes=10**30)):
        assert not call("reading net", 100, dict)


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


def test_a_cut_that_runs_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of the original limits its time too."""
    original = classifier()
    pruned = cut(original, [0, 2])
    limits = list[int]()

    def with_work(own: Limits, _size: int, work: int) -> Limits:
        limits.append(work)
        return own

    def refuse(*_: object) -> None:
        pytest.fail("the cut was drawn")

    monkeypatch.setattr("exporter.formats.onnx.model.draw", refuse)
    monkeypatch.setattr(Limits, "with_work", with_work)
    with isolated(Limits(60)):
        for opened in (original, pruned):
            opened.runner(RunOptions())
    assert limits[0] == limits[1] > 0
