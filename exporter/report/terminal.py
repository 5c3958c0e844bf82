"""The report on a terminal: what somebody who has just run a job wants to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.output.c_source import FORMS
from exporter.records import Artifact, Latency, Report, precision_rows
from exporter.remap.head_remap import HeadRemap
from exporter.report import phrases
from exporter.report.phrases import Group, printable

REMAP_ROWS = 10

_GAP = 2
_NAME_LEAST = 18  # pruned.fp32.tflite
_BESIDE_NAME = 61  # what the widest table needs beside the name of the file
_FULL_CELLS = 2  # artifacts of a variant that leave room for more than their size
_VERDICTS = {"faster": "green", "slower": "red"}

Cell = str | Text


def print_report(report: Report, console: Console) -> None:
    """Draw one report: about 30 lines for two artifacts, 80 columns and more."""
    _print(console, _headline(report))
    drawn = (table(report, console) for table in _TABLES)
    for table in drawn:
        if table.row_count:
            _print(console, "", table)
    for head in report.remap.heads if report.remap else ():
        _print(console, "", *_remap(head))
    notes = [("Inputs", "bold", phrases.inputs(report))]
    notes += [("Warning", "bold yellow", warning) for warning in report.warnings]
    _print(console, "", _notes(notes))
    _print_failures({"": report}, console)


def print_reports(reports: Mapping[str, Report], console: Console) -> None:
    """Draw the reports of several variants: a row each, then every failure in full."""
    _print(console, _title(reports), "", _variants(reports))
    warnings = [
        ("Warning", "bold yellow", f"{name}: {warning}")
        for name, report in reports.items()
        for warning in report.warnings
    ]
    if warnings:
        _print(console, "", _notes(warnings))
    _print_failures(reports, console)


# --- parts --------------------------------------------------------------------------------------


def _headline(report: Report) -> Text:
    text = Text(phrases.headline(report), "bold green" if report.ok else "bold red")
    count = len(phrases.gated(report.checks))
    if report.ok and count:
        text.append(f" ({phrases.plural(count, 'check')} passed)", "not bold default")
    return text


def _title(reports: Mapping[str, Report]) -> Text:
    count = phrases.plural(len(reports), "variant")
    if bad := [name for name, report in reports.items() if not report.ok]:
        return Text(f"NOT TO SHIP: {len(bad)} of {count}: {printable(', '.join(bad))}", "bold red")
    if open_ := [name for name, report in reports.items() if not phrases.gated(report.checks)]:
        return Text(f"{len(open_)} of {count} not verified: {printable(', '.join(open_))}", "bold")
    return Text(f"{count}: every check passed", "bold green")


def _artifacts(report: Report, console: Console) -> Table:
    table = _table("Artifact", "Precision", "Size:", "Change:", "Route")
    for row in report.artifacts:
        name = _name(row.path, console)
        size, change = phrases.before_and_after(row), phrases.change(row.original_bytes, row.bytes)
        _add(table, name, row.precision, size, change, row.route)
    return table


def _precisions(report: Report, console: Console) -> Table:
    table = _table("Quality beside size", *phrases.PRECISION_TITLES)
    for row in precision_rows(report):
        _add(table, _name(row.artifact, console), *phrases.precision_cells(row))
    return table


def _checks(report: Report, console: Console) -> Table:
    table = _table("Checks", "Stage", "Passed:", "Nearest to its limit", "")
    for group in phrases.groups(report):
        _add(table, _name(group.artifact, console), group.stage, *_verdict(group))
    return table


def _verdict(group: Group) -> tuple[Cell, ...]:
    worst = group.worst
    if worst is None:
        return "-", "reported only", ""
    tally = Text(group.tally, "green" if worst.passed else "bold red")
    result = Text("" if worst.passed else "FAILED", "bold red")
    if worst.limit is None:
        return tally, worst.metric, result
    return tally, " ".join((worst.metric, *phrases.value_and_limit(worst))), result


def _latency(report: Report, console: Console) -> Table:
    table = _table("Latency", "p50:", "Speed-up [95 %]:", "Verdict")
    for row in report.latency:
        verdict = Text(row.verdict, _VERDICTS.get(row.verdict, ""))
        _add(table, _name(row.artifact, console), _p50(row), phrases.speedup(row), verdict)
    return table


def _memory(report: Report, console: Console) -> Table:
    table = _table("Memory when loaded", "Resident:", "Change:")
    for row in report.memory:
        name = _name(row.artifact, console)
        _add(table, name, phrases.held(row), phrases.change(row.original_bytes, row.bytes))
    return table


def _p50(row: Latency) -> str:
    before, after = map(phrases.milliseconds, (row.original_p50_ms, row.p50_ms))
    return f"{before} -> {after} ms"


def _remap(head: HeadRemap) -> Iterable[Table | Text]:
    name = printable(head.name)
    titles = ("Old:", f"Label of {name}") if head.labels else (f"Old unit of {name}:",)
    table = _table("New:", *titles)
    rows = list(phrases.remap_rows(head))
    for row in rows[:REMAP_ROWS]:
        _add(table, *row[: len(table.columns)])
    yield table
    more = f"+{len(rows) - REMAP_ROWS} more in remap.json" if len(rows) > REMAP_ROWS else ""
    sentences = " ".join(filter(None, (phrases.standing(head), phrases.ids(head))))
    if notes := ". ".join(filter(None, (more, sentences))):
        yield Text(notes)


def _variants(reports: Mapping[str, Report]) -> Table:
    kinds = list(dict.fromkeys(_kind(row) for r in reports.values() for row in _models(r)))
    table = _table("Variant", "Kept:", "Checks:", *(f"{kind}:" for kind in kinds))
    for name, report in reports.items():
        cells = {_kind(row): _size(row, full=len(kinds) <= _FULL_CELLS) for row in _models(report)}
        heads = report.remap.heads if report.remap else ()
        kept = ", ".join(f"{len(head.kept)} of {head.old_units}" for head in heads)
        sizes = (cells.get(kind, phrases.NOTHING) for kind in kinds)
        _add(table, name, kept or phrases.NOTHING, _tally(report), *sizes)
    return table


def _models(report: Report) -> list[Artifact]:
    """Without the other forms of the same models."""
    return [row for row in report.artifacts if row.kind not in FORMS]


def _kind(row: Artifact) -> str:
    return f"{row.kind} {row.precision}"


def _size(row: Artifact, *, full: bool) -> str:
    change = phrases.change(row.original_bytes, row.bytes)
    return f"{phrases.size(row.bytes)} {change}" if full else phrases.size(row.bytes)


def _tally(report: Report) -> Text:
    if not phrases.gated(report.checks):
        return Text("none")
    tally = Group("", "", report.checks).tally
    return Text(tally, "green" if report.ok else "bold red")


def _print_failures(reports: Mapping[str, Report], console: Console) -> None:
    rows = [
        ("FAILED", "bold red", f"{name}: {line}" if name else line)
        for name, report in reports.items()
        for line in map(phrases.failure, phrases.failed(report))
    ]
    if rows:
        _print(console, "", _notes(rows))


# --- drawing ------------------------------------------------------------------------------------


def _print(console: Console, *parts: Cell | Table) -> None:
    """Line by line, without the blanks that tables end their lines with.

    Names come from files: no markup in them, no emoji code, no highlighting.
    """
    for part in parts:
        drawn = Text(part) if isinstance(part, str) else part
        for line in console.render_lines(drawn, pad=False):
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
            text.rstrip()
            console.print(text, highlight=False)


def _table(*titles: str) -> Table:
    """A title that ends in a colon makes its column stand to the right; the last one may wrap."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for title in titles:
        right = title.endswith(":")
        table.add_column(
            Text(title.removesuffix(":")),
            justify="right" if right else "left",
            no_wrap=right or title != titles[-1],
        )
    return table


def _add(table: Table, *cells: Cell) -> None:
    table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells))


def _notes(rows: Sequence[tuple[str, str, str]]) -> Table:
    """A word, and a sentence that wraps beside it."""
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for word, style, sentence in rows:
        table.add_row(Text(word, style), Text(printable(sentence)))
    return table


def _name(path: str, console: Console) -> str:
    """The end of a long name says most: the precision and the kind."""
    room = max(_NAME_LEAST, console.width - _BESIDE_NAME)
    name = printable(path)
    return name if len(name) <= room else f"...{name[3 - room :]}"


_TABLES = (_artifacts, _precisions, _checks, _latency, _memory)
