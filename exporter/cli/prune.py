"""exporter prune"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.cli import options
from exporter.cli.progress import show_progress
from exporter.jobs.job import Job
from exporter.planning.options import CutOptions


@options.command(
    "prune",
    (
        "net.onnx -o small.onnx --keep owl,macaw --labels labels.txt",
        "net.tflite -o small.tflite --remove 0 --mode mask",
        "net.tflite --keep 0-9 --dry-run",
    ),
    options.output(required=False),
    options.dry_run,
    records=(CutOptions, Job),
)
def command(model: Path, output: Path | None, **given: Any) -> int:
    """Cut MODEL and write FILE, of the same kind, and FILE.remap.json.

    The result is compared with the original first. If a check fails, no file is written.
    """
    from exporter.jobs.prune import check_prune, prune_file

    cut_options = options.make_cut_options(given)
    is_dry = options.wants_forecast(given, output)
    target = output or model.with_name(f"{model.stem}.pruned{model.suffix}")  # of a dry run
    with show_progress(given) as progress:
        job = options.make_job(given, progress)
        if is_dry:
            from exporter.jobs.forecast import forecast_job

            check_prune(model, target, replace(job, force=job.force or output is None))
            found = forecast_job(
                model, {"": cut_options}, job, target, measure_share=given["measure_share"]
            )
        else:
            report = prune_file(model, target, cut_options, job)
    if is_dry:
        from exporter.cli import show_forecast

        return show_forecast.plans(found, given)
    from exporter.cli import show

    return show.prune_report(report, given)
