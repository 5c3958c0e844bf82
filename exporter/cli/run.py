"""exporter run"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import show_progress
from exporter.jobs.job import Job
from exporter.jobs.trim_options import TrimOptions, options_of_run
from exporter.planning.options import CutOptions


@options.command(
    "run",
    (
        "net.keras -o out --keep owl,macaw --labels labels.txt",
        "net.keras -o out --keep @names.txt --precision int8 --data images",
        "net.onnx -o out --keep owl --data photos --trim --target 0.5",
        "net.onnx -o out --variant birds=0-9 --variant cats=281-285",
        "net.onnx --keep 0-9 --dry-run",
    ),
    options.output("DIR", required=False),
    options.option(
        "--variant",
        "variants",
        multiple=True,
        section="Selection",
        metavar="NAME=SPEC",
        help="Keep SPEC and write DIR/NAME. Can be repeated; the model is converted once.",
    ),
    options.dry_run,
    records=(CutOptions, Job, TrimOptions),
)
def command(model: Path, output: Path | None, variants: tuple[str, ...], **given: Any) -> int:
    """Convert, cut, verify, quantize and measure MODEL, and write files and report to DIR.

    Writes pruned.fp32.onnx and the like, remap.json, labels.txt, and the report as report.json,
    report.md and report.html. If a check fails, the command exits with 1; the files stay, and the
    report says that they must not be used.
    """
    from exporter.cli import show, show_forecast
    from exporter.jobs.forecast import forecast_job
    from exporter.jobs.run import check_run, run_variants

    cuts = _cut_options(variants, given)
    start = time.monotonic()
    is_dry = options.wants_forecast(given, output)
    folder = output or Path()  # a dry run has none
    with show_progress(given) as progress:
        job = replace(options.make_job(given, progress), trimming=options_of_run(given))
        if is_dry:
            if output is not None:
                check_run(model, folder, cuts, job)
            found = forecast_job(model, cuts, job, measure_share=given["measure_share"])
        else:
            reports = run_variants(model, folder, cuts, job)
    if is_dry:
        return show_forecast.plans(found, given)
    return show.reports(reports, given, folder, time.monotonic() - start)


def _cut_options(variants: tuple[str, ...], given: dict[str, Any]) -> dict[str, CutOptions]:
    """Name of a folder -> its options; the name is "" in a run without variants."""
    if not variants:
        return {"": options.make_cut_options(given)}
    if given["keep"] or given["remove"] or given["cuts"]:
        raise click.UsageError("--variant excludes --keep, --remove and --cut")
    named: dict[str, CutOptions] = {}
    for variant in variants:
        name, separator, spec = variant.partition("=")
        if not separator or not re.fullmatch(r"[\w][\w.-]*", name):
            raise click.UsageError(f"--variant {variant!r} is not of the form NAME=SPEC")
        if name in named:
            raise click.UsageError(f"--variant {name!r} is given twice")
        named[name] = options.make_cut_options(given, keep=spec)
    return named
