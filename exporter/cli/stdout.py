"""Write to stdout: JSON, text, and what Rich draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from exporter.report import formatting

if TYPE_CHECKING:
    from rich.console import Console


def print_json(record: Mapping[str, Any]) -> None:
    """In ASCII, which every encoding of stdout can write."""
    click.echo(json.dumps(record, allow_nan=False))


def print_rich(draw: Callable[[Console], None]) -> None:
    """Render with Rich, write with Click: Rich exits the process if the reader closed the pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as text:
        draw(console)
    for line in text.get().splitlines():
        click.echo(line.rstrip())


def print_printable(text: str) -> None:
    """One line, with control characters escaped."""
    click.echo(formatting.printable(text))
