"""exporter verify"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating


@click.command("verify")
@click.argument("original", type=options.PATH)
@click.argument("pruned", type=options.PATH)
@options.checks
@options.signature
@options.limits
@options.common
def command(original: Path, pruned: Path, **given: Any) -> int:
    """Prove that PRUNED answers as ORIGINAL did."""
    from exporter.cli import show
    from exporter.jobs.compare import verify_files

    with narrating(given) as say:
        report = verify_files(original, pruned, options.job(given, say))
    return show.reports({"": report}, given)
