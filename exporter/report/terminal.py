"""The report on a terminal: the brief form of its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.records import Report
from exporter.report.formatting import printable
from exporter.report.sections import Section, batch_sections, report_sections
from exporter.report.tables import Cell

_GAP = 2
_SHORTEST_NAME = 18  # pruned.fp32.tflite
_OTHER_COLUMNS = 61  # the widest table without its names of files
_STYLES = {"good": "green", "bad": "bold red", "warning": "bold yellow"}


def print_report(report: Report, console: Console, *, written: bool = True) -> None:
    """Draw one report: about 30 lines for two artifacts, 80 columns and more.

    Args:
        written: its files exist.
    """
    _draw(report_sections(report, brief=True, written=written), console)


def print_reports(reports: Mapping[str, Report], console: Console) -> None:
    """Draw the reports of several variants: a row for each, then every failure."""
    _draw(batch_sections(reports), console)


def _draw(sections: Sequence[Section], console: Console) -> None:
    verdict, *rest = sections
    _print(console, Text(printable(verdict.title), f"bold {_STYLES.get(verdict.style, '')}"))
    for has_table, group in groupby(rest, key=lambda section: bool(section.records)):
        found = list(group)
        for parts in [_table(each, console) for each in found] if has_table else [_texts(found)]:
            _print(console, Text(), *parts)


def _table(section: Section, console: Console) -> list[Table | Text]:
    """The title is the header of a column of files, otherwise a line before the table."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    titled = section.columns[0].title == "File" or not section.title
    for column in section.columns:
        wraps = column is section.columns[-1] and not column.right
        title = section.title if column.title == "File" else column.title
        table.add_column(
            Text(printable(title)), justify="right" if column.right else "left", no_wrap=not wraps
        )
    for record in section.records:
        table.add_row(*(_cell(column.cell(record), console) for column in section.columns))
    before = [] if titled else [Text(printable(section.title), "bold")]
    notes = [Text(printable(" ".join(section.notes)))] if section.notes else []
    return [*before, table, *notes]


def _cell(cell: Cell, console: Console) -> Text:
    text = printable(cell.text)
    if cell.style == "name":  # the end of a long name has the precision and the kind
        room = max(_SHORTEST_NAME, console.width - _OTHER_COLUMNS)
        text = text if len(text) <= room else f"...{text[3 - room :]}"
    return Text(text, _STYLES.get(cell.style, ""))


def _texts(sections: Sequence[Section]) -> list[Table]:
    """Titles on the left; the text wraps to the right of them."""
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for section in sections:
        for number, text in enumerate((*section.text, *section.items)):
            title = "" if number else section.title
            table.add_row(Text(title, _STYLES.get(section.style, "bold")), Text(printable(text)))
    return [table]


def _print(console: Console, *parts: Table | Text) -> None:
    """Print without the blanks that tables end their lines with, and without highlighting."""
    for part in parts:
        for line in console.render_lines(part, pad=False):
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line))
            text.rstrip()
            console.print(text, highlight=False)
