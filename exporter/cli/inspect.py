"""exporter inspect"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from exporter.cli import options, values
from exporter.cli.progress import show_progress
from exporter.jobs.job import Job
from exporter.jobs.options import OPENING
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions


@options.command(
    "inspect",
    ("net.onnx", "net.onnx --labels '*cat*'", "net.onnx --keep owl,macaw --precision fp32,int8"),
    options.measure_share,
    options.option(
        "--channels",
        is_flag=True,
        section="Channels",
        help="List the groups of inner channels that `exporter trim` can remove.",
    ),
    records=(CutOptions, Job),
)
def command(model: Path, **given: Any) -> int:
    """Show the heads of MODEL: what can be cut, and what is refused and why.

    With --keep or --remove, also forecast the files that `exporter run` would write.
    """
    from exporter.cli import show_inspection
    from exporter.jobs.forecast import inspect_with_forecast
    from exporter.jobs.inspect import inspect_file

    pattern = None if _selects(given) else given["labels"]
    cut_options = _cut_options(given)
    if cut_options is not None and given["channels"]:
        raise click.UsageError("--channels lists the channels of the uncut model: leave out --keep")
    with show_progress(given) as progress:
        job = options.make_job(given, progress)
        if cut_options is None:
            found = inspect_file(model, job, pattern, channels=given["channels"])
        else:
            found = inspect_with_forecast(
                model, cut_options, job, measure_share=given["measure_share"]
            )
    return show_inspection.inspection(found, given)


def _selects(given: Mapping[str, Any]) -> bool:
    names = ("keep", "remove", "cuts", "merge", "gate", "drop_outputs")
    return any(given[name] not in (None, ()) for name in names)


def _cut_options(given: Mapping[str, Any]) -> CutOptions | None:
    """None without a selection; then the options of a forecast would have no effect."""
    if _selects(given):
        labels = values.PATH.convert(given["labels"], None, None) if given["labels"] else None
        return options.make_cut_options(given, labels=labels)
    every = [each for record in (CutOptions, Job) for each in options_of(record, "inspect")]
    flags = {each.name: each.flag for each in every if each.name not in {*OPENING, "labels"}}
    flags["measure_share"] = "--measure-share"
    source = click.get_current_context().get_parameter_source
    for name, flag in flags.items():
        if source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{flag} needs a selection: give --keep SPEC or --remove SPEC")
    return None
