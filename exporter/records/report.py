"""The record of a job: plain data that serializes to the schema `exporter/report/1`.

JSON has no infinity and no NaN: such a value becomes null, and a warning says which it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cache
from importlib import import_module
from itertools import repeat
from typing import Any, get_args, get_origin, get_type_hints

from exporter.errors import ModelError
from exporter.output.c_source import FORMS
from exporter.records.checks import Check, Coverage, FirstDifference, UnitAgreement, WorstCase
from exporter.records.details import BoxPicture, Confusion, WorstSample
from exporter.records.rows import (
    Artifact,
    Device,
    Latency,
    Memory,
    Original,
    PrecisionRow,
    Quality,
    SelectedUnit,
    Trimmed,
)
from exporter.remap import Remap

SCHEMA = "exporter/report/1"
_ALWAYS = (  # keys that every report has; others were added later
    *("versions", "machine", "command", "inputs", "original", "remap"),
    *("artifacts", "checks", "latency", "memory", "warnings"),
)


@dataclass(frozen=True)
class Report:
    """The results of a job.

    Attributes:
        versions: library -> version.
        machine: processor, cores, memory, system.
        command: starts the job again; "" if it was started from Python with a live model, or with
            values that no command can take.
        inputs: {"source": "synthetic, seed 0" or a file name, "samples": int}; after a calibration
            also "calibration", with the same keys.
        remap: None if no units were removed.
        warnings: one sentence each.
        quality: of the task, if the data has labels.
        selection: a row for each unit, if a selection file chose them by data.
        date: when the report was made, in UTC and ISO 8601.
        options: the value of each option, given or default.
        settings: how models were compared: runtime options, and which samples count.
        coverage: of each head by the samples.
        worst: of failed checks, where they differ most.
        first_differences: of failed artifacts, if it was asked for.
        trimmed: files without some inner channels, which do not equal their original.
        devices: that models ran on, in addition to `machine`.
        timings: step of the job -> elapsed seconds, without the writing of reports. Steps that all
            variants share are in the report of each.
        agreement: of quantized files with the model before, for the units with the lowest share.
        worst_samples: of each comparison, the sample with the largest difference.
        confusions: of quantized files with the model before, for the units that they confuse most.
        unit_labels: of the original's units, removed ones included, if one head was cut; at most
            the first 4,000.
        box_pictures: of detectors, one sample with the boxes before and after.
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
    quality: tuple[Quality, ...] = ()
    selection: tuple[SelectedUnit, ...] = ()
    date: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    coverage: tuple[Coverage, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    first_differences: tuple[FirstDifference, ...] = ()
    devices: tuple[Device, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    agreement: tuple[UnitAgreement, ...] = ()
    trimmed: tuple[Trimmed, ...] = ()
    worst_samples: tuple[WorstSample, ...] = ()
    box_pictures: tuple[BoxPicture, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    unit_labels: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, with its keys in the documented order."""
        remap = None if self.remap is None else json.loads(self.remap.to_json())
        fields = {key: value for key, value in asdict(self).items() if key != "remap"}
        head = {key: fields.pop(key) for key in ("versions", "machine", "command", "inputs")}
        original = {"original": fields.pop("original"), "remap": remap}
        derived = {"precisions": [asdict(row) for row in precision_rows(self)]}
        record = {"schema": SCHEMA, "ok": self.ok, **head, **original, **fields, **derived}
        replaced: list[str] = []
        finite: dict[str, Any] = _without_nonfinite(record, "", replaced)
        finite["warnings"] += replaced
        return finite

    def to_json(self) -> str:
        """One JSON text, indented, with a newline at its end."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a report; unknown keys are ignored.

        Raises:
            ModelError: the text is not a report of this schema.
        """
        try:
            record = json.loads(text)
            if record["schema"] != SCHEMA:
                raise ModelError(f"not a report of the schema {SCHEMA}: {record['schema']!r}")
            for name in _ALWAYS:
                _ = record[name]
            report: Report = _read(cls, record)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"the report is damaged: {error}") from error
        return report

    def _repr_html_(self) -> str:
        """The report in a notebook."""
        # Named by a string: records are below the report room and do not import it.
        text: str = import_module("exporter.report.notebook").report_fragment(self)
        return text

    def _repr_markdown_(self) -> str:
        """The whole report, where HTML is not shown."""
        text: str = import_module("exporter.report.markdown").to_markdown(self)
        return text

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each model file."""
        notebook = import_module("exporter.report.notebook")
        return notebook.data_frame(notebook.report_rows(self))


_types = cache(get_type_hints)


def _read(kind: Any, value: Any) -> Any:
    """The value of a type, from its JSON. Keys that a record does not have are ignored."""
    if kind is Remap:
        return Remap.from_json(json.dumps(value))
    if isinstance(kind, type) and is_dataclass(kind):
        types = _types(kind)
        return kind(**{name: _read(types[name], value[name]) for name in types if name in value})
    arguments = get_args(kind)
    if type(None) in arguments:
        return None if value is None else _read(arguments[0], value)
    if get_origin(kind) is not tuple:
        return value
    is_fixed = Ellipsis not in arguments
    kinds = arguments if is_fixed else repeat(arguments[0])
    return tuple(_read(each, v) for each, v in zip(kinds, value, strict=is_fixed))


def _without_nonfinite(value: Any, path: str, replaced: list[str]) -> Any:
    """The value with None for infinity and NaN; adds a sentence to `replaced` for each."""
    if isinstance(value, Mapping):
        dot = "." if path else ""
        return {k: _without_nonfinite(v, f"{path}{dot}{k}", replaced) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nonfinite(v, f"{path}[{i}]", replaced) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        replaced.append(f"{path} is {value}, which JSON cannot contain: it is written as null.")
        return None
    return value


def precision_rows(report: Report) -> tuple[PrecisionRow, ...]:
    """One row for each model; none if no quantized model was compared."""
    times = {row.artifact: row for row in report.latency}

    def worst(artifact: str, metric: str) -> float | None:
        found = (c for c in report.checks if (c.stage, c.artifact) == ("quantize", artifact))
        values = (check.value for check in found if check.metric == metric)
        return min((value for value in values if value is not None), default=None)

    rows = [
        PrecisionRow(
            artifact=each.path,
            kind=each.kind,
            precision=each.precision,
            sqnr_db=worst(each.path, "sqnr_db"),
            top1=worst(each.path, "top1"),
            bytes=each.bytes,
            p50_ms=times[each.path].p50_ms if each.path in times else None,
            speedup=times[each.path].speedup if each.path in times else None,
        )
        for each in report.artifacts
        if each.kind not in FORMS
    ]
    measured = any(row.sqnr_db is not None or row.top1 is not None for row in rows)
    return tuple(rows) if measured else ()
