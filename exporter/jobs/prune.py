"""The parts of the job, each on its own: plan, inspect, prune, convert, quantize."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.data.samples import Samples
from exporter.formats import KINDS, copy_model, kind_of, suffixes_of
from exporter.formats.model import Model
from exporter.jobs.checks import NO_INPUTS, CheckResults, _named, compare_models
from exporter.jobs.options import Job
from exporter.jobs.output_checks import check_forms, check_output, refuse_input
from exporter.jobs.record import describe, describe_forms, make_report
from exporter.jobs.source import Source
from exporter.output.c_source import write_forms
from exporter.output.sidecar import write_with_remap
from exporter.planning.cut import Cut, CutOptions, plan_cut
from exporter.records import Artifact, Report
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Pruned:
    """A cut model, how it was cut, and what the check found.

    Attributes:
        model: the result; `remap` tells its indices from the original's.
    """

    model: Model
    cut: Cut
    results: CheckResults
    warnings: tuple[str, ...]
    inputs: Samples = NO_INPUTS

    @property
    def remap(self) -> Remap:
        return self.cut.remap

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model, and its remap beside it (raises as `sources.check_output` does)."""
        target = Path(path)
        check_output(target, self.model.kind, force=force)
        write_with_remap(target, self.model.write, self.remap, force=force)


def plan_job(source: str | Path | Any, choice: CutOptions, job: Job) -> Cut:
    """What would be cut; nothing is written.

    A model that cannot be looked into is converted: the plan is that of the first converted file.
    """
    with job.open(source) as given, tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        if KINDS[given.model.kind].written:
            return plan_cut(given.model, choice)
        kind = (job.to or given.default_kinds())[0]
        target = given.target(kind, Path(folder), job.progress)
        return plan_cut(target.model, choice, target.original)


def prune_model(model: Model, choice: CutOptions, job: Job) -> Pruned:
    """Cut an opened model and check the cut; nothing is written."""
    cut = plan_cut(model, choice)
    job.progress(f"cutting {model.name}")
    pruned = model.apply(cut.plan)
    if not job.verify:
        return Pruned(pruned, cut, CheckResults(), cut.warnings)
    inputs = job.inputs(model)
    results = compare_models(job, model, pruned, inputs, cut.remap.heads)
    return Pruned(pruned, cut, results, (*cut.warnings, *results.warnings), inputs)


def prune_file(source: str | Path, out: Path, choice: CutOptions, job: Job) -> Report:
    """Cut a file into a file of the same kind, and write the remap beside it.

    Where a check fails nothing is written, and the report says what failed. Where everything is
    kept the file is copied byte for byte.
    """
    check_prune(source, out, job)
    with job.open(source) as given:
        done = prune_model(given.model, choice, job)
        artifacts: tuple[Artifact, ...] = ()
        if done.results.passed:
            _write_pruned(given, done, out, job)
            artifact = describe(done.model, out, uncut=given.path)
            artifacts = (artifact, *describe_forms(out, job.forms, artifact.precision))
        return make_report(
            job,
            given,
            done.inputs,
            remap=done.remap,
            artifacts=artifacts,
            checks=_named(done.results, out),
            warnings=(*given.warnings, *done.warnings),
        )


def check_prune(source: str | Path, out: Path, job: Job) -> None:
    """Refuse what `prune_file` could not write, before anything is opened."""
    path, kind = Path(source), kind_of(Path(source))
    check_output(out, kind, force=job.force)
    check_forms(out, kind, job.forms, force=job.force)
    refuse_input(path, out)


def _write_pruned(given: Source, done: Pruned, out: Path, job: Job) -> None:
    source = given.path

    def write(file: Path) -> None:
        if not done.cut.plan.edits and source and file.suffix.lower() in suffixes_of(source):
            copy_model(source, file)
        else:
            done.model.write(file)
        write_forms(file, out, job.forms, done.remap, force=job.force)

    write_with_remap(out, write, done.remap, force=job.force)
