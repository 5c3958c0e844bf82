"""The history of timings: an SQLite file that `bench --save` extends and `history` reads."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.errors import OutputError, UsageError, interpreting, no_such_file
from exporter.jobs.checks import CheckResults
from exporter.output.files import write_text, writing
from exporter.performance.resources import HISTORY
from exporter.performance.trend import Change, Timing, compare_with_earlier
from exporter.records import Check, Latency, Report

_VERSION = 1
_APPLICATION = 0x45585052  # "EXPR", of the file header
_VERSIONS = ("python", "numpy", "unit-exporter", "android")  # of those that affect a timing
_WAIT_S = 30.0  # for another process that writes
_TABLE = """
CREATE TABLE IF NOT EXISTS timing (
    id INTEGER PRIMARY KEY,
    date TEXT NOT NULL,
    series TEXT NOT NULL,
    environment TEXT NOT NULL,
    original_sha256 TEXT,
    artifact_sha256 TEXT NOT NULL,
    latency TEXT NOT NULL,
    memory TEXT
)
"""
_READ = "SELECT date, series, environment, original_sha256, latency FROM timing ORDER BY id"
_WRITE = (
    "INSERT INTO timing (date, series, environment, original_sha256, artifact_sha256, latency, "
    "memory) VALUES (?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True)
class History:
    """Every series of a history, with the changes of each of its timings.

    Attributes:
        limit: the largest change that is allowed; None without a limit.
    """

    changes: dict[str, list[Change]]
    limit: float | None = None

    @property
    def ok(self) -> bool:
        """Whether no newest timing is a regression."""
        return self.limit is None or not any(
            each[-1].exceeds(self.limit) for each in self.changes.values()
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        series = [
            {"series": name, "timings": [_plain(change) for change in found]}
            for name, found in self.changes.items()
        ]
        return {"schema": "exporter/history/1", "ok": self.ok, "series": series}


def _plain(change: Change) -> dict[str, Any]:
    values = asdict(change)
    return {**values.pop("timing"), **values, "trend": change.trend}


def read_history(path: Path, limit: float | None = None, artifact: str | None = None) -> History:
    """Read a history (raises UsageError if the file is none, ModelError if a timing is damaged).

    Args:
        limit: see `History`.
        artifact: only the series that contain this text.
    """
    if not path.is_file():
        raise no_such_file(path, "exporter bench ORIGINAL PRUNED --save writes one")
    with _opened(path) as database:
        rows = database.execute(_READ).fetchall()
    changes: dict[str, list[Change]] = {}
    with interpreting(f"reading the timings of {path}"):
        timings = _timings(rows)
        for index, timing in enumerate(timings):
            if artifact is None or artifact in timing.series:
                change = compare_with_earlier(timing, timings[:index])
                changes.setdefault(timing.series, []).append(change)
    if not changes:
        raise UsageError(
            f"{path} has no timing{f' of {artifact}' if artifact else ''}",
            "exporter bench ORIGINAL PRUNED --save adds one",
        )
    return History(changes, limit)


def draw_history(history: History, path: Path) -> None:
    """Write a picture of all series, which replaces an older one."""
    from exporter.report.trend import trend_svg

    if path.suffix != ".svg":
        raise UsageError(f"{path.name} does not end in .svg", "use --plot NAME.svg")
    text = trend_svg(history.changes)
    with writing(path):
        write_text(path, text + "\n")


def save_timings(path: Path, report: Report, limit: float | None) -> CheckResults:
    """Add the timings of a report, and compare them with earlier ones.

    Args:
        limit: the largest change that is allowed; None adds no check.

    Returns:
        A check for each timing that has earlier ones, and a warning for each that is too noisy to
        show a change of that size, or has none.
    """
    results = CheckResults()
    with _opened(path) as database, database:
        database.execute("BEGIN IMMEDIATE")
        rows = database.execute(_READ).fetchall()
        with interpreting(f"reading the timings of {path}"):
            earlier = _timings(rows)
        for row in report.latency:
            values = _columns(report, row)
            timing = Timing.of(values[:4], asdict(row))
            change = compare_with_earlier(timing, earlier)
            if limit is not None:
                results += _judge(change, row, limit)
            database.execute(_WRITE, values)
    return results


def _judge(change: Change, row: Latency, limit: float) -> CheckResults:
    if change.value is None:
        return CheckResults.warn(
            f"{row.artifact} has no earlier timing on this machine with these versions: nothing "
            "was compared"
        )
    assert change.low is not None  # noqa: S101 - it has a value
    passed = not change.exceeds(limit)
    detail = (
        ""
        if passed
        else (
            f"it is {change.value:.1%} slower than the median of {change.earlier} earlier runs, at "
            f"least {change.low:.1%}"
        )
    )
    check = Check(
        HISTORY,
        row.artifact,
        "",
        "regression",
        change.value,
        limit,
        passed,
        row.samples,
        detail,
        "user",
        row.device,
    )
    if change.can_show(limit):
        return CheckResults((check,))
    noisy = (
        f"the interval of {row.artifact} is too wide to show a regression of {limit:.0%}: measure "
        "longer with --bench-seconds, on a machine with less load"
    )
    return CheckResults((check,), warnings=(noisy,))


def _columns(report: Report, row: Latency) -> tuple[Any, ...]:
    artifact = next(each for each in report.artifacts if each.path == row.artifact)
    device = next((each for each in report.devices if each.name == row.device), None)
    machine = report.machine if device is None else asdict(device)
    versions = report.versions if device is None else device.versions
    environment = {
        **{name: machine.get(name) for name in ("cpu", "cores", "system")},
        **{name: versions[name] for name in _VERSIONS if name in versions},
        **{name: row.settings.get(name) for name in ("threads", "batch")},
        "engine": row.engine,  # with the version of the runtime, and the provider
        "device": row.device,
    }
    memory = next((each for each in report.memory if each.device == row.device), None)
    plain = {key: value for key, value in asdict(row).items() if key != "raw"}
    kept = {key: value for key, value in asdict(memory).items() if key != "raw"} if memory else None
    return (
        report.date,
        f"{report.original.path} -> {row.artifact}{f' on {row.device}' if row.device else ''}",
        json.dumps(environment, sort_keys=True),
        report.original.sha256,
        artifact.sha256,
        json.dumps(plain),
        json.dumps(kept),
    )


def _timings(rows: Sequence[Any]) -> Sequence[Timing]:
    return [Timing.of(row[:4], json.loads(row[4])) for row in rows]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, made if it does not exist; it is only changed in one transaction at a time."""
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as database:
            (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            (kind,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if not tables:
                database.executescript(
                    f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION}; "
                    f"PRAGMA user_version = {_VERSION}; {_TABLE}; COMMIT;"
                )
            elif (kind, version) != (_APPLICATION, _VERSION):
                raise UsageError(
                    f"{path} is not a history that this version of exporter wrote",
                    "choose another file, or update exporter",
                )
            yield database
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise OutputError(f"{path} cannot be used: {error}", "check its folder") from error
        raise UsageError(
            f"{path} is no history: {error}", "choose another file, or remove it"
        ) from error
