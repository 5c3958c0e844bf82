"""The report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from exporter.records import Report
from exporter.report.formatting import printable
from exporter.report.sections import Section, report_sections
from exporter.report.tables import Cell, Column

# Characters that are markup; an underscore inside a word and a bare `<=` are not.
_SPECIAL = re.compile(r"[\\`*\[\]|~]|^[#>](?!=)|<(?=[\w/!?])|&(?=[\w#])|(?<!\w)_|_(?!\w)")


def to_markdown(report: Report) -> str:
    """The whole report as GitHub-flavored Markdown with a newline at its end."""
    return draw_markdown(report_sections(report))


def draw_markdown(sections: Iterable[Section]) -> str:
    """The sections as blocks with an empty line between them."""
    return "\n\n".join(block for section in sections for block in _blocks(section)) + "\n"


def _blocks(section: Section) -> Iterator[str]:
    yield f"{'#' * section.level} {_escape(section.title)}"
    if section.command:
        fence = _fence(section.command, 3)
        yield f"{fence}sh\n{section.command}\n{fence}"
    yield from map(_escape, section.text)
    if section.items:
        yield "\n".join(f"- {_escape(item)}" for item in section.items)
    if section.records:
        yield _table(section.columns, section.records)
    yield from map(_escape, section.notes)


def _table(columns: Sequence[Column], records: Iterable[object]) -> str:
    lines = [
        [column.title for column in columns],
        ["---:" if column.right else "---" for column in columns],
        *([_cell(column.cell(record)) for column in columns] for record in records),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    if cell.style == "name":
        return _code(cell.text)
    return f"**{_escape(cell.text)}**" if cell.style == "bad" else _escape(cell.text)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", printable(text))


def _code(text: str) -> str:
    shown = printable(text).replace("|", r"\|")  # a table would end the cell there
    fence = _fence(shown, 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
