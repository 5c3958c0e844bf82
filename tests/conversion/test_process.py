"""Failures of the child process: its end, its files and its log."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest

from exporter.conversion import process
from exporter.conversion.child import _storable
from exporter.conversion.options import ConvertOptions
from exporter.conversion.process import Child
from exporter.conversion.remote import open_keras
from exporter.errors import ConversionError, ModelError, UsageError
from exporter.formats.model import RunOptions
from tests.builders.keras_models import ARCHITECTURES

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="the signals are POSIX signals"
)
new_processes = pytest.mark.usefixtures("new_processes")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.keras"
    ARCHITECTURES["linear"].made().save(path)
    return path


@pytest.fixture
def new_child() -> Iterator[Child]:
    with Child() as new_child:
        yield new_child
    if new_child.log is not None:
        new_child.log.unlink()


def wait_for_pid(new_child: Child) -> int:
    while new_child.pid is None:
        time.sleep(0.01)
    return new_child.pid


def signal_soon(new_child: Child, number: int) -> None:
    """While the child is busy importing TensorFlow."""

    def send() -> None:
        pid = wait_for_pid(new_child)
        time.sleep(0.3)
        os.kill(pid, number)

    threading.Thread(target=send, daemon=True).start()


def assert_gone(pid: int) -> None:
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@new_processes
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_killed(new_child: Child, file: Path, name: str) -> None:
    signal_soon(new_child, getattr(signal, name))
    with pytest.raises(
        ConversionError, match=f"opening .*net.keras: .* killed by {name}"
    ) as raised:
        open_keras(file, new_child)
    assert new_child.pid is None
    assert new_child.log is not None
    assert str(new_child.log) in raised.value.hint


@new_processes
def test_out_of_time(file: Path) -> None:
    new_child = Child(timeout_s=0.3)
    pids: list[int] = []
    threading.Thread(target=lambda: pids.append(wait_for_pid(new_child)), daemon=True).start()
    with pytest.raises(ConversionError, match=r"took longer than 0\.3 s") as raised, new_child:
        open_keras(file, new_child)
    assert "--timeout" in raised.value.hint
    assert_gone(pids[0])
    remove_log(new_child)


@new_processes
def test_out_of_memory(file: Path) -> None:
    new_child = Child(memory_limit_bytes=20_000_000)
    with pytest.raises(ConversionError, match=r"MB of memory, more than the limit of 20 MB") as r:
        open_keras(file, new_child)
    assert "--memory-limit" in r.value.hint
    assert new_child.pid is None
    new_child.close()
    remove_log(new_child)


def remove_log(new_child: Child) -> None:
    assert new_child.log is not None
    assert new_child.log.exists()
    new_child.log.unlink()


@new_processes
def test_interrupted(new_child: Child, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def interrupt(*_: object) -> None:
        pids.append(wait_for_pid(new_child))
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "_check_memory", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_keras(file, new_child)
    assert_gone(pids[0])


BAD: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "missing": (lambda _: None, UsageError, "there is no file"),
    "empty": (lambda path: path.write_bytes(b""), ModelError, "is empty"),
    "HDF5 without a model": (
        lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
        ModelError,
        "damaged or truncated",
    ),
}


def test_errors_do_not_end_the_child(new_child: Child, file: Path, tmp_path: Path) -> None:
    model = open_keras(file, new_child)
    pid = new_child.pid
    for name, (write, kind, message) in BAD.items():
        path = tmp_path / f"{name}.keras"
        write(path)
        with pytest.raises(kind, match=message):
            open_keras(path, new_child)
    with pytest.raises(UsageError, match="no values for the input 'features'"):
        model.runner(RunOptions())({})
    with pytest.raises(UsageError, match="no route to 'png'"):
        model.convert("png", tmp_path / "net.png", ConvertOptions())
    assert new_child.pid == pid
    log, folder = new_child.log, new_child.folder
    new_child.close()
    assert log is not None
    assert not log.exists()
    assert not folder.exists()
    assert_gone(pid or 0)


@new_processes
def test_an_unexpected_exception_is_one_line(
    new_child: Child,
) -> None:
    with pytest.raises(ConversionError, match="KeyError") as raised:
        new_child.request("no such method", "trying")
    assert "\n" not in raised.value.message
    assert new_child.log is not None
    assert str(new_child.log) in raised.value.hint
    assert "Traceback" in new_child.log.read_text()


def test_a_new_child_has_no_models_of_a_killed_one(new_child: Child, file: Path) -> None:
    model = open_keras(file, new_child)
    os.kill(new_child.pid or 0, signal.SIGKILL)
    with pytest.raises(ConversionError, match="killed by SIGKILL"):
        model.graph()
    with pytest.raises(ConversionError, match="has ended"):
        model.graph()
    again = open_keras(file, new_child)
    assert again.graph().outputs == ("values",)


def test_models_without_a_reference_are_dropped(child: Child, file: Path) -> None:
    model = open_keras(file, child)
    handle = model._handle
    del model
    with pytest.raises(ConversionError, match="has ended"):
        child.request("graph", "trying", handle=handle)


@new_processes
def test_the_child_ends_with_its_parent(new_child: Child) -> None:
    with pytest.raises(ConversionError):
        new_child.request("no such method", "trying")
    running = new_child._process
    assert running is not None
    assert running.stdin is not None
    running.stdin.close()
    assert running.wait(timeout=10) == 0


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    environment = process.environment(tmp_path)
    assert environment["KERAS_BACKEND"] == "tensorflow"
    assert environment["KERAS_HOME"] == str(tmp_path)


def test_bfloat16_crosses_as_float32() -> None:
    bfloat16 = keras.ops.convert_to_numpy(keras.ops.ones(3, "bfloat16"))
    assert _storable(bfloat16).dtype == np.float32
    assert _storable(np.ones(3, np.float16)).dtype == np.float16
