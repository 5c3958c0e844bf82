"""The parts of the job, each on its own: plan, inspect, prune, convert, quantize, verify, bench."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.cutting import Choice, Cut, plan_cut
from exporter.errors import ExporterError, UsageError
from exporter.forms import check_forms, write_forms
from exporter.inspection import Inspection, inspect_model
from exporter.job import NO_INPUTS, Findings, Job, Measures, compare, measure
from exporter.models import KINDS, copy_model, kind_of, kind_of_suffix, size_bytes
from exporter.models.files import write_whole
from exporter.models.model import Model
from exporter.quantization import FLOAT, PRECISIONS, Wish
from exporter.quantizing import (
    calibration,
    calibration_warnings,
    drawbacks,
    quantised,
    refuse_quantising,
    wishes,
)
from exporter.remap import Remap
from exporter.report.record import Artifact, Check, Report
from exporter.reporting import describe, make_report
from exporter.samples import Samples
from exporter.sources import (
    Source,
    check_output,
    read_sidecar,
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
            artifacts = (describe(done.model, out, uncut=given.path),)
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
        if not done.cut.plan.edits and source:
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
            artifacts = (describe(target.model, out, target.route),)
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
        if found.passed:
            _write_quantized(draft, out, model.remap, job)
        return make_report(
            job,
            given,
            inputs,
            samples,
            remap=model.remap,
            artifacts=(artifact,) if found.passed else (),
            checks=_named(found, out),
            latency=costs.latency,
            memory=costs.memory,
            warnings=(
                *given.warnings,
                *calibration_warnings(job, samples),
                *made.warnings,
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


def verify_files(original: Path, pruned: Path, job: Job) -> Report:
    """Prove that a pruned or converted file answers as its original does.

    The remap is read from the file; one beside it that differs, or an original of another SHA-256
    than it names, is a failed check. Without a remap the outputs must be equal as they are.
    """
    with ExitStack() as stack:
        other = stack.enter_context(job.open(pruned))
        _check_comparable(original, other.model)
        given = stack.enter_context(job.open(original))
        job = replace(job, batch=_fixed_batch(other.model))
        inputs = job.inputs(given.model)
        beside = read_sidecar(pruned)
        alike = given.model.kind == other.model.kind  # else the sizes say nothing of the cut
        remap = other.model.remap or beside
        provenance = _provenance(given.model, other.model, beside)
        found = _comparison(job, (given.model, other.model), inputs, remap, provenance)
        missing = () if remap else (f"{pruned.name} carries no remap: compared as it stands",)
        return make_report(
            job,
            given,
            inputs,
            remap=remap,
            artifacts=(describe(other.model, pruned, uncut=given.path if alike else None),),
            checks=(*provenance, *found.checks),
            warnings=(*given.warnings, *other.warnings, *missing, *found.warnings),
        )


def _check_comparable(original: Path, pruned: Model) -> None:
    kind = KINDS[kind_of(original)]
    if pruned.remap is not None and not kind.written:
        raise UsageError(
            f"{pruned.name} was cut, and the logits of {original.name}, a {kind.title}, cannot be "
            "read to compare it",
            "compare with the converted file: run --keep-original writes it",
        )


def _fixed_batch(model: Model) -> int:
    """How many samples at a time a file takes; 1 where it leaves that open."""
    graph = model.graph()
    leading = {shape[0] or 1 for name in graph.inputs if (shape := graph.shape(name))}
    return max(leading, default=1)


def _comparison(
    job: Job,
    models: tuple[Model, Model],
    inputs: Samples,
    remap: Remap | None,
    provenance: tuple[Check, ...],
) -> Findings:
    """`compare`; where the files do not belong together, that is the finding, not an error."""
    try:
        return compare(job, *models, inputs, remap.heads if remap else ())
    except ExporterError as error:
        if all(check.passed for check in provenance):
            raise
        return Findings(warnings=(f"the answers were not compared: {error.message}",))


def _provenance(original: Model, pruned: Model, beside: Remap | None) -> tuple[Check, ...]:
    """Is this the model that was cut, and is the table beside the file the one inside?"""
    checks = []
    if remap := pruned.remap or beside:
        named = [origin for origin in (remap.original, remap.parent) if origin is not None]
        known = {origin.sha256 for origin in named if origin.sha256}
        checks.append(_fact(pruned, "original", original.sha256 in known or not known))
    if beside is not None and pruned.remap is not None:
        checks.append(_fact(pruned, "remap", beside == pruned.remap))
    return tuple(checks)


def _fact(pruned: Model, metric: str, passed: bool) -> Check:
    return Check("cut", pruned.name, "", metric, None, None, passed, samples=0)


def bench_files(original: Path, pruned: Path, job: Job) -> Report:
    """Time two files of one kind side by side, and measure what memory they take."""
    kinds = {kind_of(path) for path in (original, pruned)}
    if len(kinds) > 1 or not all(KINDS[kind].edge for kind in kinds):
        raise UsageError(
            f"{original.name} and {pruned.name} do not run in one edge runtime",
            "bench two .onnx files, or two .tflite files",
        )
    with ExitStack() as stack:
        given, other = (stack.enter_context(job.open(path)) for path in (original, pruned))
        left, right = given.model, other.model
        inputs = job.inputs(left)
        found = measure(job, ((left, original), (right, pruned)), inputs)
        return make_report(
            job,
            given,
            inputs,
            remap=right.remap,
            artifacts=(describe(right, pruned, uncut=given.path),),
            latency=found.latency,
            memory=found.memory,
            warnings=(*given.warnings, *other.warnings, *found.warnings),
        )
