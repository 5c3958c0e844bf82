"""Devices over ssh. The program in place of ssh runs the same code as a real server does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from exporter import bench, prune, verify
from exporter.devices import connection
from exporter.devices.fleet import Fleet
from exporter.devices.ssh import SshDevice
from exporter.errors import DeviceError, ExporterError, ModelError, UsageError
from exporter.formats import open_model
from exporter.formats.executor import running_on
from exporter.formats.model import RunOptions
from exporter.jobs.job import Job
from exporter.performance import memory
from exporter.performance.memory import ModelFile
from exporter.performance.scenario import BenchOptions
from tests.builders.device_programs import address, fake_ssh, path_with, program
from tests.builders.shelf import FEATURES

VALUES = np.ones((1, FEATURES), np.float32)
FEEDS = [{"x": VALUES, "features": VALUES}]  # the input of the ONNX file, and of the other
QUICK = BenchOptions(min_seconds=0, min_runs=1, loads=3, block_ms=0.1)


@pytest.fixture
def here(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the program in place of ssh, and files to compare; TMPDIR is `tmp` in it."""
    fake_ssh(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", path_with(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv(connection.PROGRAM, raising=False)
    monkeypatch.setattr(memory, "ROUNDS", 1)
    for suffix in ("onnx", "tflite"):
        shutil.copy(shelf / f"net.{suffix}", tmp_path)
        prune(tmp_path / f"net.{suffix}", keep=[1, 4], verify=False).save(
            tmp_path / f"cut.{suffix}"
        )
    return tmp_path


def left(here: Path) -> list[str]:
    return [each.name for each in (here / "tmp").glob("exporter-device-*")]


@contextmanager
def device(kinds: tuple[str, ...] = ("onnx",), url: str = "") -> Iterator[SshDevice]:
    with Fleet([url or address()]) as fleet:
        (found,) = fleet.devices(kinds)
        assert isinstance(found, SshDevice)
        yield found


def files(here: Path, suffix: str = "onnx") -> tuple[ModelFile, ModelFile]:
    paths = here / f"net.{suffix}", here / f"cut.{suffix}"
    first, second = (ModelFile(open_model(path), path) for path in paths)
    return first, second


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_values_are_those_of_this_machine(here: Path, suffix: str) -> None:
    """The same runtime on the same processor gives the same bits."""
    model = open_model(here / f"net.{suffix}")
    feeds = [dict.fromkeys(model.graph().inputs, VALUES)]
    expected = [model.runner(RunOptions())(feed) for feed in feeds]
    with device((suffix,)) as found, running_on(found.executor()):
        runner = model.runner(RunOptions())
        actual = [runner(feed) for feed in feeds]
        assert runner.engine == model.runner(RunOptions()).engine
        first = found._keys
        del runner
        model.runner(RunOptions())
        assert found._unused == [first + 1]  # the device knows of the one before
    for before, after in zip(expected, actual, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value)
    assert left(here) == []


def test_verify_on_a_device(here: Path) -> None:
    report = verify(here / "net.onnx", here / "cut.onnx", on=[address()])
    assert report.ok
    assert {check.device for check in report.checks} == {"", "greenhouse"}  # "": of the files
    assert any(check.metric == "max_abs" and check.device for check in report.checks)
    assert report.devices[0].name == "greenhouse"
    assert "pi@" not in json.dumps([vars(row) for row in report.devices], default=str)


def test_verify_on_a_device_finds_a_wrong_file(here: Path) -> None:
    other = open_model(here / "cut.onnx")
    kernel = next(each for each in other.proto.graph.initializer if each.dims[-1:] == [2])  # type: ignore[attr-defined]
    proto = type(other.proto)()  # type: ignore[attr-defined]
    proto.CopyFrom(other.proto)  # type: ignore[attr-defined]
    for each in proto.graph.initializer:
        if each.name == kernel.name:
            each.raw_data = np.ones(list(each.dims), np.float32).tobytes()
    (here / "wrong.onnx").write_bytes(proto.SerializeToString())
    report = verify(here / "net.onnx", here / "wrong.onnx", on=[address()])
    assert any(check.device == "greenhouse" and not check.passed for check in report.checks)


# --- measurements ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_measurements(here: Path, suffix: str) -> None:
    messages: list[str] = []
    with device((suffix,), address("talkative")) as found:
        result = found.measure(files(here, suffix), FEEDS, QUICK, messages.append)
        row = found.facts()
    latency = result.latency
    assert (latency.device, latency.artifact) == ("talkative", f"cut.{suffix}")
    assert latency.loads == len(latency.raw["load_ms"]["control"]) == 3
    assert latency.rounds == len(latency.raw["p50_ms"]["original"]) >= 6
    assert latency.engine.startswith({"onnx": "onnxruntime ", "tflite": "ai-edge-litert "}[suffix])
    assert result.memory is not None
    assert result.memory.bytes > 0
    assert result.memory.device == "talkative"
    assert row.versions["numpy"] == np.__version__
    assert row.cores == len(os.sched_getaffinity(0))
    assert messages[0] == f"timing cut.{suffix} on talkative"
    assert left(here) == []


def test_bench_on_two_devices(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "bench_options", QUICK)
    monkeypatch.setattr(SshDevice, "_growth", lambda *_: {"resident": 1 << 20})
    on = [address(), f"ssh://pi@localhost:2222{sys.executable}"]
    report = bench(
        here / "net.onnx",
        here / "cut.onnx",
        on=on,
        bench_seconds=0,
        bench_runs=1,
        max_latency_ms=1e4,
    )
    names = ["greenhouse", "localhost:2222"]
    assert [row.device for row in report.latency] == names
    assert [row.device for row in report.memory] == names
    assert [row.name for row in report.devices] == names
    assert [check.device for check in report.checks] == names
    assert report.ok
    assert "-p 2222" in (here / "ssh.log").read_text()


def test_memory_that_cannot_be_measured_is_a_warning(here: Path) -> None:
    with device() as found:
        found._growth = _refuse  # type: ignore[assignment,method-assign]
        result = found.measure(files(here), FEEDS, QUICK, print)
    assert result.memory is None
    assert result.warnings == ("no memory",)


def _refuse(*_given: object) -> Any:
    raise DeviceError("no memory")


# --- errors ---------------------------------------------------------------------------------------


def empty_python(folder: Path) -> Path:
    """A Python without any package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    return folder / "env" / "bin" / "python"


def full_disk(folder: Path) -> Path:
    """A Python that can only write small files."""
    return program(folder / "python", f'#!/bin/sh\nulimit -f 8\nexec {sys.executable} "$@"\n')


def old_python(folder: Path) -> Path:
    """A Python that says that it is 3.6."""
    source = "import sys; sys.version_info = (3, 6)"
    return program(folder / "python", f'#!/bin/sh\nexec {sys.executable} -u -c "{source}\n$3"\n')


ERRORS: list[Any] = [
    pytest.param(
        lambda _: "ssh://unreachable",
        "unreachable cannot be reached: .*refused",
        "true`",
        id="host",
    ),
    pytest.param(
        lambda _: "ssh://host/no/python",
        "/no/python was not found on host",
        "Python 3.9",
        id="python",
    ),
    pytest.param(
        lambda f: address(python=empty_python(f)),
        "numpy is not installed on",
        "pip install numpy",
        id="numpy",
    ),
    pytest.param(
        lambda f: address(python=full_disk(f)),
        "not enough space on greenhouse",
        "free some",
        id="disk",
    ),
    pytest.param(
        lambda f: address(python=old_python(f)), "has Python 3.6", "/usr/bin/python3.11", id="old"
    ),
    pytest.param(
        lambda _: "ssh://host/bin/false", "did not start the runner", "another Python", id="other"
    ),
]


@pytest.mark.parametrize(("url", "message", "hint"), ERRORS)
def test_errors(here: Path, url: Callable[[Path], str], message: str, hint: str) -> None:
    with pytest.raises(DeviceError, match=message) as caught, device(url=url(here)):
        pass
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    assert left(here) == []


def test_a_runtime_that_is_missing(here: Path) -> None:
    hidden = here / "hidden"
    hidden.mkdir()
    (hidden / "onnxruntime.py").write_text("raise ModuleNotFoundError('No module', name=__name__)")
    python = program(
        here / "python", f'#!/bin/sh\nPYTHONPATH={hidden} exec {sys.executable} "$@"\n'
    )
    with (
        pytest.raises(DeviceError, match="onnxruntime is not installed on greenhouse") as caught,
        device(url=address(python=python)),
    ):
        pass
    assert f"{sys.executable} -m pip install onnxruntime" in caught.value.hint


def test_no_ssh_here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.PROGRAM, "no-such-ssh -v")
    with pytest.raises(DeviceError, match="no-such-ssh cannot be started"), device():
        pass


def test_a_file_that_the_runtime_refuses(here: Path) -> None:
    content = (here / "net.tflite").read_bytes()
    broken = here / "net.onnx", here / "cut.onnx"
    with device() as found:
        good = files(here)
        broken[1].write_bytes(content)
        found._spec = lambda file, _run: found_spec(found, file)  # type: ignore[assignment,method-assign]
        with pytest.raises(ModelError, match=r"on greenhouse: the runtime cannot run cut.onnx"):
            found.measure(good, FEEDS, QUICK, print)


def found_spec(found: SshDevice, file: ModelFile) -> Any:
    from exporter.ondevice.spec import Spec  # noqa: PLC0415 - here only

    return Spec("onnx", found._send(file.path, [file.path]))


def test_values_that_are_not_sent(here: Path) -> None:
    with device() as found, running_on(found.executor()):
        runner = open_model(here / "net.onnx").runner(RunOptions())
        with pytest.raises(ExporterError, match="'x' are object, which are not sent"):
            runner({"x": np.array([[None]])})


# --- nothing stays, whatever ends -----------------------------------------------------------------


def of_worker() -> psutil.Process:
    """The process that loads models."""
    return next(each for each in psutil.Process().children(recursive=True) if is_worker(each))


def is_worker(process: psutil.Process) -> bool:
    try:
        return "runner.zip" in process.cmdline()
    except psutil.NoSuchProcess:  # another child that has ended, also if it is still a zombie
        return False


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_killed_for_memory(here: Path) -> None:
    def kill(_message: str) -> None:
        if started:
            of_worker().kill()
        started.append(1)

    started: list[int] = []
    with (
        pytest.raises(DeviceError, match=r"greenhouse killed the process .* memory") as caught,
        device() as found,
    ):
        found.measure(files(here), FEEDS, QUICK, kill)
    assert "--batch" in caught.value.hint
    assert left(here) == []


@pytest.mark.parametrize("victim", ["server", "connection"])
def test_killed_server_or_connection(here: Path, victim: str) -> None:
    """SIGKILL leaves the server no time to do anything; a small process next to it cleans up."""
    with device() as found:
        worker = of_worker()
        assert len(left(here)) == 1
        ssh = found._connection._process
        if victim == "server":
            os.kill(worker.ppid(), signal.SIGKILL)
            with pytest.raises(DeviceError, match="the connection to greenhouse broke"):
                found.facts()
        else:
            ssh.stdin.close()
        deadline = time.monotonic() + 10
        while (left(here) or is_alive(worker)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(worker)
        assert left(here) == []


def test_folder_of_a_dead_server_is_removed(here: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = here / "tmp" / f"exporter-device-{ended.pid}-abc"
    alive = here / "tmp" / f"exporter-device-{os.getpid()}-abc"
    for folder in (stale, alive):
        folder.mkdir()
    with device():
        assert not stale.exists()
    assert left(here) == [alive.name]


# --- a real server --------------------------------------------------------------------------------

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")


@pytest.fixture
def real(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server on loopback, named by a configuration of ssh; the address of its host."""
    keygen = shutil.which("ssh-keygen")
    if SSHD is None or keygen is None:
        pytest.skip("there is no sshd: the other tests run the same code")
    for name in ("host", "user"):
        words: list[str | Path] = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", here / name]
        subprocess.run(words, check=True)
    shutil.copy(here / "user.pub", here / "authorized")
    (here / "authorized").chmod(0o600)
    (here / "sshd_config").write_text(
        f"HostKey {here}/host\nAuthorizedKeysFile {here}/authorized\nStrictModes no\nUsePAM no\n"
    )
    (here / "config").write_text(
        f"Host greenhouse\n HostName 127.0.0.1\n User {psutil.Process().username()}\n"
        f" IdentityFile {here}/user\n IdentitiesOnly yes\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {here}/known\n LogLevel ERROR\n"
        f" ProxyCommand {SSHD} -i -f {here}/sshd_config\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd of Debian asks for it
    ssh = shutil.which("ssh", path=os.environ["PATH"].partition(os.pathsep)[2])
    monkeypatch.setenv(connection.PROGRAM, f"{ssh} -F {here}/config")
    return "greenhouse"


def test_real_ssh(here: Path, real: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SshDevice, "_growth", lambda *_: {"resident": 1 << 20})
    with device(url=f"ssh://{real}{sys.executable}") as found:
        result = found.measure(files(here), FEEDS, QUICK, print)
    assert result.latency.device == real
    found_here = {*Path("/tmp").glob("exporter-device-*"), *left(here)}  # noqa: S108 - of that login
    assert found_here == set()


def test_a_provider_that_the_device_lacks(here: Path) -> None:
    with pytest.raises(UsageError, match="on greenhouse: this build of onnxruntime has no"):
        bench(here / "net.onnx", here / "cut.onnx", on=[address()], provider="no_such")
