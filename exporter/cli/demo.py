"""exporter demo"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating


@click.command("demo")
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    default=Path("exporter-demo"),
    show_default=True,
    metavar="DIR",
)
@options.limits
@options.force
@options.common
def command(output: Path, **given: Any) -> int:
    """Train a small network on real digits, keep three of them, and do the whole job.

    The 1,797 images ship with the package; nothing is downloaded.
    """
    from exporter.cli import show
    from exporter.jobs.demo import run_demo
    from exporter.output.folder import check_output_folder

    check_output_folder(output, force=given["force"])  # before the training
    with narrating(given) as say:
        demo = run_demo(output, options.job(given, say))
    return show.demo(demo, output, given)
