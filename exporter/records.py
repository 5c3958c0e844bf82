"""The record of a job: plain data that serializes to `exporter/report/1`.

Markdown and the terminal are drawn from it and from nothing else. JSON has no word for infinity or
NaN: such a value becomes null, and a warning says which it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeVar

from exporter.errors import ModelError
from exporter.output.c_source import FORMS
from exporter.remap import Remap

SCHEMA = "exporter/report/1"

Row = TypeVar("Row")
Verdict = Literal["faster", "slower", "no measurable change"]


@dataclass(frozen=True)
class Original:
    """The model that the job started from."""

    path: str
    kind: str
    precision: str
    bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class Artifact:
    """A written file: a model, or another form of one, such as C source.

    Attributes:
        path: relative to the report.
        kind: key of KINDS, or of FORMS.
        bytes, original_bytes: of the file, and of the uncut file of the same kind.
        sha256: of the file, in hex.
        route: of the conversion; "" where there was none.
    """

    path: str
    kind: str
    precision: str
    bytes: int
    sha256: str
    route: str
    original_bytes: int | None = None


@dataclass(frozen=True)
class Check:
    """One metric of one output of one artifact, beside its limit.

    Attributes:
        stage: "cut", "export" or "quantize".
        output: the output's name; with " (z)" for the values before the last activation.
        metric: key of `parity.METRICS`, or "shape", "finite", "remap", "original", and of the rows
            that a detector returns "rows", "classes", "boxes".
        value: None where nothing could be measured.
        limit: None where the value is only reported.
        samples: how many inputs it was measured on.
    """

    stage: str
    artifact: str
    output: str
    metric: str
    value: float | None
    limit: float | None
    passed: bool
    samples: int


@dataclass(frozen=True)
class Latency:
    """One artifact timed beside its original; times in milliseconds.

    Attributes:
        speedup: median of the paired ratios original / pruned.
        speedup_ci95: bootstrap interval of that median.
        noise_floor: half-width of the interval of the original against itself.
    """

    artifact: str
    engine: str
    threads: int
    batch: int
    original_p50_ms: float
    p50_ms: float
    p90_ms: float
    original_load_ms: float
    load_ms: float
    samples: int
    speedup: float
    speedup_ci95: tuple[float, float]
    noise_floor: float
    verdict: Verdict


@dataclass(frozen=True)
class Memory:
    """Resident bytes that a model, loaded from its file, takes in its runtime with one run."""

    artifact: str
    engine: str
    original_bytes: int
    bytes: int


@dataclass(frozen=True)
class Report:
    """All that a job found.

    Attributes:
        versions: library -> version.
        machine: what it ran on: processor, cores, memory, system.
        command: how the job was started; "" from Python.
        inputs: {"source": "synthetic, seed 0" or a file's name, "samples": int}, and the same of
            what was calibrated on under "calibration", if anything was.
        remap: None where nothing was cut.
        warnings: one sentence each.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    command: str
    inputs: Mapping[str, Any]
    original: Original
    remap: Remap | None
    artifacts: tuple[Artifact, ...] = ()
    checks: tuple[Check, ...] = ()
    latency: tuple[Latency, ...] = ()
    memory: tuple[Memory, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Every check passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, keys in the order of the contract; `precisions` follows from others."""
        remap = None if self.remap is None else json.loads(self.remap.to_json())
        fields = {key: value for key, value in asdict(self).items() if key != "remap"}
        head = {key: fields.pop(key) for key in ("versions", "machine", "command", "inputs")}
        original = {"original": fields.pop("original"), "remap": remap}
        derived = {"precisions": [asdict(row) for row in precision_rows(self)]}
        record = {"schema": SCHEMA, "ok": self.ok, **head, **original, **fields, **derived}
        lost: list[str] = []
        clean: dict[str, Any] = _without_nonfinite(record, "", lost)
        clean["warnings"] += lost
        return clean

    def to_json(self) -> str:
        """One JSON text, indented, with a newline at its end."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a record back; unknown keys are ignored.

        Raises:
            ModelError: not a report, or a damaged one.
        """
        try:
            record = json.loads(text)
            if record["schema"] != SCHEMA:
                raise ModelError(f"not a report of the schema {SCHEMA}: {record['schema']!r}")
            return cls(
                versions=record["versions"],
                machine=record["machine"],
                command=record["command"],
                inputs=record["inputs"],
                original=_read(Original, record["original"]),
                remap=_read_remap(record["remap"]),
                artifacts=tuple(_read(Artifact, row) for row in record["artifacts"]),
                checks=tuple(_read(Check, row) for row in record["checks"]),
                latency=tuple(_read_latency(row) for row in record["latency"]),
                memory=tuple(_read(Memory, row) for row in record["memory"]),
                warnings=tuple(record["warnings"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"the report is damaged: {error}") from error

    def _repr_markdown_(self) -> str:
        """How a notebook shows the report."""
        # A string, as KINDS names the packages of the formats: records import nothing above them.
        text: str = import_module("exporter.report.markdown").to_markdown(self)
        return text


def _read(row: type[Row], values: Mapping[str, Any]) -> Row:
    known = {name: values[name] for name in row.__dataclass_fields__ if name in values}  # type: ignore[attr-defined]
    return row(**known)


def _read_latency(values: Mapping[str, Any]) -> Latency:
    low, high = values["speedup_ci95"]
    return _read(Latency, {**values, "speedup_ci95": (low, high)})


def _read_remap(values: Mapping[str, Any] | None) -> Remap | None:
    return None if values is None else Remap.from_json(json.dumps(values))


def _without_nonfinite(value: Any, place: str, lost: list[str]) -> Any:
    """The value with null where JSON has no word; `lost` gets a sentence for each."""
    if isinstance(value, Mapping):
        dot = "." if place else ""
        return {k: _without_nonfinite(v, f"{place}{dot}{k}", lost) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nonfinite(v, f"{place}[{i}]", lost) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(f"{place} is {value}, which JSON cannot hold: it is null.")
        return None
    return value


# --- quality beside size ---

STAGE = "quantize"


@dataclass(frozen=True)
class PrecisionRow:
    """What one precision keeps and costs.

    Attributes:
        sqnr_db, top1: of the output that lost most, against the float model; None for what is
            float itself, or where it was not measured. An SQNR is infinite where nothing changed.
        p50_ms, speedup: None where it was not timed; the speedup is over the original.
    """

    artifact: str
    kind: str
    precision: str
    sqnr_db: float | None
    top1: float | None
    bytes: int
    p50_ms: float | None
    speedup: float | None


def precision_rows(report: Report) -> tuple[PrecisionRow, ...]:
    """A row an artifact; none where nothing that was quantized was compared."""
    times = {row.artifact: row for row in report.latency}
    files = [each for each in report.artifacts if each.kind not in FORMS]
    rows = [_row(each, report.checks, times.get(each.path)) for each in files]
    measured = any(row.sqnr_db is not None or row.top1 is not None for row in rows)
    return tuple(rows) if measured else ()


def _row(artifact: Artifact, checks: Iterable[Check], time: Latency | None) -> PrecisionRow:
    found = [c for c in checks if c.stage == STAGE and c.artifact == artifact.path]
    return PrecisionRow(
        artifact=artifact.path,
        kind=artifact.kind,
        precision=artifact.precision,
        sqnr_db=_worst(found, "sqnr_db"),
        top1=_worst(found, "top1"),
        bytes=artifact.bytes,
        p50_ms=time.p50_ms if time else None,
        speedup=time.speedup if time else None,
    )


def _worst(checks: Iterable[Check], metric: str) -> float | None:
    values = [check.value for check in checks if check.metric == metric]
    return min((value for value in values if value is not None), default=None)
