"""The parts of the job, each on its own: plan, inspect, prune, convert, quantize."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.cutting import Choice, Cut, plan_cut
from exporter.errors import UsageError
from exporter.forms import check_forms, write_forms
from exporter.inspection import Inspection, inspect_model
from exporter.job import NO_INPUTS, Findings, Job, Measures, compare, measure
from exporter.models import (
    KINDS,
    copy_model,
    kind_of,
    kind_of_suffix,
    size_bytes,
    suffixes_of,
)
from exporter.models.files import write_whole
from exporter.models.model import Model
from exporter.quantization import FLOAT, PRECISIONS, Wish
from exporter.quantizing import (
    calibration,
    calibration_warnings,
    drawbacks,
    quantised,
    refuse_quantising,
    ruined,
    wishes,
)
from exporter.remap import Remap
from exporter.report.record import Artifact, Check, Report
from exporter.reporting import describe, describe_forms, make_report
from exporter.samples import Samples
from exporter.sources import (
    Source,
    check_output,
    refuse_input,
    write_with_remap,
)


@dataclass(frozen=True, eq=False)
class Pruned:
    """A cut model, how it was cut, and what the check found.

    Attributes:
        model: the result; `remap` tells its indices from the original's.
    """

    model: Model
    cut: Cut
    findings: Findings
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


def plan_job(source: str | Path | Any, choice: Choice, job: Job) -> Cut:
    """What would be cut; nothing is written.

    A model that cannot be looked into is converted: the plan is that of the first converted file.
    """
    with job.open(source) as given, tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        if KINDS[given.model.kind].written:
            return plan_cut(given.model, choice)
        kind = (job.to or given.default_kinds())[0]
        target = given.target(kind, Path(folder), job.say)
        return plan_cut(target.model, choice, target.original)


def inspect_file(source: str | Path | Any, job: Job) -> Inspection:
    """The heads of a model (see `inspection`)."""
    with job.open(source) as given:
        size = size_bytes(given.path) if given.path else None
        return inspect_model(given.model, size)


def prune_model(model: Model, choice: Choice, job: Job) -> Pruned:
    """Cut an opened model and check the cut; nothing is written."""
    cut = plan_cut(model, choice)
    job.say(f"cutting {model.name}")
    pruned = model.apply(cut.plan)
    if not job.verify:
        return Pruned(pruned, cut, Findings(), cut.warnings)
    inputs = job.inputs(model)
    findings = compare(job, model, pruned, inputs, cut.remap.heads)
    return Pruned(pruned, cut, findings, (*cut.warnings, *findings.warnings), inputs)


def prune_file(source: str | Path, out: Path, choice: Choice, job: Job) -> Report:
    """Cut a file into a file of the same kind, and write the remap beside it.

    Where a check fails nothing is written, and the report says what failed. Where everything is
    kept the file is copied byte for byte.
    """
    check_prune(source, out, job)
    with job.open(source) as given:
        done = prune_model(given.model, choice, job)
        artifacts: tuple[Artifact, ...] = ()
        if done.findings.passed:
            _write_pruned(given, done, out, job)
            artifact = describe(done.model, out, uncut=given.path)
            artifacts = (artifact, *describe_forms(out, job.forms, artifact.precision))
        return make_report(
            job,
            given,
            done.inputs,
            remap=done.remap,
            artifacts=artifacts,
            checks=_named(done.findings, out),
            warnings=(*given.warnings, *done.warnings),
        )


def check_prune(source: str | Path, out: Path, job: Job) -> None:
    """Refuse what `prune_file` could not write, before anything is opened."""
    path, kind = Path(source), kind_of(Path(source))
    check_output(out, kind, force=job.force)
    check_forms(out, kind, job.forms, force=job.force)
    refuse_input(path, out)


def _named(findings: Findings, out: Path) -> tuple[Check, ...]:
    """The checks under the name that the file gets."""
    return tuple(replace(check, artifact=out.name) for check in findings.checks)


def _write_pruned(given: Source, done: Pruned, out: Path, job: Job) -> None:
    source = given.path

    def write(file: Path) -> None:
        if not done.cut.plan.edits and source and file.suffix.lower() in suffixes_of(source):
            copy_model(source, file)
        else:
            done.model.write(file)
        write_forms(file, out, job.forms, done.remap, force=job.force)

    write_with_remap(out, write, done.remap, force=job.force)


def convert_file(source: str | Path | Any, out: Path, job: Job) -> Report:
    """Convert a Keras model or a SavedModel, uncut, and check the file.

    One that fails is not written.
    """
    kind = kind_of_suffix(out)
    if kind is None or not KINDS[kind].edge:
        known = ", ".join(row.suffixes[0] for row in KINDS.values() if row.edge)
        raise UsageError(f"{out.name} names no kind to convert to", f"use -o NAME with {known}")
    check_output(out, kind, force=job.force)
    check_forms(out, kind, job.forms, force=job.force)
    if isinstance(source, str | Path):
        refuse_input(Path(source), out)
    with job.open(source) as given, tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        inputs = job.inputs(given.model) if job.verify else NO_INPUTS
        target = given.target(kind, Path(folder), job.say, out.stem)
        if target.original is None or target.path is None:
            raise UsageError(f"{given.model.name} is of the kind {KINDS[kind].title} already")
        path = target.path
        found = compare(job, given.model, target.model, inputs, ()) if job.verify else Findings()
        artifacts: tuple[Artifact, ...] = ()
        if found.passed:
            write_whole(out, partial(_write_converted, path, out, job), force=job.force)
            artifact = describe(target.model, out, target.route)
            artifacts = (artifact, *describe_forms(out, job.forms, artifact.precision))
        return make_report(
            job,
            given,
            inputs,
            artifacts=artifacts,
            checks=_named(found, out),
            warnings=(*given.warnings, *target.warnings, *found.warnings),
        )


def _write_converted(path: Path, out: Path, job: Job, file: Path) -> None:
    copy_model(path, file)
    write_forms(file, out, job.forms, None, force=job.force)


def quantize_file(source: str | Path, out: Path, job: Job) -> Report:
    """Bring a float32 file to one other precision, of the same kind, and say what that cost.

    Where a check fails (only a tolerance lets one) nothing is written.

    Raises:
        ExporterError: any of its classes; see `quantization` for what is refused.
    """
    path = Path(source)
    wish = _one_wish(job)
    kind = _edge_kind(path)
    check_output(out, kind, force=job.force)
    check_forms(out, kind, job.forms, force=job.force)
    refuse_input(path, out)
    with job.open(path) as given, tempfile.TemporaryDirectory(prefix="exporter-") as folder:
        model = given.model
        refuse_quantising(job, given)
        inputs = job.inputs(model) if job.verify or job.bench else NO_INPUTS
        samples = calibration(job, model)
        made = quantised(job, given, model, wish, samples)
        draft = Path(folder, out.name)
        made.model.write(draft)
        small = given.reopen(draft)
        small.runner(job.run_options)  # what the runtime does not take is not written
        found = compare(job, model, small, inputs, ()) if job.verify else Findings()
        costs = measure(job, ((model, path), (small, draft)), inputs) if job.bench else Measures()
        artifact = replace(describe(small, draft, uncut=path), precision=wish.precision)
        sizes = size_bytes(path), artifact.bytes
        slow = drawbacks(out.name, sizes, (None, next(iter(costs.latency), None)))
        artifacts: tuple[Artifact, ...] = ()
        if found.passed:
            _write_quantized(draft, out, model.remap, job)
            artifacts = (artifact, *describe_forms(out, job.forms, wish.precision))
        return make_report(
            job,
            given,
            inputs,
            samples,
            remap=model.remap,
            artifacts=artifacts,
            checks=_named(found, out),
            latency=costs.latency,
            memory=costs.memory,
            warnings=(
                *given.warnings,
                *calibration_warnings(job, samples),
                *made.warnings,
                *ruined(out.name, found.checks),
                *slow,
                *found.warnings,
                *costs.warnings,
            ),
        )


def _one_wish(job: Job) -> Wish:
    wanted = wishes(job)
    if len(wanted) != 1 or len(job.precisions) != 1:
        known = ", ".join(name for name in PRECISIONS if name != FLOAT)
        raise UsageError("one file has one precision", f"give one of {known}")
    return wanted[0]


def _edge_kind(path: Path) -> str:
    """Of a file that can be quantised as it stands."""
    kind = kind_of(path)
    if not KINDS[kind].edge:
        raise UsageError(
            f"{path.name} is a {KINDS[kind].title} file, which is not quantised as it stands",
            "convert it first, or use `exporter run --precision`",
        )
    return kind


def _write_quantized(draft: Path, out: Path, remap: Remap | None, job: Job) -> None:
    def write(file: Path) -> None:
        copy_model(draft, file)
        write_forms(file, out, job.forms, remap, force=job.force)

    if remap is None:
        write_whole(out, write, force=job.force)
    else:
        write_with_remap(out, write, remap, force=job.force)
