"""exporter prune"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress
from exporter.jobs.options import Job
from exporter.planning.options import CutOptions


@options.command(
    "prune",
    "net.onnx -o small.onnx --keep owl,macaw --labels labels.txt",
    options.output(),
    options.dry_run,
    records=(CutOptions, Job),
)
def command(model: Path, output: Path, **given: Any) -> int:
    """Cut MODEL and write FILE, of the same kind, and FILE.remap.json.

    The result is compared with the original first. If a check fails, no file is written.
    """
    from exporter.cli import show
    from exporter.jobs.prune import check_prune, plan_job, prune_file

    cut_options = options.make_cut_options(given)
    with show_progress(given) as progress:
        job = options.make_job(given, progress)
        if given["dry_run"]:
            check_prune(model, output, job)
            cut = plan_job(model, cut_options, job)
        else:
            report = prune_file(model, output, cut_options, job)
    return show.plans({"": cut}, given) if given["dry_run"] else show.prune_report(report, given)
