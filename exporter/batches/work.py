"""The process that does the tasks of a batch, one after the other.

`python -m exporter.batches.work FOLDER`; see `exporter.conversion.process` for the protocol. A
model stays open from one cell to the next, with the answers of the original to the samples.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.batches.cells import finished_row, row_of
from exporter.batches.keys import all_versions, digest_of
from exporter.batches.tasks import OPENING
from exporter.conversion.serving import Answer, serve
from exporter.errors import (
    CheckError,
    ConversionError,
    ExporterError,
    ModelError,
    first_line,
    missing_library,
    system_error,
)
from exporter.jobs.forecast import forecast_cut
from exporter.jobs.job import Job
from exporter.jobs.output_file import check_sharing
from exporter.jobs.quantize import refuse_quantizing
from exporter.jobs.run import Session, open_session
from exporter.jobs.source import OpenedModel, UncutModel
from exporter.jobs.started import started
from exporter.jobs.task_quality import check_truth
from exporter.jobs.variant import outside_files_of
from exporter.output.draft import new_folder
from exporter.output.files import write_text
from exporter.output.folder import CELL, CONVERSION, OUTSIDE
from exporter.output.manifest import check_manifest, outside_files, write_manifest
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions

_WAIT_S = 5.0  # for a process that was killed while it wrote the same folder
# Options that cells of one session may have different values of.
_PER_CELL = {
    *("to", "precisions", "calibration", "synthetic_calibration", "integer_io", "float_io"),
    *("quantize_first", "tolerance", "truth", "min_accuracy", "max_drop", "min_top1", "min_sqnr"),
    *(
        "share_body",
        "min_cosine",
        "max_size_bytes",
        "max_latency_ms",
        "max_memory_bytes",
        "keep_original",
    ),
    *("bench_seconds", "bench_runs", "plots", "force"),
}


class Worker:
    """Serves tasks; see `exporter.batches.tasks` for their keys."""

    def __init__(self, _folder: Path) -> None:
        self._models, self._sessions = ExitStack(), ExitStack()  # close what is open
        self._model: OpenedModel | None = None
        self._session: Session | None = None
        self._model_key: Any = None  # what the model was opened for
        self._session_key: Any = None
        self._converted: Mapping[str, str] = {}  # kind -> folder of the converted model

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """Do one task."""
        task = request["parameters"]["task"]
        os.chdir(task["folder"])
        _check_versions(task["versions"])
        start = time.monotonic()
        try:
            answer = _TASKS[request["method"]](self, task)
        except ExporterError:
            raise
        except Exception as error:
            raise _as_exporter_error(error) from error
        return {**answer, "seconds": time.monotonic() - start, "peak_bytes": _peak_bytes()}

    # --- the tasks --------------------------------------------------------------------------------

    def convert(self, task: Mapping[str, Any]) -> Answer:
        """Convert a model to one kind, into a folder that later cells read."""
        target, job = Path(task["target"]), Job(**_tuples(task["options"]))
        if _is_intact(target):
            return {"status": "passed"}
        with new_folder(target, force=True, wait_s=_WAIT_S) as folder:
            with self._open_model(task, job) as opened:
                made = opened.as_kind(task["kind"], folder)
            assert made.path is not None  # noqa: S101 - it was just written
            record = {"file": made.path.name, "route": made.route, "warnings": made.warnings}
            write_text(folder / CONVERSION, json.dumps(record) + "\n")
            write_manifest(folder)
        return {"status": "passed"}

    def run(self, task: Mapping[str, Any]) -> Answer:
        """Make the folder of one cell."""
        out, key = Path(task["target"]), task["key"]
        if not task["force"] and (row := finished_row(out, key["digest"])):
            return {"row": row}  # a worker was lost after it had made the cell
        cut, job = _records(task)
        earlier = outside_files(out)
        with (
            self._session_for(task, cut, job) as session,
            new_folder(out, force=True, wait_s=_WAIT_S) as folder,
        ):
            own = started(job, "run", (task["source"], "-o", task["name"]), cut)
            report = session.run(own, cut, folder, out, outside=job.share_body)
            row = row_of(task, report)
            record = {"schema": "exporter/cell/1", "row": row, **key}
            write_text(folder / CELL, json.dumps(record, indent=1) + "\n")
            outside = outside_files_of(folder, report)
            write_manifest(folder, outside)
        for name in {*earlier} - {*outside}:
            if name.startswith(f"{OUTSIDE}{out.name}."):  # a model of another kind or precision
                (out / name).unlink(missing_ok=True)
        return {"row": row}

    def forecast(self, task: Mapping[str, Any]) -> Answer:
        """Forecast the files of one cell."""
        cut, job = _records(task)
        job = replace(job, verify=False, bench=False, max_latency_ms=None, max_memory_bytes=None)
        with self._session_for(task, cut, job) as session:
            made = forecast_cut(session.opened, cut, job, session.models(job))
        return {"forecast": made.to_dict()}

    @contextmanager
    def _open_model(self, task: Mapping[str, Any], job: Job) -> Iterator[OpenedModel]:
        """The model of a task: the open one, if it is the same and opened in the same way."""
        wanted = [task["source"], task["sha256"], *(repr(getattr(job, n)) for n in OPENING)]
        if self._model is None or self._model_key != wanted:
            self.close()
            if digest_of(Path(task["source"])) != task["sha256"]:
                message = f"{task['source']} changed while the batch ran"
                raise ModelError(message, "repeat the command")
            self._model = self._models.enter_context(job.open(task["source"]))
            self._model_key = wanted
        try:
            yield self._model
        except ConversionError:  # the process that holds a Keras model may have ended
            self.close()
            raise

    @contextmanager
    def _session_for(self, task: Mapping[str, Any], cut: CutOptions, job: Job) -> Iterator[Session]:
        """The session for a cell: the open one, if it is of the same model and inputs."""
        self._converted = task["converted"]
        shared = {each.name: getattr(job, each.name) for each in options_of(Job, "run")}
        wanted = {name: repr(value) for name, value in shared.items() if name not in _PER_CELL}
        with self._open_model(task, job) as opened:
            if self._session is None or self._session_key != wanted:
                self._close_session()
                session = open_session(task["source"], job, {"": cut}, self._convert, opened)
                self._session = self._sessions.enter_context(session)
                self._session_key = wanted
            refuse_quantizing(job, opened)
            check_sharing((job.kinds or opened.default_kinds()) if job.share_body else ())
            check_truth(job, self._session.inputs)
            yield self._session

    def _convert(self, opened: OpenedModel, kind: str) -> UncutModel:
        """The model as a kind, which another task has converted it to."""
        if kind not in self._converted:
            return opened.as_kind(kind, Path())  # the same kind, or refused
        folder = Path(self._converted[kind])
        record = json.loads((folder / CONVERSION).read_text("utf-8"))
        warnings = tuple(record["warnings"])
        return opened.as_converted(folder / record["file"], record["route"], warnings)

    def close(self) -> None:
        """Close the open model."""
        self._close_session()
        self._model = None
        self._models.close()

    def _close_session(self) -> None:
        self._session = None
        self._sessions.close()


_TASKS: Mapping[str, Callable[[Worker, Mapping[str, Any]], Answer]] = {
    "convert": Worker.convert,
    "run": Worker.run,
    "forecast": Worker.forecast,
}


def _records(task: Mapping[str, Any]) -> tuple[CutOptions, Job]:
    """The options of a task, which crossed as JSON."""
    values = {name: _tuples(value) for name, value in task["options"].items()}
    fields = {each.name for each in options_of(CutOptions)}
    cut = CutOptions(**{name: value for name, value in values.items() if name in fields})
    job = {name: value for name, value in values.items() if name not in fields}
    return cut, Job(**job, dated=False)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _is_intact(folder: Path) -> bool:
    """Was the folder written whole, and did nothing change since?"""
    try:
        return check_manifest(folder).passed
    except (CheckError, OSError):
        return False


def _as_exporter_error(error: Exception) -> ExporterError:
    """The error of a cell for an exception that is not meant for users."""
    if isinstance(error, ImportError) and (missing := missing_library(error)):
        return missing
    if isinstance(error, OSError) and (refused := system_error(error)):
        return refused
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}:{last.lineno}"
    message = f"{type(error).__name__}: {first_line(error) or 'no message'} ({place})"
    return ExporterError(f"this is a bug in exporter: {message}", "please report it")


def _check_versions(expected: Mapping[str, str]) -> None:
    """Refuse to work with other libraries than the process that made the plan."""
    own = all_versions()
    for name, version in expected.items():
        if own.get(name) != version:
            raise ExporterError(
                f"{name} is {version} where the batch was started, and {own.get(name)} here",
                "install the same versions for all workers",
            )


def _peak_bytes() -> int:
    """The largest resident memory of this process so far; 0 if the system does not tell."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    serve(Worker)
