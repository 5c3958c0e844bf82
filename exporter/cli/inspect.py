"""exporter inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating


@click.command("inspect")
@click.argument("model", type=options.PATH)
@options.signature
@options.limits
@options.common
def command(model: Path, **given: Any) -> int:
    """Show the heads of MODEL: what can be cut, and what is refused and why."""
    from exporter.cli import show
    from exporter.jobs.inspect import inspect_file

    with narrating(given) as say:
        found = inspect_file(model, options.job(given, say))
    return show.inspection(found, given)
