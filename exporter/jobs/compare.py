"""A file against its original, later and by somebody else: verify and bench."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from exporter.data.samples import Samples
from exporter.errors import ExporterError, UsageError
from exporter.formats import KINDS, kind_of
from exporter.formats.model import Model
from exporter.jobs.checks import CheckResults, compare_models, measure_models
from exporter.jobs.options import Job
from exporter.jobs.record import describe, make_report
from exporter.output.sidecar import read_sidecar
from exporter.records import Check, Report
from exporter.remap import Remap


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
) -> CheckResults:
    """Compare, but report files that do not belong together as a warning, not an error."""
    try:
        return compare_models(job, *models, inputs, remap.heads if remap else ())
    except ExporterError as error:
        if all(check.passed for check in provenance):
            raise
        return CheckResults(warnings=(f"the answers were not compared: {error.message}",))


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
        found = measure_models(job, ((left, original), (right, pruned)), inputs)
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
