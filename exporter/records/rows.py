"""Rows of a report, except the rows of checks: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["faster", "slower", "no measurable change", "machine too busy to tell"]
TimeBasis = Literal["wall time", "CPU time"]
MemoryVerdict = Literal["smaller", "larger", "no measurable change"]


@dataclass(frozen=True)
class Original:
    """The model that the job started from."""

    path: str
    kind: str
    precision: str
    bytes: int | None
    sha256: str | None


Conclusion = Literal["proved", "sampled", "different"]


@dataclass(frozen=True)
class Proof:
    """Whether a file is the result of its cut, by its structure (see `exporter.proof.prove`).

    Attributes:
        reason: why the file is not proved, or how it differs; "" if it is proved.
        probe: what was fed to the head directly, or why nothing was (see `exporter.proof.probe`);
            "" if the job does not probe heads.
    """

    result: Conclusion
    reason: str
    probe: str = ""


@dataclass(frozen=True)
class Interface:
    """One input or output of a file.

    Attributes:
        scale, zero_point: real value = (quantized value - zero point) * scale; None if the values
            are real, or have several scales.
    """

    name: str
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Artifact:
    """A written file: a model, or its C source.

    Attributes:
        path: relative to the report.
        kind: key of KINDS, or of FORMS.
        bytes, original_bytes: size of the file, and of the uncut file of the same kind.
        sha256: in hex.
        route: how the model was converted; "" without a conversion.
        proof: None if nothing was verified, and for C source.
        inputs, outputs: of a model.
    """

    path: str
    kind: str
    precision: str
    bytes: int
    sha256: str
    route: str
    original_bytes: int | None = None
    proof: Proof | None = None
    inputs: tuple[Interface, ...] = ()
    outputs: tuple[Interface, ...] = ()


@dataclass(frozen=True)
class Latency:
    """One artifact and its original, timed in turns; times of one run, in milliseconds.

    Attributes:
        original_p50_ms, p50_ms: typical wall times; their quotient is the ratio of the paired
            rounds.
        p50_ci95_ms: bootstrap interval of p50_ms.
        p90_ms: percentile of single runs; likewise the other percentiles.
        original_load_ms, load_ms: medians.
        samples: number of rounds that count; each gives one ratio.
        speedup: ratio original / pruned on the `basis`: of p50, or of the CPU times.
        speedup_ci95: bootstrap interval of that ratio.
        noise_floor: half-width of that interval when the original is timed against itself.
        basis: CPU time if other processes interrupted most rounds of one thread.
        detectable_change: the smallest relative change that this run detects in 4 of 5 attempts.
        original_cpu_ms, cpu_ms: CPU times; None if the system does not measure them finely.
        loads: of each model.
        rounds, interrupted_rounds: all rounds, and those that other processes interrupted.
        runs: timed runs of the artifact in the rounds that count.
        settings: the scenario, and the settings of the bootstrap.
        raw: "load" and "used" of every round; "p50_ms", "cpu_ms" and "interruptions" of every round
            and side; "load_ms" of every load and side; "runs_ms": percentiles of the single runs of
            the original and of the artifact, in the rounds that count.
        device: name of the device that was measured; "" for the machine of the report.
    """

    artifact: str
    engine: str
    threads: int
    batch: int
    original_p50_ms: float
    p50_ms: float
    p90_ms: float
    original_load_ms: float
    load_ms: float
    samples: int
    speedup: float
    speedup_ci95: tuple[float, float]
    noise_floor: float
    verdict: Verdict
    basis: TimeBasis = "wall time"
    detectable_change: float | None = None
    original_cpu_ms: float | None = None
    cpu_ms: float | None = None
    original_p90_ms: float | None = None
    original_p99_ms: float | None = None
    p99_ms: float | None = None
    p50_ci95_ms: tuple[float, float] | None = None
    loads: int | None = None
    rounds: int | None = None
    interrupted_rounds: int | None = None
    runs: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True)
class Memory:
    """Bytes by which a process grows when it loads a model file and runs it once: medians.

    Attributes:
        original_bytes, bytes: resident memory.
        original_anonymous_bytes, anonymous_bytes: the part that the process allocated.
        original_mapped_bytes, mapped_bytes: the part that is mapped from files, which the system
            can drop and read again. None where the system does not tell the parts apart.
        original_peak_bytes, peak_bytes: the most that was resident while loading and running.
        noise_bytes: the largest spread of one model's resident bytes; None if it was not measured.
        verdict: "no measurable change" if the change is not larger than the noise; "" if the noise
            was not measured.
        raw: "original", "pruned" and "control" (the original again): every repetition.
        device: name of the device that was measured; "" for the machine of the report.
    """

    artifact: str
    engine: str
    original_bytes: int
    bytes: int
    original_anonymous_bytes: int | None = None
    anonymous_bytes: int | None = None
    original_mapped_bytes: int | None = None
    mapped_bytes: int | None = None
    original_peak_bytes: int | None = None
    peak_bytes: int | None = None
    noise_bytes: int | None = None
    verdict: MemoryVerdict | Literal[""] = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""


@dataclass(frozen=True)
class Device:
    """A device that models ran on. A value that it does not show is None.

    Attributes:
        name: the host of its address, or its serial number.
        versions: of Python and the libraries there.
        governor: of the clock speed of its processors.
        temperature_before_c, temperature_after_c: of its hottest sensor.
    """

    name: str
    cpu: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    system: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    governor: str | None = None
    temperature_before_c: float | None = None
    temperature_after_c: float | None = None


@dataclass(frozen=True)
class SelectedUnit:
    """Why a unit was kept or removed, from a selection file: "f1 0.91 >= 0.6", for example."""

    unit: int
    label: str
    kept: bool
    reason: str


Interval = tuple[float, float]
TRIM_STAGE = "trim"
QUANTIZED_AFTER_TRIM = "it was quantized after it was trimmed"  # the reason of a proof


@dataclass(frozen=True)
class Trimmed:
    """A network whose inner channels were removed: it is not equal to its original.

    Attributes:
        agreement: share of the held-out samples with the same first unit as the untrimmed network,
            of the head with the smallest share; None without a head.
        agreement_ci95: its interval. The places of one sample count as one case.
        sqnr_db: of logits and outputs, the lowest of them, on the held-out samples; infinite if
            nothing changed.
        calibration_samples, held_out_samples: no sample is in both.
        original_multiply_adds, multiply_adds: of one sample; None where they are not known.
        original_parameters, parameters: floats in the network.
        channels: "32 -> 16" for each group of channels, by the name of its first tensor.
        rarely_seen: units that are the first one of fewer than 5 calibration samples.
        places: of a sample, where a segmentation has a first unit; 1 for a classifier. The
            agreement is then the share of places.
        not_limited: outputs that show no units: no limit is set for them.
    """

    artifact: str
    agreement: float | None
    agreement_ci95: Interval | None
    sqnr_db: float
    calibration_samples: int
    held_out_samples: int
    original_multiply_adds: int | None
    multiply_adds: int | None
    original_parameters: int
    parameters: int
    channels: Mapping[str, str] = field(default_factory=dict)
    rarely_seen: tuple[str, ...] = ()
    places: int = 1
    not_limited: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """One measure of the task on labeled samples, of the original and of one artifact.

    A value is None if it is not defined on these samples. Each interval is one of 95 %.

    Attributes:
        task: "classes", "labels", "boxes" or "text".
        measure: key of `exporter.evaluation.measures.MEASURES`.
        classes: the samples: those of "kept" classes, of "removed" classes, or "all".
        samples: their number; of a detector, the number of true boxes.
        original: of the original over all its units.
        original_kept: of the original if it could name the kept units only: the fair comparison.
            Only on samples of kept classes.
        value: of the artifact.
        drop: by how much the artifact is worse than `original_kept`, and its paired interval.
    """

    artifact: str
    task: str
    measure: str
    classes: str
    samples: int
    original: float | None = None
    original_ci95: Interval | None = None
    original_kept: float | None = None
    original_kept_ci95: Interval | None = None
    value: float | None = None
    ci95: Interval | None = None
    drop: float | None = None
    drop_ci95: Interval | None = None


@dataclass(frozen=True)
class PrecisionRow:
    """Quality, size and speed of one artifact.

    Attributes:
        sqnr_db, top1: worst of all outputs, against the float model; None for the float model, or
            if not measured. The SQNR is infinite if no value changed.
        p50_ms, speedup: None if not timed; the speedup is over the original.
    """

    artifact: str
    kind: str
    precision: str
    sqnr_db: float | None
    top1: float | None
    bytes: int
    p50_ms: float | None
    speedup: float | None
