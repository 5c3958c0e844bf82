"""exporter run"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from exporter.cli import options
from exporter.cli.progress import narrating
from exporter.formats import KINDS
from exporter.output.c_source import FORMS
from exporter.quantization import PRECISIONS

TARGETS = {name: kind.help for name, kind in KINDS.items() if kind.written} | {
    name: form.help for name, form in FORMS.items()
}


@click.command("run")
@click.argument("model", type=options.PATH)
@click.option("-o", "--output", type=options.PATH, required=True, metavar="DIR")
@click.option(
    "--to",
    type=options.Names(*TARGETS),
    help=f"Comma list. {'; '.join(f'{name}: {text}' for name, text in TARGETS.items())}.",
)
@click.option(
    "--precision",
    "precisions",
    type=options.Names(*PRECISIONS),
    default="fp32",
    show_default=True,
    help=f"Comma list: {', '.join(PRECISIONS)}.",
)
@options.quantization
@click.option(
    "--quantize-first",
    is_flag=True,
    help="Quantize the whole model and cut the result, not the other way around.",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME=SPEC",
    help="Keep SPEC, into DIR/NAME; repeatable, one conversion for all.",
)
@options.selection
@options.checks
@options.conversion
@click.option("--keep-original", is_flag=True, help="Write the uncut files too.")
@click.option("--verify/--no-verify", default=True, show_default=True)
@click.option("--bench/--no-bench", default=True, show_default=True)
@options.force
@options.dry_run
@options.common
def command(model: Path, output: Path, variants: tuple[str, ...], **given: Any) -> int:
    """Convert MODEL, cut it, prove the result, time it, and report all of it in DIR.

    Writes pruned.fp32.onnx and the like, remap.json, labels.txt, and the report as report.json,
    report.md and report.html. The exit code is 1 if a check fails; the files then stay; do
    not use them.
    """
    from exporter.cli import show
    from exporter.jobs.prune import plan_job
    from exporter.jobs.run import check_run, run_variants

    choices = _choices(variants, given)
    with narrating(given) as say:
        job = options.job(given, say)
        if given["dry_run"]:
            check_run(model, output, choices, job)
            cuts = {n: plan_job(model, choice, job) for n, choice in choices.items()}
        else:
            reports = run_variants(model, output, choices, job)
    return show.plans(cuts, given) if given["dry_run"] else show.reports(reports, given, output)


def _choices(variants: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Folder name -> choice; "" for the one choice of a run without variants."""
    if not variants:
        return {"": options.choice(given)}
    if given["keep"] or given["remove"]:
        raise click.UsageError("--variant stands instead of --keep and --remove")
    named: dict[str, Any] = {}
    for variant in variants:
        name, found, spec = variant.partition("=")
        if not found or not re.fullmatch(r"[\w][\w.-]*", name):
            raise click.UsageError(f"--variant {variant!r} is not of the form NAME=SPEC")
        if name in named:
            raise click.UsageError(f"--variant {name!r} is given twice")
        named[name] = options.choice(given, keep=spec)
    return named
