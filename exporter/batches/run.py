"""Run a plan: find what is finished, let a scheduler do the rest, write the index."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from exporter.batches.cells import ERROR, LOST, OPEN, Row, empty_row, error_row, finished_row
from exporter.batches.index import Batch, write_index
from exporter.batches.keys import Keys
from exporter.batches.plan import Cell, Plan
from exporter.batches.schedulers import Scheduler, scheduler_at
from exporter.batches.tasks import Task, Tasks
from exporter.errors import ExporterError, OutputError, UsageError, first_line
from exporter.output.files import writing
from exporter.output.folder import JOURNAL, MANIFEST
from exporter.output.manifest import write_manifest
from exporter.output.publish import held_place
from exporter.output.scratch import scratch_folder
from exporter.storage.urls import local_file, scheme_of

_MOST_SUBMISSIONS = 4  # of a task whose worker a cluster has lost
_READERS = 4  # threads that look at finished cells
_POLL_S = 0.5


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes:
        name: of the cell that was done last; "" at the start.
        left_s: an estimate of the seconds until the end; None if it is not known yet.
    """

    name: str
    done: int
    failed: int
    total: int
    left_s: float | None


def no_progress(_progress: Progress) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class BatchOptions:
    """How a plan is run.

    Attributes:
        scheduler: address of a Dask scheduler; None for processes on this machine.
        workers: number of processes on this machine; None for one for each core.
        memory_bytes: that the tasks on each host may take together; None for 80 % of what is free.
        force: do finished cells again.
        progress: called when a cell is done.
    """

    scheduler: str | None = None
    workers: int | None = None
    memory_bytes: int | None = None
    force: bool = False
    progress: Callable[[Progress], None] = no_progress

    def __post_init__(self) -> None:
        """Raise a UsageError for numbers that are out of range."""
        for name in ("workers", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", "give at least 1")


def write_batch(plan: Plan, out: str | Path | None, options: BatchOptions) -> Batch:
    """`run_batch` into a folder, or into storage: what is there is read first and then replaced.

    What goes to storage is made in the cache. It stays there if the batch ends early, so that the
    next one on this machine continues it.

    Args:
        out: None for the output of the plan.

    Raises:
        UsageError: neither names an output; or as `run_batch`.
    """
    if out is None and plan.output is None:
        raise UsageError("the plan names no output", "give -o DIR, or write output in the plan")
    target = str(out or plan.output)
    if not scheme_of(target):
        return run_batch(plan, Path(out) if out else plan.folder / target, options)
    if scheme_of(target) == "file":
        return run_batch(plan, local_file(target), options)
    from exporter.storage.fetch import fetch, held_folder  # noqa: PLC0415 - few batches need it
    from exporter.storage.upload import exists, writable  # noqa: PLC0415 - likewise

    with held_folder(target) as local, writable(target, force=True, local=local) as folder:
        if exists(target):
            shutil.copytree(fetch(target), folder, copy_function=_copy_new, dirs_exist_ok=True)
        return run_batch(plan, folder, options)


def _copy_new(source: str, target: str) -> str:
    """Copy a file that is not there yet. A cell with files of two versions is made again."""
    return target if Path(target).exists() else shutil.copyfile(source, target)


def run_batch(plan: Plan, out: Path, options: BatchOptions) -> Batch:
    """Make every cell of a plan that is not finished, and the index of all.

    Raises:
        UsageError: nothing answers at the address of the scheduler.
        OutputError: the folder cannot be written, or no batch wrote it.
        ConversionError: the scheduler was lost. Finished cells are kept, and the index is written.
    """
    with _held(out) as place, (out / JOURNAL).open("a", encoding="utf-8") as journal:
        run = _Run(plan, out.resolve(), place, options, "run", journal)
        run.look()
        try:
            run.carry_out()
        finally:
            batch = run.result(out)
            write_index(batch, out)
        journal.flush()
        write_manifest(out)
        return batch


def forecast_batch(plan: Plan, options: BatchOptions) -> Batch:
    """Forecast every cell on this machine, and write nothing."""
    if options.scheduler is not None:
        raise UsageError("a forecast is made on this machine", "leave out --scheduler")
    with scratch_folder() as folder:
        run = _Run(plan, folder, folder, options, "forecast", None)
        run.look()
        run.carry_out()
        return run.result(None)


def finished_cells(plan: Plan, out: Path) -> frozenset[str]:
    """The names of the cells that a batch would not make again."""
    if not out.is_dir():
        return frozenset()
    run = _Run(plan, out.resolve(), out, BatchOptions(), "run", None)
    run.look()
    return frozenset(run.reused)


@contextmanager
def _held(out: Path) -> Iterator[Path]:
    """Lock the output; gives a folder for temporary files that all workers see."""
    with ExitStack() as stack:
        with writing(out):
            if out.exists() and not (out / JOURNAL).exists() and any(out.iterdir()):
                raise OutputError(
                    f"{out} contains no {JOURNAL}: only a folder that a batch wrote is continued",
                    "choose another place with -o",
                )
            out.resolve().parent.mkdir(parents=True, exist_ok=True)
            place = stack.enter_context(held_place(out.resolve()))
            out.mkdir(exist_ok=True)
            (out / MANIFEST).unlink(missing_ok=True)  # the last file of a batch that is complete
        yield place.new


@dataclass
class _Run:
    """One run of a plan.

    Attributes:
        temporary: a folder that all workers see.
        rows: of the cells that are done, by name.
        reused: names of cells that were finished before.
        todo: the other cells.
    """

    plan: Plan
    out: Path
    temporary: Path
    options: BatchOptions
    action: str
    journal: TextIO | None
    rows: dict[str, Row] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    todo: list[Cell] = field(default_factory=list)
    _failed: int = 0
    _start: float = 0.0

    def __post_init__(self) -> None:
        self._folder = self.plan.folder.resolve()
        self._keys = Keys(self._folder)
        self._batch = uuid4().hex
        shared = {
            "batch": self._batch,
            "attempts": str(self.temporary),
            "host_bytes": self.options.memory_bytes,
        }
        self._tasks = Tasks(self._folder, self.out, self.action, shared, force=self.options.force)

    def look(self) -> None:
        """Find out which cells are finished, and which cannot be made."""
        with ThreadPoolExecutor(_READERS) as pool:
            for cell, row in zip(
                self.plan.cells, pool.map(self._known, self.plan.cells), strict=True
            ):
                if row is None:
                    self.todo.append(cell)
                    continue
                self.rows[cell.name] = row
                if row["status"] == ERROR:
                    self._failed += 1
                else:
                    self.reused.append(cell.name)

    def _known(self, cell: Cell) -> Row | None:
        """The row of a cell that is finished, or whose files cannot be read."""
        try:
            digest = self._keys.of(cell).digest
        except ExporterError as error:
            return error_row(_named(cell), error)
        if self.options.force or self.action != "run":
            return None
        return finished_row(self.out / cell.name, digest)

    def carry_out(self) -> None:
        """Do the other cells."""
        if not self.todo:
            return
        scheduler = scheduler_at(self.options.scheduler, self.options.workers)
        self._start = time.monotonic()
        self._report("")
        try:
            _Queue(self, scheduler).run()
        finally:
            scheduler.close(self._batch)

    def tasks_of(self, cell: Cell) -> tuple[list[Task], Task]:
        """The conversions that a cell needs, and its own task."""
        return self._tasks.of_cell(cell, self._keys.of(cell))

    def finish(self, task: Task, answer: Mapping[str, Any]) -> None:
        """Note what became of a task."""
        row = answer.get("row")
        if self.journal is not None:
            facts = {key: answer.get(key) for key in ("seconds", "peak_bytes", "tries")}
            status = row["status"] if row else answer.get("status")
            self.journal.write(json.dumps({"task": task.id, "status": status, **facts}) + "\n")
            self.journal.flush()
        if task.is_conversion:
            return
        if "forecast" in answer:
            cell = task.message["cell"]
            row = {**empty_row(cell, "forecast"), "forecast": answer["forecast"]}
        assert row is not None  # noqa: S101 - `work` answers with a row
        self.rows[task.id] = row
        self._failed += row["status"] not in {"passed", "forecast"}
        self._report(task.id)

    def _report(self, name: str) -> None:
        total, done = len(self.plan.cells), len(self.rows)
        new = done - (total - len(self.todo))
        spent = time.monotonic() - self._start
        left = spent / new * (total - done) if new else None
        self.options.progress(Progress(name, done, self._failed, total, left))

    def result(self, out: Path | None) -> Batch:
        """The rows of all cells; those that were not done have the status OPEN."""
        rows = [self.rows.get(c.name) or empty_row(_named(c), OPEN) for c in self.plan.cells]
        return Batch(out, rows, frozenset(self.reused))


class _Queue:
    """Gives the tasks of a run to a scheduler, a few at a time."""

    def __init__(self, run: _Run, scheduler: Scheduler) -> None:
        self._run, self._scheduler = run, scheduler
        # model after model: each process opens each model once
        self._cells = deque(sorted(run.todo, key=lambda cell: cell.path))
        self._ready: deque[Task] = deque()
        self._waiting: dict[str, list[Task]] = {}  # conversion -> cells that need it
        self._converted: dict[str, Mapping[str, Any]] = {}  # conversion -> answer
        self._running: dict[Future[Any], Task] = {}

    def run(self) -> None:
        """Do everything."""
        while True:
            # two for each worker: the next task is there when one is done
            while len(self._running) < 2 * max(1, self._scheduler.capacity()) and self._fill():
                self._submit(self._ready.popleft())
            if not self._running:
                return
            done, _ = wait(self._running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            self._scheduler.check()
            for future in done:
                self._take(future, self._running.pop(future))

    def _fill(self) -> bool:
        """Make sure that a task is ready, if there is one."""
        while not self._ready and self._cells:
            conversions, task = self._run.tasks_of(self._cells.popleft())
            for each in conversions:
                if each.id not in self._converted and each.id not in self._waiting:
                    self._waiting[each.id] = []
                    self._ready.append(each)
            self._release(task)
        return bool(self._ready)

    def _release(self, task: Task) -> None:
        """Let a cell wait for a conversion, fail with it, or be ready."""
        for need in task.needs:
            if need not in self._converted:
                self._waiting[need].append(task)
                return
            if row := self._converted[need].get("row"):  # it failed
                cell = task.message["cell"]
                named = {key: cell[key] for key in ("name", "model", "selection")}
                self._run.finish(task, {"row": {**row, **named}})
                return
        self._ready.append(task)

    def _submit(self, task: Task) -> None:
        task.submissions += 1
        self._running[self._scheduler.submit(task.message)] = task

    def _take(self, future: Future[Any], task: Task) -> None:
        """Take the answer of a task, or submit it again if its worker was lost."""
        try:
            answer = future.result()
        except Exception as error:  # noqa: BLE001 - any of the scheduler
            if task.submissions < _MOST_SUBMISSIONS:
                self._ready.append(task)
                return
            reason = f"its worker was lost: {type(error).__name__}: {first_line(error)}"
            answer = {"row": empty_row(task.message["cell"], LOST, reason)}
        self._run.finish(task, answer)
        if task.is_conversion:
            self._converted[task.id] = answer
            for cell in self._waiting.pop(task.id):
                self._release(cell)


def _named(cell: Cell) -> dict[str, str]:
    return {"name": cell.name, "model": cell.model, "selection": cell.selection}
