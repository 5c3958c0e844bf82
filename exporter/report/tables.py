"""The tables of a report: one row for each column, with its title and the content of its cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from exporter.evaluation.measures import MEASURES
from exporter.output.c_source import FORMS
from exporter.records import Check, Device, Latency, Memory, Proof, Quality, Report, UnitAgreement
from exporter.remap.head_remap import HeadRemap
from exporter.report.check_groups import CheckGroup, gated, is_gated
from exporter.report.formatting import (
    NOTHING,
    change,
    count,
    decibels,
    factor,
    milliseconds,
    number,
    percent,
    percent_with_interval,
    plural,
    points,
    size,
    value_and_limit,
)

Style = Literal["plain", "name", "good", "bad", "warning"]

_FULL_CELLS = 2  # a table of variants with more models than this shows no changes in size


@dataclass(frozen=True)
class Cell:
    """Text in a table, and how it is drawn; "name" is the name of a file or tensor."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        content: record -> text or cell.
        right: aligned to the right.
        detail: not in the brief form.
    """

    title: str
    content: Callable[[Any], str | Cell]
    right: bool = False
    detail: bool = False

    def cell(self, record: object) -> Cell:
        """The cell of one record."""
        content = self.content(record)
        return Cell(content) if isinstance(content, str) else content


def _speedup(row: Latency) -> str:
    low, high = row.speedup_ci95
    return f"{factor(row.speedup)} [{factor(low, '')}, {factor(high, '')}]"


def _times(before: str, after: str) -> Callable[[Any], str]:
    """Two fields of a record in milliseconds; the first may be missing."""

    def text(row: Latency) -> str:
        first = getattr(row, before)
        return milliseconds(*(() if first is None else (first,)), getattr(row, after))

    return text


def _sizes(name: str, title: str) -> Column:
    """A field of a record in bytes, before and after."""

    def text(row: Memory) -> str:
        return size(getattr(row, f"original_{name}"), getattr(row, name))

    return Column(title, text, right=True, detail=True)


def _share(name: str, title: str) -> Column:
    """A share with its interval."""

    def text(row: Quality) -> str:
        interval = getattr(row, "ci95" if name == "value" else f"{name}_ci95")
        return percent_with_interval(getattr(row, name), interval)

    return Column(title, text, right=True, detail=True)


def _memory_change(row: Memory) -> str:
    if row.verdict == "no measurable change":
        return row.verdict
    return change(row.original_bytes, row.bytes)


def _nearest(group: CheckGroup) -> str:
    if group.worst is None:
        return NOTHING
    texts = value_and_limit(group.worst) if group.worst.limit is not None else ()
    return " ".join((group.worst.metric, *texts))


def _limit(check: Check) -> str:
    """With a note if the user gave it."""
    return value_and_limit(check)[1] + (" (given)" if check.limit_from == "user" else "")


def _result(check: Check | None) -> Cell:
    if check is None or not is_gated(check):
        return Cell("no limit")
    return Cell("passed", "good") if check.passed else Cell("FAILED", "bad")


def _before_and_after(row: Quality) -> str:
    before = row.original if row.original_kept is None else row.original_kept
    return f"{percent(before)} -> {percent(row.value)}"


_VERDICTS: Mapping[str, Style] = {
    "faster": "good",
    "slower": "bad",
    "machine too busy to tell": "warning",
}
_FILE = Column("File", lambda row: Cell(row.artifact, "name"))
_DEVICE = Column("Device", lambda row: row.device or NOTHING)
_PRECISION = Column("Precision", lambda row: row.precision)
_BEFORE_AND_AFTER = Column("Size", lambda row: size(row.original_bytes, row.bytes), right=True)
_CHANGE = Column("Change", lambda row: change(row.original_bytes, row.bytes), right=True)

ARTIFACTS = (
    Column("File", lambda row: Cell(row.path, "name")),
    Column("Kind", lambda row: row.kind, detail=True),
    _PRECISION,
    _BEFORE_AND_AFTER,
    _CHANGE,
    Column("Route", lambda row: row.route or NOTHING),
    Column("Structure", lambda row: _proof(row.proof), detail=True),
)


def _proof(proof: Proof | None) -> str | Cell:
    if proof is None:
        return NOTHING
    styles: Mapping[str, Style] = {"proved": "good", "different": "bad"}
    return Cell(proof.result, styles.get(proof.result, "plain"))


def class_name(unit: int, label: str) -> str:
    """3, or "3 owl"."""
    return f"{unit} {label}" if label else str(unit)


def _instead(row: UnitAgreement) -> str:
    return f"{class_name(row.instead, row.instead_label)}: {row.instead_count}"


SELECTION = (
    Column("Unit", lambda row: str(row.unit), right=True),
    Column("Label", lambda row: row.label),
    Column("", lambda row: Cell("kept", "good") if row.kept else Cell("removed")),
    Column("Reason", lambda row: row.reason or NOTHING),
)

PRECISIONS = (
    _FILE,
    _PRECISION,
    Column("SQNR", lambda row: decibels(row.sqnr_db), right=True),
    Column("Top-1", lambda row: percent(row.top1), right=True),
    Column("Size", lambda row: size(row.bytes), right=True),
    Column("p50", lambda row: milliseconds(row.p50_ms), right=True),
    Column("Speed-up", lambda row: factor(row.speedup), right=True, detail=True),
)

AGREEMENT = (
    _FILE,
    Column("Class", lambda row: class_name(row.unit, row.label)),
    Column("First in the float model", lambda row: str(row.count), right=True),
    Column("Same", lambda row: percent(row.share), right=True),
    Column("Most often instead", _instead),
)

QUALITY = (
    _FILE,
    Column("Measure", lambda row: MEASURES[row.measure].label),
    Column("Classes", lambda row: row.classes),
    Column("Samples", lambda row: str(row.samples), right=True),
    _share("original", "Original [95 %]"),
    _share("original_kept", "Original, kept units only [95 %]"),
    Column("Before -> after", _before_and_after, right=True),
    _share("value", "After [95 %]"),
    Column("Drop [95 %]", lambda row: points(row.drop, row.drop_ci95), right=True),
)

TRIMMED = (
    _FILE,
    Column(
        "Agreement [95 %]",
        lambda row: percent_with_interval(row.agreement, row.agreement_ci95),
        right=True,
    ),
    Column("SQNR", lambda row: decibels(row.sqnr_db), right=True),
    Column(
        "Multiply-adds",
        lambda row: _counts(row.original_multiply_adds, row.multiply_adds),
        right=True,
    ),
    Column(
        "Parameters",
        lambda row: _counts(row.original_parameters, row.parameters),
        right=True,
        detail=True,
    ),
    Column("Calibrated on", lambda row: str(row.calibration_samples), right=True, detail=True),
    Column("Held out", lambda row: str(row.held_out_samples), right=True, detail=True),
)


def _counts(before: int | None, after: int | None) -> str:
    """23.1 M -> 5.2 M (22.5 %)"""
    if before is None or after is None:
        return NOTHING
    return f"{count(before)} -> {count(after)} ({percent(after / before if before else None)})"


CHECK_GROUPS = (
    _FILE,
    _DEVICE,
    Column("Stage", lambda group: group.stage),
    Column("Passed", lambda group: group.tally if group.worst else NOTHING, right=True),
    Column("Nearest to its limit", _nearest),
    Column("Result", lambda group: _result(group.worst)),
)

CHECKS = (
    Column("Output", lambda check: Cell(check.output, "name") if check.output else NOTHING),
    Column("Metric", lambda check: check.metric),
    Column("Value", lambda check: value_and_limit(check)[0], right=True),
    Column("Limit", _limit, right=True),
    Column("Samples", lambda check: str(check.samples), right=True),
    Column("Result", _result),
)

LATENCY = (
    _FILE,
    _DEVICE,
    Column(
        "Engine",
        lambda row: f"{row.engine}, {plural(row.threads, 'thread')}, batch {row.batch}",
        detail=True,
    ),
    Column("p50", _times("original_p50_ms", "p50_ms"), right=True),
    Column("CPU", _times("original_cpu_ms", "cpu_ms"), right=True, detail=True),
    Column("p90", _times("original_p90_ms", "p90_ms"), right=True, detail=True),
    Column("p99", _times("original_p99_ms", "p99_ms"), right=True, detail=True),
    Column("Load", _times("original_load_ms", "load_ms"), right=True, detail=True),
    Column("Speed-up [95 %]", _speedup, right=True),
    Column("Noise floor", lambda row: f"+/- {number(row.noise_floor)}", right=True, detail=True),
    Column("Verdict", lambda row: Cell(row.verdict, _VERDICTS.get(row.verdict, "plain"))),
)

MEMORY = (
    _FILE,
    _DEVICE,
    Column("Engine", lambda row: row.engine, detail=True),
    Column("Resident", _BEFORE_AND_AFTER.content, right=True),
    Column("Change", _memory_change, right=True),
    _sizes("anonymous_bytes", "Anonymous"),
    _sizes("mapped_bytes", "Mapped"),
    _sizes("peak_bytes", "Peak"),
    Column("Noise", lambda row: size(row.noise_bytes), right=True, detail=True),
)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or NOTHING


def _temperature(row: Device) -> str:
    """Before and after, in degrees Celsius."""
    known = (row.temperature_before_c, row.temperature_after_c)
    found = [f"{each:.0f}" for each in known if each is not None]
    return f"{' -> '.join(found)} C" if found else NOTHING


DEVICES = (
    Column("Device", lambda row: Cell(row.name, "name")),
    Column("Processor", lambda row: row.cpu or NOTHING),
    Column("Cores", lambda row: str(row.cores or NOTHING), right=True),
    Column("Memory", lambda row: size(row.memory_bytes), right=True, detail=True),
    Column("System", lambda row: row.system or NOTHING, detail=True),
    Column("Versions", lambda row: _versions(row.versions), detail=True),
    Column("Governor", lambda row: row.governor or NOTHING),
    Column("Temperature", _temperature, right=True),
)


def remap_columns(head: HeadRemap) -> tuple[Column, ...]:
    """Of the records `describe.remap_rows`; without labels if the head has none."""
    columns = (
        Column("New", lambda row: row[0], right=True),
        Column("Old", lambda row: row[1], right=True),
        Column("Label", lambda row: row[2] or NOTHING),
    )
    return columns if head.labels is not None else columns[:2]


def variant_columns(reports: Mapping[str, Report]) -> tuple[Column, ...]:
    """Of the names of variants; a column for each kind and precision of a model, not C source."""
    models = {
        name: {f"{a.kind} {a.precision}": a for a in report.artifacts if a.kind not in FORMS}
        for name, report in reports.items()
    }
    kinds = dict.fromkeys(kind for found in models.values() for kind in found)

    def kept(name: str) -> str:
        remap = reports[name].remap
        heads = remap.heads if remap else ()
        return ", ".join(f"{len(head.kept)} of {head.old_units}" for head in heads) or NOTHING

    def tally(name: str) -> Cell:
        report = reports[name]
        group = CheckGroup("", "", report.checks)
        style: Style = "good" if report.ok else "bad"
        return Cell(group.tally, style) if gated(report.checks) else Cell("none")

    def model(kind: str, name: str) -> str:
        artifact = models[name].get(kind)
        if artifact is None:
            return NOTHING
        less = change(artifact.original_bytes, artifact.bytes) if len(kinds) <= _FULL_CELLS else ""
        return f"{size(artifact.bytes)} {less}".rstrip()

    return (
        Column("Variant", str),
        Column("Kept", kept, right=True),
        Column("Checks", tally, right=True),
        *(Column(kind, partial(model, kind), right=True) for kind in kinds),
    )
