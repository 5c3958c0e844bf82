"""exporter prune"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating


@click.command("prune")
@click.argument("model", type=options.PATH)
@click.option("-o", "--output", type=options.PATH, required=True, metavar="FILE")
@options.selection
@options.checks
@options.limits
@click.option("--verify/--no-verify", default=True, show_default=True, help="Check the cut first.")
@options.forms
@options.force
@options.dry_run
@options.common
def command(model: Path, output: Path, **given: Any) -> int:
    """Cut MODEL and write FILE, of the same kind, and FILE.remap.json.

    The cut is checked before anything is written; if a check fails, nothing is.
    """
    from exporter.cli import show
    from exporter.jobs.prune import check_prune, plan_job, prune_file

    choice = options.choice(given)
    with narrating(given) as say:
        job = options.job(given, say)
        if given["dry_run"]:
            check_prune(model, output, job)
            cut = plan_job(model, choice, job)
        else:
            report = prune_file(model, output, choice, job)
    return show.plans({"": cut}, given) if given["dry_run"] else show.pruned(report, given)
