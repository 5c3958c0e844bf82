"""Quantizing as a part of a job: what it is calibrated on, what each precision lost and costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from exporter.data.samples import Samples, read_samples, synthetic_samples
from exporter.errors import UsageError
from exporter.formats import KINDS, copy_model, kind_of, size_bytes
from exporter.formats.model import Model
from exporter.jobs.checks import (
    NO_INPUTS,
    CheckResults,
    Measures,
    _named,
    compare_models,
    measure_models,
)
from exporter.jobs.options import Job
from exporter.jobs.output_checks import check_forms, check_output, refuse_input
from exporter.jobs.record import describe, describe_forms, make_report
from exporter.jobs.source import Source
from exporter.output.c_source import write_forms
from exporter.output.files import write_atomically
from exporter.output.sidecar import write_with_remap
from exporter.quantization import FLOAT, PRECISIONS, QuantizationSpec
from exporter.quantization.quantize import Quantized, check_float
from exporter.quantization.remote import quantize_in
from exporter.records import Artifact, Check, Latency, Report
from exporter.remap import Remap

USUAL_SAMPLES = 100  # TFLite's and onnxruntime's own guides calibrate on a hundred and more


def wishes(job: Job) -> tuple[QuantizationSpec, ...]:
    """What each artifact beside the float one shall become."""
    return tuple(
        QuantizationSpec(name, job.integer_io and PRECISIONS[name].calibrated)
        for name in job.precisions
        if name != FLOAT
    )


def gates(job: Job) -> Job:
    """The job for the checks of what is float: there a tolerance for what is coarser gates nothing.

    Without another precision the tolerance is the user's own limit of a float cut.
    """
    return replace(job, tolerance=None) if wishes(job) else job


def refuse_quantizing(job: Job, source: Source) -> None:
    """Refuse what could not be quantized, before minutes are spent on a conversion.

    Raises:
        UsageError: a kind of file is asked for that no library quantizes.
        ModelError: the source is quantized already.
    """
    for wish in wishes(job):
        for kind in job.kinds or source.default_kinds():
            if kind not in PRECISIONS[wish.precision].libraries:
                raise UsageError(
                    f"{KINDS[kind].title} files are not made {wish.precision}",
                    f"leave {kind} out of --to, or {wish.precision} out of --precision",
                )
        if KINDS[source.model.kind].edge:
            check_float(source.model, wish.precision)


def calibration(job: Job, model: Model) -> Samples | None:
    """The samples that show the ranges of activations; None where no precision needs any.

    Args:
        model: whose inputs they must fit.

    Raises:
        UsageError: none are given, or they do not fit (see `samples.read_samples`).
    """
    calibrated = [wish.precision for wish in wishes(job) if PRECISIONS[wish.precision].calibrated]
    if not calibrated:
        return None
    if job.synthetic_calibration:
        count = job.samples or USUAL_SAMPLES
        return synthetic_samples(model.graph(), count, job.seed, job.input_shapes)
    file = job.calibration or job.data
    if file is None:
        raise UsageError(
            f"{' and '.join(calibrated)} need inputs to calibrate on",
            "give real ones with --data FILE; --synthetic-calibration makes some up",
        )
    return read_samples(file, model.graph())


def calibration_warnings(job: Job, samples: Samples | None) -> tuple[str, ...]:
    """What the ranges are worth."""
    if samples is None:
        return ()
    if job.synthetic_calibration:
        made_up = f"calibrated on {samples.count} made-up samples ({samples.source})"
        return (f"{made_up}: the ranges are not those of real data",)
    if samples.count < USUAL_SAMPLES:
        few = f"calibrated on {samples.count} sample{'s' * (samples.count > 1)} only"
        return (f"{few}: {USUAL_SAMPLES} and more show ranges that new inputs keep to",)
    return ()


def quantized(
    job: Job, source: Source, model: Model, wish: QuantizationSpec, samples: Samples | None
) -> Quantized:
    """The model in another precision, made in the source's child; that is said beforehand."""
    of = f", calibrated on {samples.count} samples" if samples and _calibrated(wish) else ""
    job.progress(f"quantizing {model.name} to {wish.precision}{of}")
    return quantize_in(source.child, model, wish, samples)


def _calibrated(wish: QuantizationSpec) -> bool:
    return PRECISIONS[wish.precision].calibrated


def ruined(name: str, checks: Iterable[Check]) -> tuple[str, ...]:
    """Where the answers of a quantized file are more noise than signal: nobody can want it.

    Args:
        name: of the quantized file.
        checks: what was found of it.
    """
    told = [c.value for c in checks if c.metric == "sqnr_db" and c.value is not None]
    worst = min(told, default=0.0)
    if worst >= 0.0:
        return ()
    return (
        f"{name} answers with more noise than signal ({worst:.1f} dB): choose another precision",
    )


def drawbacks(
    name: str, sizes: tuple[int, int], times: tuple[Latency | None, Latency | None]
) -> tuple[str, ...]:
    """Where a quantized file is larger or slower than the float one that it was made of.

    Args:
        name: of the quantized file.
        sizes: bytes of the float file, and of the quantized one.
        times: of both, each timed beside the same original; None where it was not timed. Where the
            float one was not, it stands for the original itself.
    """
    told = []
    before, after = sizes
    if after >= before:
        told.append(f"{name} is {after / before:.2f} times as large as the float file")
    base, row = times
    if row is not None:
        plain, noise = (1.0, 0.0) if base is None else (base.speedup, base.noise_floor)
        low = 1.0 if base is None else base.speedup_ci95[0]
        if row.speedup_ci95[1] < low - noise - row.noise_floor:
            ratio = plain / row.speedup
            told.append(f"{name} is {ratio:.2f} times as slow as the float file on this processor")
    return tuple(told)


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
        refuse_quantizing(job, given)
        inputs = job.inputs(model) if job.verify or job.bench else NO_INPUTS
        samples = calibration(job, model)
        made = quantized(job, given, model, wish, samples)
        draft = Path(folder, out.name)
        made.model.write(draft)
        small = given.reopen(draft)
        small.runner(job.run_options)  # what the runtime does not take is not written
        found = compare_models(job, model, small, inputs, ()) if job.verify else CheckResults()
        costs = (
            measure_models(job, ((model, path), (small, draft)), inputs)
            if job.bench
            else Measures()
        )
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


def _one_wish(job: Job) -> QuantizationSpec:
    wanted = wishes(job)
    if len(wanted) != 1 or len(job.precisions) != 1:
        known = ", ".join(name for name in PRECISIONS if name != FLOAT)
        raise UsageError("one file has one precision", f"give one of {known}")
    return wanted[0]


def _edge_kind(path: Path) -> str:
    """Of a file that can be quantized as it stands."""
    kind = kind_of(path)
    if not KINDS[kind].edge:
        raise UsageError(
            f"{path.name} is a {KINDS[kind].title} file, which is not quantized as it stands",
            "convert it first, or use `exporter run --precision`",
        )
    return kind


def _write_quantized(draft: Path, out: Path, remap: Remap | None, job: Job) -> None:
    def write(file: Path) -> None:
        copy_model(draft, file)
        write_forms(file, out, job.forms, remap, force=job.force)

    if remap is None:
        write_atomically(out, write, force=job.force)
    else:
        write_with_remap(out, write, remap, force=job.force)
