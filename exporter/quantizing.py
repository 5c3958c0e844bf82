"""Quantising as a part of a job: what it is calibrated on, what each precision lost and costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from exporter.errors import UsageError
from exporter.job import Job
from exporter.models import KINDS
from exporter.models.model import Model
from exporter.quantization import FLOAT, PRECISIONS, Quantized, Wish, check_float
from exporter.quantization.remote import quantize_in
from exporter.report.record import Check, Latency
from exporter.samples import Samples, from_file, synthetic
from exporter.sources import Source

USUAL_SAMPLES = 100  # TFLite's and onnxruntime's own guides calibrate on a hundred and more


def wishes(job: Job) -> tuple[Wish, ...]:
    """What each artifact beside the float one shall become."""
    return tuple(
        Wish(name, job.integer_io and PRECISIONS[name].calibrated)
        for name in job.precisions
        if name != FLOAT
    )


def gates(job: Job) -> Job:
    """The job for the checks of what is float: there a tolerance for what is coarser gates nothing.

    Without another precision the tolerance is the user's own limit of a float cut.
    """
    return replace(job, tolerance=None) if wishes(job) else job


def refuse_quantising(job: Job, source: Source) -> None:
    """Refuse what could not be quantised, before minutes are spent on a conversion.

    Raises:
        UsageError: a kind of file is asked for that no library quantises.
        ModelError: the source is quantised already.
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
        UsageError: none are given, or they do not fit (see `samples.from_file`).
    """
    calibrated = [wish.precision for wish in wishes(job) if PRECISIONS[wish.precision].calibrated]
    if not calibrated:
        return None
    if job.synthetic_calibration:
        count = job.samples or USUAL_SAMPLES
        return synthetic(model.graph(), count, job.seed, job.input_shapes)
    file = job.calibration or job.data
    if file is None:
        raise UsageError(
            f"{' and '.join(calibrated)} need inputs to calibrate on",
            "give real ones with --data FILE; --synthetic-calibration makes some up",
        )
    return from_file(file, model.graph())


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


def quantised(
    job: Job, source: Source, model: Model, wish: Wish, samples: Samples | None
) -> Quantized:
    """The model in another precision, made in the source's child; that is said beforehand."""
    of = f", calibrated on {samples.count} samples" if samples and _calibrated(wish) else ""
    job.say(f"quantising {model.name} to {wish.precision}{of}")
    return quantize_in(source.child, model, wish, samples)


def _calibrated(wish: Wish) -> bool:
    return PRECISIONS[wish.precision].calibrated


def ruined(name: str, checks: Iterable[Check]) -> tuple[str, ...]:
    """Where the answers of a quantised file are more noise than signal: nobody can want it.

    Args:
        name: of the quantised file.
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
    """Where a quantised file is larger or slower than the float one that it was made of.

    Args:
        name: of the quantised file.
        sizes: bytes of the float file, and of the quantised one.
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
