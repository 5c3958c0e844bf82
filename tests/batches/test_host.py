"""How a host does tasks: in processes, as far as memory allows, and twice if one dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from exporter.batches import host

TOTAL = 100
Task = dict[str, Any]
Start = Callable[..., Task]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes tasks for the scripted process."""
    monkeypatch.setattr(host, "_MODULE", "tests.builders.batch_worker")

    def make(name: str, memory: int = 1, *, alone: bool = False, **script: Any) -> Task:
        named = {"name": name, "model": "m", "selection": "s"}
        return {
            "batch": "test",
            "id": name,
            "file": name,
            "method": "run",
            "cell": named,
            "parameters": {"name": name, "log": str(tmp_path / "log"), **script},
            "memory_bytes": memory,
            "exclusive": alone,
            "affinity": name[0],
            "attempts": str(tmp_path),
            "host_bytes": TOTAL,
        }

    yield make
    host.close("test")


def done(tmp_path: Path) -> list[str]:
    """What the processes noted, without their numbers."""
    return [line.rpartition(" ")[0] for line in (tmp_path / "log").read_text().splitlines()]


def do_all(tasks: list[Task]) -> list[Mapping[str, Any]]:
    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(host.do, tasks))


def most_at_once(lines: list[str]) -> int:
    running = most = 0
    for line in lines:
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    return most


def test_a_process_serves_one_task_after_the_other(task: Start) -> None:
    first, second = host.do(task("a1")), host.do(task("b1"))
    assert first["pid"] == second["pid"]
    assert first["tries"] == 1


def test_a_task_whose_process_dies_is_tried_twice(task: Start, tmp_path: Path) -> None:
    answer = host.do(task("a", die=True))
    assert done(tmp_path) == ["start a", "start a"]
    assert answer["row"]["status"] == "lost"
    assert answer["row"]["name"] == "a"
    assert "died 2 times" in answer["row"]["error"]
    assert "SIGKILL" in answer["row"]["error"]
    assert host.do(task("b"))["row"]["status"] == "passed"


def test_tries_of_lost_workers_count(task: Start, tmp_path: Path) -> None:
    (tmp_path / "a.1").touch()
    assert host.do(task("a"))["tries"] == 2
    answer = host.do(task("a"))
    assert answer["row"]["status"] == "lost"
    assert done(tmp_path) == ["start a", "end a"]


def test_an_error_is_a_row_and_is_not_tried_again(task: Start, tmp_path: Path) -> None:
    row = host.do(task("a", fail=True))["row"]
    assert (row["status"], row["exit"]) == ("error", 3)
    assert (row["error"], row["hint"]) == ("the model is damaged", "save it again")
    assert done(tmp_path) == ["start a"]


def test_a_host_that_does_not_see_the_folder_says_so(task: Start) -> None:
    row = host.do({**task("a"), "attempts": "/no/such/folder"})["row"]
    assert (row["status"], row["exit"]) == ("error", 6)
    assert "same paths" in row["hint"]


@pytest.mark.parametrize(
    ("memory", "alone", "most"),
    [
        pytest.param(60, False, 1, id="two do not fit"),
        pytest.param(50, False, 2, id="two fit"),
        pytest.param(500, False, 1, id="one that never fits runs alone"),
        pytest.param(1, True, 1, id="exclusive"),
    ],
)
def test_memory_bounds_what_runs(
    task: Start, tmp_path: Path, memory: int, alone: bool, most: int
) -> None:
    tasks = [task(f"{i}", memory, alone=alone, seconds=0.15) for i in range(3)]
    assert {answer["row"]["status"] for answer in do_all(tasks)} == {"passed"}
    assert most_at_once(done(tmp_path)) == most


def test_a_process_that_has_the_model_open_is_preferred(task: Start) -> None:
    first = do_all([task("a1", seconds=0.3), task("b1", seconds=0.3)])
    again = {name: host.do(task(name))["pid"] for name in ("a2", "b2", "a3")}
    assert again == {"a2": first[0]["pid"], "b2": first[1]["pid"], "a3": first[0]["pid"]}


def test_closing_ends_what_runs(task: Start, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(host.do, task("a", seconds=60))
        while not (tmp_path / "log").exists():
            pass
        host.close("test")
        assert running.result(timeout=10)["row"]["status"] == "error"
    assert done(tmp_path) == ["start a"]


def test_idle_processes_end(task: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_IDLE_S", 0.05)
    first = host.do(task("a"))
    children = host._HOSTS["test"]._children
    while children:
        pass
    assert host.do(task("b"))["pid"] != first["pid"]


def test_an_error_has_a_traceback_that_can_be_sent(
    task: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask never answered a task whose error had a traceback of a thousand frames."""

    def recurse(*_given: Any) -> Any:
        recurse()

    monkeypatch.setattr(host.Host, "do", recurse)
    with pytest.raises(RecursionError) as caught:
        host.do(task("a"))
    assert len(caught.traceback) < 10
