"""exporter batch"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from exporter.cli import options, values
from exporter.cli.progress import show_cells
from exporter.jobs.job import Job
from exporter.planning.option import options_of
from exporter.planning.options import CutOptions
from exporter.storage.urls import scheme_of

_OF_CELLS = {"keep", "remove", "cuts"}  # the plan says which units each cell keeps


@options.command(
    "batch",
    (
        "plan.toml -o out",
        "plan.toml --dry-run",
        "plan.toml -o out --no-bench --workers 4",
        "plan.toml -o out --scheduler tcp://host:8786",
    ),
    options.output("DIR", required=False),
    options.option(
        "--scheduler",
        metavar="ADDRESS",
        section="Workers",
        help="Run on the Dask cluster with this scheduler, such as tcp://host:8786. Its workers "
        "need the same versions, and the same folders. Default: processes on this machine.",
    ),
    options.option(
        "--workers",
        type=values.Whole(1, None),
        section="Workers",
        metavar="COUNT",
        help="Processes on this machine. Default: one for each core.",
    ),
    options.option(
        "--memory",
        type=values.PARSERS["size"],
        section="Workers",
        metavar="SIZE",
        help="Memory that the tasks on each host may take together. Default: 80 % of what is free.",
    ),
    options.option(
        "--dry-run",
        is_flag=True,
        section="Forecast",
        help="Show the cells and the forecast of each; write nothing.",
    ),
    arguments=("plan",),
    records=(CutOptions, Job),
    declared_by="run",
    without=tuple(_OF_CELLS),
    uploads=False,
)
def command(plan: Path, output: str | Path | None, **given: Any) -> int:
    """Run every cell of PLAN: models x selections x precisions x formats, and more.

    PLAN is a TOML file; docs/batch.md describes it. Each cell is a `run` with a folder of its own
    in DIR. An option here wins over that of the plan, for all cells. Finished cells are skipped, so
    that an interrupted batch continues with the same command. Exits with 1 if a cell failed.
    """
    from exporter.batches.plan import read_plan
    from exporter.batches.run import BatchOptions, finished_cells, forecast_batch, write_batch
    from exporter.cli import show_batch

    found = read_plan(plan, _overrides(given))
    start = time.monotonic()
    with show_cells(given) as progress:
        how = BatchOptions(
            given["scheduler"], given["workers"], given["memory"], given["force"], progress
        )
        if given["dry_run"]:
            out = str(output or (found.output and found.folder / found.output) or "")
            is_here = out and not scheme_of(str(output or found.output))
            finished = finished_cells(found, Path(out)) if is_here else frozenset()
            return show_batch.forecast(forecast_batch(found, how), finished, given)
        batch = write_batch(found, output, how)
    return show_batch.result(batch, given, time.monotonic() - start)


def _overrides(given: dict[str, Any]) -> dict[str, Any]:
    """The options of cells that the user gave, by field of their record."""
    context = click.get_current_context()
    values: dict[str, Any] = {}
    for each in (*options_of(CutOptions, "run"), *options_of(Job, "run")):
        source = context.get_parameter_source(each.name)
        if each.name == "force" or source not in {
            ParameterSource.COMMANDLINE,
            ParameterSource.DEFAULT_MAP,
        }:
            continue
        value = given[each.name]
        is_pairs = each.type.startswith("Mapping")
        values[each.name] = dict(options.pairs(value)) if is_pairs else _absolute(value)
    return values


def _absolute(value: Any) -> Any:
    """Paths of the command line are relative to the current folder, not to that of the plan."""
    return value.absolute() if isinstance(value, Path) else value
