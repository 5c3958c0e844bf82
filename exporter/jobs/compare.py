"""Compare two existing files: the commands `verify` and `bench`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from exporter.data.samples import Samples
from exporter.errors import DeviceError, ExporterError, ModelError, UsageError
from exporter.formats import KINDS, kind_of, size_bytes
from exporter.formats.executor import running_on
from exporter.formats.model import Model
from exporter.formats.structure import quantized_since
from exporter.jobs.any_two import Counterpart, counterpart
from exporter.jobs.checks import CheckResults, compare_models, measure_models, probe_head, prove_cut
from exporter.jobs.job import Job
from exporter.jobs.record import describe_artifact, make_report
from exporter.jobs.started import started
from exporter.jobs.task_quality import QualityMeter
from exporter.modes.gate_branch import MASK
from exporter.output.sidecar import read_sidecar
from exporter.performance.memory import ModelFile
from exporter.quantization import FLOAT, PRECISIONS
from exporter.quantization.quantize import shows_precision
from exporter.records import Check, Report
from exporter.remap import Remap
from exporter.report.formatting import plural


def verify_files(original: Path, pruned: Path, job: Job) -> Report:
    """Check that a pruned, converted or quantized file matches its original.

    The cut is made again and the structures are compared (see `exporter.proof.prove`); the head is
    fed directly (see `exporter.proof.probe`); then both files run on samples.

    The remap is read from the pruned file. Two more checks fail if the sidecar contains another
    remap, or if the remap names another SHA-256 than the original has.

    Without a remap, the inputs and outputs of both files are matched, and a remap is recovered if
    the second file has fewer units (see `jobs.any_two`). Other outputs must be equal.
    """
    job = started(job, "verify", (original, pruned))
    with ExitStack() as stack:
        opened_pruned = stack.enter_context(job.open(pruned))
        model = opened_pruned.model
        _check_comparable(original, model)
        source = stack.enter_context(job.open(original))
        _check_order(source.model, model)
        sidecar = read_sidecar(pruned)
        remap = model.remap or sidecar
        stated = _stated_precision(source.model, model, remap)
        precision = job.quantized_to or stated
        job = replace(job, verify=True, batch=_fixed_batch(model), quantized_to=precision)
        inputs = job.inputs(source.model, source.path)
        results = _provenance(source.model, model, sidecar)
        results += CheckResults.warn(*opened_pruned.warnings)
        results += _precision_check(model, stated)
        other = counterpart(source.model, model, remap, job)
        recovered = other.remap if remap is None else None
        proof, structure = prove_cut(job, source.model, model, remap, recovered)
        results += structure + CheckResults.warn(*other.warnings)
        has_own_names = other.model is model
        model, remap = other.model, other.remap
        with job.fleet() as fleet:
            needed = sum(size_bytes(path) for path in (original, pruned))
            for device in fleet.devices((model.kind,), needed) if fleet else (None,):
                with running_on(None if device is None else device.executor()):
                    if has_own_names:
                        proof, found = probe_head(job, source.model, model, remap, proof)
                        results += found if device is None else found.on_device(device.name)
                    found = _compare_values(job, source.model, other, inputs, results)
                if device is not None:
                    found = replace(found.on_device(device.name), devices=(device.facts(),))
                results += found
        # The sizes of files of two kinds do not show the effect of the cut.
        uncut = source.path if source.model.kind == model.kind else None
        artifacts = (describe_artifact(model, pruned, uncut=uncut, proof=proof),)
        results = results.with_resources(job, artifacts)
        return make_report(job, source, results, inputs, remap=remap, artifacts=artifacts)


def _compare_values(
    job: Job, original: Model, other: Counterpart, inputs: Samples, so_far: CheckResults
) -> CheckResults:
    """Run both models. An error is a warning if a check failed before.

    These files do not belong together then, which the failed check already reports.
    """
    tables = other.remap.heads if other.remap else ()
    try:
        results = compare_models(job, original, other.model, inputs, tables)
        return results + QualityMeter(job, original, inputs).measure(other.model, tables)
    except ExporterError as error:
        if so_far.passed or isinstance(error, DeviceError):
            raise
        return CheckResults.warn(f"the outputs were not compared: {error.message}")


def _check_comparable(original: Path, pruned: Model) -> None:
    kind = KINDS[kind_of(original)]
    if pruned.remap is not None and not kind.written:
        raise UsageError(
            f"{pruned.name} was cut, and the logits of {original.name}, a {kind.title}, cannot be "
            "read to compare it",
            "compare with the converted file: run --keep-original writes it",
        )


def _check_order(original: Model, pruned: Model) -> None:
    """Refuse a cut as the original of the file that it was cut from."""
    remap = original.remap
    if remap is None or pruned.remap is not None or pruned.sha256 is None:
        return
    sources = (remap.original, remap.parent)
    if pruned.sha256 in {source.sha256 for source in sources if source is not None}:
        raise UsageError(
            f"{original.name} was cut from {pruned.name}, so the files are in the wrong order",
            "give the original first: exporter verify ORIGINAL CUT",
        )


def _check_inputs(original: Model, pruned: Model) -> None:
    """Refuse to time two models that cannot run on the same samples.

    The pruned one may lack inputs that only removed outputs need, or have one more for a mask.
    """
    first, second = (tuple(model.graph().inputs) for model in (original, pruned))
    if set(second) - {*first, MASK}:
        raise UsageError(
            f"{original.name} takes {', '.join(first) or 'no input'}, and {pruned.name} takes "
            f"{', '.join(second) or 'no input'}: both must run on the same inputs",
            "bench a model and a file that was made from it",
        )


def _fixed_batch(model: Model) -> int:
    """The batch size of a file with a fixed one, else 1."""
    graph = model.graph()
    leading = {shape[0] or 1 for name in graph.inputs if (shape := graph.shape(name))}
    return max(leading, default=1)


def _provenance(original: Model, pruned: Model, sidecar: Remap | None) -> CheckResults:
    """Check that the pruned model was cut from this original, and that both remaps are equal."""
    checks, warnings = [], []
    if remap := pruned.remap or sidecar:
        sources = [source for source in (remap.original, remap.parent) if source is not None]
        known = {source.sha256 for source in sources if source.sha256}
        if known:
            of_original = original.sha256 in known or remap.is_same_cut(original.remap)
            checks.append(("original", of_original))
        else:
            warnings.append(
                f"unknown whether {pruned.name} was cut from {original.name}: 0 of "
                f"{plural(len(sources), 'model')} that its remap names have a SHA-256"
            )
    if sidecar is not None and pruned.remap is not None:
        checks.append(("remap", sidecar == pruned.remap))
    made = [Check.of_fact("cut", pruned.name, metric, passed) for metric, passed in checks]
    return CheckResults(tuple(made), warnings=tuple(warnings))


def _stated_precision(original: Model, model: Model, remap: Remap | None) -> str | None:
    """The precision that the file states, and the original does not.

    Raises:
        ModelError: it states an unknown one.
    """
    stated = quantized_since(original, model, remap)
    if stated is not None and stated not in PRECISIONS:
        known = f"known are {', '.join(PRECISIONS)}"
        raise ModelError(f"{model.name} states the precision {stated!r}", known)
    return stated


def _precision_check(model: Model, stated: str | None) -> CheckResults:
    """A failed check if the precision that a file states is not to be seen in it.

    The statement of a file chooses the limits, which are wider for quantized files.
    """
    if stated is None or stated == FLOAT or shows_precision(model, stated):
        return CheckResults()
    detail = f"it states {stated}, and contains {model.precision} values only"
    failed = Check.of_fact("quantize", model.name, "precision", False, detail)
    return CheckResults((failed,))


def bench_files(original: Path, pruned: Path, job: Job) -> Report:
    """Time two files of one kind side by side, and measure the memory that they take."""
    kinds = {kind_of(path) for path in (original, pruned)}
    if len(kinds) > 1 or not all(KINDS[kind].benchmarked for kind in kinds):
        raise UsageError(
            f"{original.name} and {pruned.name} do not run in the same edge runtime",
            "bench two .onnx files, or two .tflite files",
        )
    job = started(job, "bench", (original, pruned))
    with ExitStack() as stack:
        source, opened_pruned = (stack.enter_context(job.open(p)) for p in (original, pruned))
        model = opened_pruned.model
        _check_inputs(source.model, model)
        inputs = job.inputs(source.model, source.path)
        results = CheckResults.warn(*opened_pruned.warnings)
        with job.fleet() as fleet:
            files = ModelFile(source.model, original), ModelFile(model, pruned)
            results += measure_models(replace(job, bench=True), *files, inputs, fleet=fleet)
        artifacts = (describe_artifact(model, pruned, uncut=source.path),)
        results = results.with_resources(job, artifacts)
        report = make_report(job, source, results, inputs, remap=model.remap, artifacts=artifacts)
    if job.save is None:
        return report
    from exporter.jobs.history import save_timings

    found = save_timings(job.save, report, job.fail_on_regression)
    return replace(
        report,
        checks=(*report.checks, *found.checks),
        warnings=(*report.warnings, *found.warnings),
    )
