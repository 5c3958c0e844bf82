"""A real Dask scheduler with two worker processes on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psutil import Process, pid_exists

import exporter as package
from exporter.batches import schedulers
from exporter.batches.run import Progress
from exporter.errors import ConversionError
from tests.builders.batches import FAST, content, made, wait_for
from tests.builders.commands import environment

CELLS = 8


POISON = """
import os
from exporter.conversion.process import Child

def die(self, method, action, _request=Child.request, **parameters):
    if action == "net/s1":
        os._exit(9)  # as if the system had killed the worker for its memory
    return _request(self, method, action, **parameters)

Child.request = die
"""


class Cluster:
    """A scheduler, and workers with one thread each."""

    def __init__(self, folder: Path, workers: int = 2, *options: str) -> None:
        self._folder = folder
        self._count = workers
        file = folder / "scheduler.json"
        local = ("--host", "127.0.0.1", "--no-dashboard")
        self.scheduler = self._start(
            "scheduler", *local, "--port", "0", "--scheduler-file", str(file)
        )
        wait_for(lambda: file.exists() and bool(file.read_text()))
        self.address: str = json.loads(file.read_text())["address"]
        self.workers = [
            self._start("worker", self.address, *local, "--no-nanny", "--nthreads", "1", *options)
            for _ in range(workers)
        ]

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", what, *arguments],
            cwd=self._folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Wait until all workers are there."""
        from distributed import Client  # noqa: PLC0415 - other tests do not need it

        with Client(self.address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(self._count, timeout=60)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "dask").mkdir()
    started = Cluster(tmp_path / "dask")
    try:
        started.wait()
        yield started
    finally:
        started.close()


@pytest.fixture
def plan(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in ("net.onnx", "net.tflite"):
        shutil.copyfile(shelf / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    selections = {f"s{i}": [i, i + 1] for i in range(CELLS // 2)}
    models = {"net": "net.onnx", "lite": "net.tflite"}
    return {"models": models, "selections": selections, "options": FAST}


def children(pid: int) -> list[int]:
    return [each.pid for each in Process(pid).children(recursive=True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_worker_and_then_the_scheduler_are_killed(
    cluster: Cluster, plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphans: list[int] = []

    def kill_worker(progress: Progress) -> None:
        if progress.done == 2:
            victim = cluster.workers[0]
            orphans.extend(children(victim.pid))
            victim.kill()

    whole = package.batch(plan, "cluster", scheduler=cluster.address, on_cell=kill_worker)
    assert whole.ok
    assert sorted(made(tmp_path / "cluster")) == sorted(row["name"] for row in whole.cells)
    assert orphans
    wait_for(lambda: not any(map(pid_exists, orphans)))  # the processes of the worker ended too

    assert package.batch(plan, "local", workers=1).ok
    assert content(tmp_path / "cluster") == content(tmp_path / "local")

    monkeypatch.setattr(schedulers, "_LOST_S", 0.5)

    def kill_scheduler(progress: Progress) -> None:
        if progress.done == 2:
            cluster.scheduler.send_signal(signal.SIGKILL)
            time.sleep(0.5)  # until the connection is gone

    with pytest.raises(ConversionError, match="does not answer any more"):
        package.batch(plan, "broken", scheduler=cluster.address, on_cell=kill_scheduler)
    index = json.loads((tmp_path / "broken" / "index.json").read_text())
    assert index["counts"]["open"] >= CELLS - 4
    cluster.close()
    before = len(made(tmp_path / "broken"))
    finished = {path.parent for path in (tmp_path / "broken").glob("*/*/cell.json")}
    again = package.batch(plan, "broken", workers=1)
    assert again.ok
    assert len(again.reused) == len(finished) >= 2
    assert len(made(tmp_path / "broken")) - before == CELLS - len(finished)
    assert content(tmp_path / "broken") == content(tmp_path / "local")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cell_in_which_workers_die_is_given_up_after_two(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "poison.py").write_text(POISON)
    cluster = Cluster(tmp_path / "dask", 3, "--preload", "poison.py")
    try:
        cluster.wait()
        del plan["models"]["lite"]
        batch = package.batch(plan, "out", scheduler=cluster.address)
        dead = [worker.poll() for worker in cluster.workers]
    finally:
        cluster.close()
    assert sorted(code is None for code in dead) == [False, False, True]
    status = {row["name"]: row["status"] for row in batch.cells}
    assert status.pop("net/s1") == "lost"
    assert set(status.values()) == {"passed"}
    (row,) = (row for row in batch.cells if row["status"] == "lost")
    assert row["error"] == "its process died 2 times; last: the worker was lost"
    again = package.batch(plan, "out", workers=1)
    assert again.ok
    assert len(again.reused) == len(status)
