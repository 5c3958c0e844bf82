"""Quantize the models of a job: samples to calibrate on, and the cost of each precision."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from exporter.data.read import read_samples
from exporter.data.samples import Samples, synthetic_samples
from exporter.errors import UsageError
from exporter.formats import KINDS, copy_model, kind_of, size_bytes
from exporter.formats.model import Model
from exporter.jobs.checks import NO_INPUTS, CheckResults, compare_models, measure_models
from exporter.jobs.job import Job
from exporter.jobs.output_file import NewFile, check_output_file, write_if_passed
from exporter.jobs.source import OpenedModel
from exporter.jobs.started import started
from exporter.output.draft import new_file
from exporter.output.scratch import scratch_folder
from exporter.performance.memory import ModelFile
from exporter.quantization import FLOAT, PRECISIONS, QuantizationSpec
from exporter.quantization.interface import integer_ends
from exporter.quantization.quantize import Quantized, check_float
from exporter.quantization.remote import quantize_in
from exporter.records import Latency, Report

_CALIBRATION_BYTES = 1 << 30  # of inputs; the guides of the libraries use far fewer
USUAL_SAMPLES = 100  # the guides of TFLite and onnxruntime calibrate on at least a hundred


def quantization_specs(job: Job) -> tuple[QuantizationSpec, ...]:
    """The spec of each artifact that is not float32."""
    return tuple(
        QuantizationSpec(name, job.integer_io, job.float_io)
        if PRECISIONS[name].calibrated
        else QuantizationSpec(name)
        for name in job.precisions
        if name != FLOAT
    )


def for_float_checks(job: Job) -> Job:
    """The job with the limits for float artifacts.

    With several precisions, the tolerance gates only the quantized artifacts. With float32 alone,
    it replaces the limits of the cut.
    """
    tolerance = None if quantization_specs(job) else job.tolerance
    return replace(job, tolerance=tolerance, quantized_to=None)


def refuse_quantizing(job: Job, source: OpenedModel) -> None:
    """Refuse a model that cannot be quantized, before a conversion that may take minutes.

    Raises:
        UsageError: no library quantizes a kind that the job writes.
        ModelError: the source is quantized already.
    """
    for spec in quantization_specs(job):
        for kind in job.kinds or source.default_kinds():
            if kind not in PRECISIONS[spec.precision].quantizers:
                raise UsageError(
                    f"{KINDS[kind].title} files cannot be quantized to {spec.precision}",
                    f"remove {kind} from --to, or {spec.precision} from --precision",
                )
        if KINDS[source.model.kind].quantizable:
            check_float(source.model, spec.precision)
            integer_ends(source.model.graph(), spec)  # refuses unknown names


def calibration_samples(job: Job, source: OpenedModel) -> Samples | None:
    """The samples to calibrate on; None if no precision of the job is calibrated.

    Args:
        source: the samples must fit the inputs of its model.

    Raises:
        UsageError: no samples are given, or they do not fit (see `read_samples`).
    """
    calibrated = [name for name in job.precisions if PRECISIONS[name].calibrated]
    if not calibrated:
        return None
    if job.synthetic_calibration:
        count = job.samples or USUAL_SAMPLES
        return synthetic_samples(source.model.graph(), count, job.seed, job.lengths)
    file = job.calibration or job.data
    if file is None:
        raise UsageError(
            f"{' and '.join(calibrated)} {'needs' if len(calibrated) == 1 else 'need'} inputs to "
            "calibrate on",
            "give real inputs with --data FILE, or use --synthetic-calibration",
        )
    options = job.data_options(source.path)
    found = read_samples(file, source.model.graph(), options=options).within(_CALIBRATION_BYTES)
    return replace(found, on_sample=job.on_sample)


def calibration_warnings(job: Job, samples: Samples | None) -> tuple[str, ...]:
    """Warnings about samples that may not show the ranges of real inputs."""
    if samples is None:
        return ()
    if job.synthetic_calibration:
        count = f"calibrated on {samples.count} synthetic samples ({samples.source})"
        return (f"{count}: the ranges of real data may differ",)
    if samples.count < USUAL_SAMPLES:
        count = f"calibrated on only {samples.count} sample{'s' * (samples.count > 1)}"
        return (f"{count}: use {USUAL_SAMPLES} or more, so that new inputs stay in their ranges",)
    return ()


def quantize_for_job(
    job: Job, source: OpenedModel, model: Model, spec: QuantizationSpec, samples: Samples | None
) -> Quantized:
    """Quantize a model in the child process of the source, and report progress."""
    calibrated = samples is not None and PRECISIONS[spec.precision].calibrated
    detail = f", calibrated on {samples.count} samples" if samples and calibrated else ""
    job.progress(f"quantizing {model.name} to {spec.precision}{detail}")
    return quantize_in(source.child, model, spec, samples)


def quality_warnings(
    name: str,
    size: int,
    results: CheckResults,
    float_size: int,
    float_latency: tuple[Latency, ...] = (),
) -> CheckResults:
    """Warnings if a quantized file is too noisy, or larger or slower than the float file.

    Args:
        name: of the quantized file.
        size: of the quantized file, in bytes.
        results: checks and times of the quantized file.
        float_size: of the float file that it was made from, in bytes.
        float_latency: times of the float file; without any it counts as fast as the original.
    """
    warnings = []
    values = [c.value for c in results.checks if c.metric == "sqnr_db" and c.value is not None]
    if (worst := min(values, default=0.0)) < 0.0:
        noise = f"the outputs of {name} contain more noise than signal ({worst:.1f} dB)"
        warnings.append(f"{noise}: choose another precision")
    if size >= float_size:
        warnings.append(f"{name} is {size / float_size:.2f} times as large as the float file")
    speedup, low, noise_floor = 1.0, 1.0, 0.0
    for row in float_latency:
        speedup, low, noise_floor = row.speedup, row.speedup_ci95[0], row.noise_floor
    for row in results.latency:
        if row.speedup_ci95[1] < low - noise_floor - row.noise_floor:
            factor = f"{speedup / row.speedup:.2f} times as slow as the float file"
            warnings.append(f"{name} is {factor} on this processor")
    return CheckResults.warn(*warnings)


def quantize_file(source: str | Path, out: Path, job: Job) -> Report:
    """Quantize a float32 file to one precision, into a file of the same kind.

    If a check fails, no file is written.

    Raises:
        ExporterError: any of its classes; see `quantization` for the models that are refused.
    """
    path = Path(source)
    spec = _only_spec(job)
    check_output_file(out, _quantizable_kind(path), job.forms, path, force=job.force)
    job = started(job, "quantize", (path, "-o", out, "--precision", spec.precision))
    job = replace(job, options={"precision": spec.precision, **job.options})
    with (
        new_file(out, force=job.force) as new,
        job.open(path) as opened,
        scratch_folder() as folder,
    ):
        model = opened.model
        refuse_quantizing(job, opened)
        inputs = job.inputs(model, path) if job.verify or job.bench else NO_INPUTS
        samples = calibration_samples(job, opened)
        quantized = quantize_for_job(job, opened, model, spec, samples)
        draft = folder / out.name
        quantized.model.write(draft)
        small = opened.reopen(draft)
        small.runner(job.run_options)  # a file that its runtime cannot load is not written
        results = CheckResults.warn(*calibration_warnings(job, samples), *quantized.warnings)
        quantized_job = replace(job, quantized_to=spec.precision)
        results += compare_models(quantized_job, model, small, inputs, ())
        results += measure_models(job, ModelFile(model, path), ModelFile(small, draft), inputs)
        results += quality_warnings(out.name, size_bytes(draft), results, size_bytes(path))
        write = partial(copy_model, draft)
        small.precision = spec.precision  # the file itself may state another one, as for "dynamic"
        file = NewFile(small, new, write, results, small.remap, uncut=path)
        return write_if_passed(job, opened, file, inputs, samples)


def _only_spec(job: Job) -> QuantizationSpec:
    specs = quantization_specs(job)
    if len(specs) != 1 or len(job.precisions) != 1:
        known = ", ".join(name for name in PRECISIONS if name != FLOAT)
        raise UsageError("one file has one precision", f"give one of {known}")
    return specs[0]


def _quantizable_kind(path: Path) -> str:
    kind = kind_of(path)
    if not KINDS[kind].quantizable:
        raise UsageError(
            f"{path.name} is a {KINDS[kind].title} file, which cannot be quantized directly",
            "convert it first, or use `exporter run --precision`",
        )
    return kind
