"""The sections of a report, built once: Markdown, HTML and the terminal only draw them.

The terminal gets the brief form: fewer sections and columns, and failed checks last, next to the
prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.evaluation.measures import TASKS, gated_measure
from exporter.records import Quality, Report, precision_rows
from exporter.remap.head_remap import HeadRemap
from exporter.report import describe, tables
from exporter.report.check_groups import (
    CheckGroup,
    compares_values,
    describe_failure,
    describe_first,
    describe_quantization,
    describe_sample,
    describe_worst,
    failed,
    gated,
    group_checks,
)
from exporter.report.formatting import NOTHING, plural
from exporter.report.proofs import proofs
from exporter.report.tables import Column, Style

_MOST_NAMES = 2  # of files in a title
REMAP_ROWS, REMAP_ROWS_BRIEF = 20, 10
SELECTION_ROWS, SELECTION_ROWS_BRIEF = 1000, 10


@dataclass(frozen=True)
class Section:
    """One section, drawn in the order of its fields.

    Attributes:
        level: of the heading: 1 for the verdict, 3 for a part of the section before.
        style: of the title.
        text: paragraphs.
        command: a line for a shell.
        items: a list.
        columns, records: a table with one row for each record.
        notes: paragraphs after the table.
    """

    title: str
    level: int = 2
    style: Style = "plain"
    command: str = ""
    text: Sequence[str] = ()
    items: Sequence[str] = ()
    columns: Sequence[Column] = ()
    records: Sequence[Any] = ()
    notes: Sequence[str] = ()

    @property
    def has_content(self) -> bool:
        """Whether there is anything to draw."""
        return self.level == 1 or bool(self.text or self.items or self.records)


def report_sections(report: Report, *, brief: bool = False, written: bool = True) -> list[Section]:
    """The sections of one report that have content.

    Args:
        written: its files exist; some commands write none if a check fails.
    """

    def table(
        title: str, columns: Iterable[Column], records: Sequence[Any], *details: str, note: str = ""
    ) -> Section:
        wanted = (column for column in columns if not (brief and column.detail))
        shown = [each for each in wanted if any(each.cell(r).text != NOTHING for r in records)]
        notes = [text for text in (note, *(() if brief else details)) if text]
        return Section(title, columns=shown, records=records, notes=notes)

    advice = describe_quantization(report.checks)
    failures = Section(
        "Failed checks", style="bad", items=[*_failures({"": report}), *filter(None, [advice])]
    )
    causes = [describe_worst(case) for case in report.worst]
    causes += [describe_first(found) for found in report.first_differences]
    worst = Section("Examples of failures", items=causes)
    samples = [describe_sample(row) for row in report.worst_samples if row.passed]
    original = Section("Original", text=(describe.describe_original(report),))
    groups, timing = group_checks(report.checks), describe.describe_timing(report.latency)
    limits = describe.describe_limits_of_timing(report.latency, with_cpu=brief)
    sections = [
        _verdict(report, written=written),
        *(() if brief else (failures, worst, original)),
        _selection(report, brief),
        table("Artifacts", tables.ARTIFACTS, report.artifacts, describe.SIZES),
        Section("Proof", items=proofs(report)),
        table("Trimmed", tables.TRIMMED, report.trimmed, describe.TRIMMED),
        table("Quality and size", tables.PRECISIONS, precision_rows(report), describe.PRECISIONS),
        table(
            "Agreement by class",
            tables.AGREEMENT,
            () if brief else report.agreement,
            describe.AGREEMENT,
        ),
        table("Task quality", tables.QUALITY, _quality(report, brief), describe.QUALITY),
        table("Checks", tables.CHECK_GROUPS, groups),
        *(() if brief else _check_sections(groups)),
        Section("Worst samples", items=() if brief else samples),
        table("Latency", tables.LATENCY, report.latency, timing, note=limits),
        table("Memory when loaded", tables.MEMORY, report.memory, describe.MEMORY),
        table("Devices", tables.DEVICES, report.devices),
        *(_remap(head, brief) for head in (report.remap.heads if report.remap else ())),
        Section("Interface", items=list(describe.describe_interfaces(report.artifacts))),
        Section("Inputs", text=_inputs(report, brief=brief)),
        Section("Warnings", style="warning", items=report.warnings),
        *((failures, worst) if brief else (_origin(report),)),
    ]
    return [section for section in sections if section.has_content]


def batch_sections(reports: Mapping[str, Report]) -> list[Section]:
    """The brief sections of several variants: a row for each, then all warnings and failures."""
    warnings = [f"{name}: {text}" for name, report in reports.items() for text in report.warnings]
    sections = (
        _batch_verdict(reports),
        Section("", columns=tables.variant_columns(reports), records=list(reports)),
        Section("Warnings", style="warning", items=warnings),
        Section("Failed checks", style="bad", items=_failures(reports)),
    )
    return [section for section in sections if section.has_content]


def _verdict(report: Report, *, written: bool) -> Section:
    can_fail, bad = len(gated(report.checks)), failed(report.checks)
    if bad:
        files = list(dict.fromkeys(check.artifact for check in bad if check.artifact))
        names = " and ".join(files) if len(files) <= _MOST_NAMES else f"these {len(files)} files"
        names = names or "these files"
        advice = f"Do not use {names}." if written else "Nothing was written."
        return Section(f"{len(bad)} of {plural(can_fail, 'check')} failed. {advice}", 1, "bad")
    passed = f" ({plural(can_fail, 'check')} passed)" if can_fail else ""
    title = f"{describe.describe_change(report)}: {describe.describe_result(report)}{passed}"
    return Section(title, 1, "good" if any(map(compares_values, report.checks)) else "plain")


def _batch_verdict(reports: Mapping[str, Report]) -> Section:
    count = plural(len(reports), "variant")
    if bad := [name for name, report in reports.items() if not report.ok]:
        title = f"{len(bad)} of {count} failed a check. Do not use: {', '.join(bad)}"
        return Section(title, 1, "bad")
    if unverified := [
        name for name, report in reports.items() if not any(map(compares_values, report.checks))
    ]:
        return Section(f"{len(unverified)} of {count} not verified: {', '.join(unverified)}", 1)
    return Section(f"{count}: every check passed", 1, "good")


def _failures(reports: Mapping[str, Report]) -> list[str]:
    return [
        f"{name}: {describe_failure(check)}" if name else describe_failure(check)
        for name, report in reports.items()
        for check in failed(report.checks)
    ]


def _check_sections(groups: Sequence[CheckGroup]) -> Iterator[Section]:
    if not groups:
        yield Section("Checks", text=("No check was run: nothing is verified.",))
    for group in groups:
        title = f"{group.artifact}: {describe.STAGES.get(group.stage, group.stage)}"
        title += f", on {group.device}" if group.device else ""
        yield Section(title, 3, columns=tables.CHECKS, records=group.checks)


def _quality(report: Report, brief: bool) -> Sequence[Quality]:
    """All rows; of the brief form those of the measure that gates use."""
    gates = {gated_measure(task) for task in TASKS}
    return [row for row in report.quality if not brief or row.measure in gates]


def _selection(report: Report, brief: bool) -> Section:
    """Why each unit was kept or removed; if there are too many, the kept ones first."""
    rows, limit = report.selection, SELECTION_ROWS_BRIEF if brief else SELECTION_ROWS
    more: tuple[str, ...] = ()
    if len(rows) > limit:
        rows = tuple(sorted(rows, key=lambda row: not row.kept))[:limit]
        more = (f"+{len(report.selection) - limit} more in report.json.",)
    return Section("Selection", columns=tables.SELECTION, records=rows, notes=more)


def _remap(head: HeadRemap, brief: bool) -> Section:
    rows, limit = list(describe.remap_rows(head)), REMAP_ROWS_BRIEF if brief else REMAP_ROWS
    kept = describe.describe_kept(head)
    more = f"+{len(rows) - limit} more in remap.json." if len(rows) > limit else ""
    notes = (more, describe.describe_removed(head), describe.describe_ids(head))
    return Section(
        f"Remap of {head.name}",
        text=() if brief else (f"{kept}, mode {head.mode}, last activation {head.activation}.",),
        columns=tables.remap_columns(head),
        records=rows[:limit],
        notes=tuple(filter(None, notes)),
    )


def _inputs(report: Report, *, brief: bool) -> tuple[str, ...]:
    """The inputs, and how much of each head they reach; in brief, only if they miss features."""
    shown = [each for each in report.coverage if not brief or each.misses_features]
    return (describe.describe_inputs(report), *map(describe.describe_coverage, shown))


def _origin(report: Report) -> Section:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    started = () if report.command else ("The job was started from Python.",)
    machine = describe.describe_machine(report)
    text = (
        *started,
        *describe.describe_settings(report),
        f"Machine: {machine}.",
        f"Versions: {versions or 'unknown'}.",
    )
    return Section("How to reproduce", command=report.command, text=text)
