"""The sentences of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from exporter.evaluation.measures import QUALITY_STAGE
from exporter.formats import KINDS
from exporter.performance.resources import HISTORY, RESOURCES
from exporter.records import (
    TRIM_STAGE,
    Artifact,
    Check,
    Coverage,
    Interface,
    Latency,
    Report,
    Trimmed,
)
from exporter.remap.head_remap import HeadRemap
from exporter.report.check_groups import compares_values
from exporter.report.formatting import (
    decibels,
    higher_is_better,
    milliseconds,
    number,
    percent,
    percent_with_interval,
    plural,
    printable,
    size,
    told_apart,
    value_and_limit,
)

STAGES: Mapping[str, str] = {
    "cut": "cut, against the original, in the same runtime",
    "export": "export, against the model before its conversion",
    "quantize": "quantize, against the model before it was quantized",
    TRIM_STAGE: "trim, against the untrimmed network, on samples that did not calibrate it",
    RESOURCES: "resources, against the limits that were given",
    HISTORY: "history, against earlier runs on the same machine with the same versions",
    "quality": "task quality, on labeled samples of kept classes",
}
TRIMMED = (
    "Against the network before channels were removed, on held-out samples. Agreement: the share "
    "with the same first unit; of a segmentation, the share of places, with an interval over "
    "samples. The file is not equal to its original."
)
SIZES = "Size before -> after; before: the uncut file of the same kind. 1 kB = 1000 bytes."
PRECISIONS = (
    "SQNR (signal-to-quantization-noise ratio) and top-1 agreement: the worst of all outputs, "
    "against the float model on the same inputs. Speed-up: over the original."
)
AGREEMENT = (
    "The classes on which a quantized file agrees least with the float model; on all others they "
    "agree. First: the class with the largest value, in each sample and at each place."
)
QUALITY = (
    "Before -> after: on samples of kept classes, the original restricted to the kept units; on "
    "other samples, the original over all its units. A file cannot name a removed class. Drop: in "
    "percentage points, with the interval of a paired comparison. All intervals are 95 %."
)
MEMORY = (
    "Resident: how many bytes a process grows by when it loads the file into its runtime and runs "
    "it once, before -> after; the median of a few processes. Anonymous: the part that it "
    "allocates. Mapped: the part that it maps from files. Peak: the most while loading and running."
    " Noise: the largest difference between processes with the same file; a smaller change is not "
    "measurable."
)


def describe_timing(rows: Iterable[Latency]) -> str:
    """How the times, the speed-up and the noise floor were measured."""
    rows = tuple(rows)
    pairs = ", ".join(dict.fromkeys(str(row.samples) for row in rows))
    loads = ", ".join(dict.fromkeys(str(row.loads) for row in rows if row.loads))
    return (
        "Times of one run, before -> after; p90 and p99 are percentiles of single runs. Speed-up: "
        f"interquartile mean of {pairs} paired ratios, original / pruned, with its 95 % bootstrap "
        f"interval{f' over {loads} loads' if loads else ''}. Noise floor: half-width of that "
        "interval when the original is timed against itself."
    )


def describe_limits_of_timing(rows: Iterable[Latency], *, with_cpu: bool = False) -> str:
    """Changes below 3 % cannot be seen in this run; and whether other processes disturbed it.

    Args:
        rows: of the report.
        with_cpu: with the CPU times, for a table without them.
    """
    measured = [row for row in rows if row.detectable_change is not None]
    if not measured:
        return ""
    changes = dict.fromkeys(_percent(row.detectable_change or 0) for row in measured)
    parts = [f"Changes below {' or '.join(changes)} cannot be seen in this run."]
    timed = [row for row in measured if with_cpu and row.cpu_ms is not None]
    if timed:
        times = ((milliseconds(row.original_cpu_ms, row.cpu_ms), row) for row in timed)
        parts.append(f"CPU time: {_of_artifacts(times, measured)}.")
    for effect in dict.fromkeys(_effect(row) for row in measured):
        hit = [row for row in measured if row.interrupted_rounds and _effect(row) == effect]
        if hit:
            rounds = ((f"{row.interrupted_rounds} of {row.rounds} rounds", row) for row in hit)
            parts.append(
                f"Other processes interrupted {_of_artifacts(rounds, measured)}, {effect}."
            )
    if any(row.verdict == "machine too busy to tell" for row in measured):
        parts.append("Close other programs, or measure longer: --bench-seconds 20.")
    return " ".join(parts)


def _effect(row: Latency) -> str:
    """What follows from the interrupted rounds of an artifact."""
    if row.basis == "CPU time":
        return "so CPU times are compared"
    return "which count too" if row.samples == row.rounds else "which are left out"


def _of_artifacts(texts: Iterable[tuple[str, Latency]], measured: Sequence[Latency]) -> str:
    """8 of 9 rounds for a.onnx, 7 of 9 rounds for b.onnx; without the name if there is one."""
    if len(measured) == 1:
        return ", ".join(text for text, _ in texts)
    return ", ".join(f"{text} for {row.artifact}" for text, row in texts)


def _percent(fraction: float) -> str:
    """3 %, 0.4 %: rounded up, because it is a promise."""
    digits = 0 if fraction >= 0.01 else 1  # noqa: PLR2004 - 1 %
    scale = 10**digits
    return f"{math.ceil(100 * fraction * scale) / scale:g} %"


def describe_change(report: Report) -> str:
    """3 of 10 units kept; of several heads each with its name, and the outputs that are removed."""
    if report.remap is None:
        return f"{report.original.path}, no units removed"
    heads = report.remap.heads
    parts = [describe_kept(head) + (f" of {head.name}" if len(heads) > 1 else "") for head in heads]
    removed = [name for head in heads for name in head.options["drop_outputs"] or ()]
    if removed:
        parts.append(
            f"{'output' if len(removed) == 1 else 'outputs'} {' and '.join(removed)} removed"
        )
    return ", ".join(parts)


def describe_kept(head: HeadRemap) -> str:
    """10 of 1000 units kept; with groups also the new number of units."""
    units = plural(head.old_units, "unit")
    if head.options["gather"]:
        return f"{len(head.kept)} of {units} kept by a Gather at the output"
    if head.options["merge"] is None:
        return f"{len(head.kept)} of {units} kept"
    if len(head.kept) == head.old_units:
        return f"{units} merged into {head.new_units}"
    return f"{len(head.kept)} of {units} kept, merged into {head.new_units}"


def describe_result(report: Report) -> str:
    """fp32 is proved to match the original. int8: 98.6 % top-1 agreement, above the limit of 60 %.

    A precision is named only if a limit of its values was checked. Without a proof, the samples
    that it was compared on are named.
    """
    precisions = {each.path: each.precision for each in report.artifacts}
    compared: dict[str, list[Check]] = {}
    values = [check for check in report.checks if check.stage != TRIM_STAGE]
    for check in filter(compares_values, values):
        compared.setdefault(precisions.get(check.artifact, ""), []).append(check)
    quantized = {
        name: [check for check in checks if check.stage == "quantize"]
        for name, checks in compared.items()
    }
    exact = [name for name, checks in quantized.items() if not checks]
    given = any(check.limit_from == "user" for name in exact for check in compared[name])
    unnamed = "the float model" if len(exact) < len(compared) else ""  # it was not kept
    named = [name for name in exact if name or unnamed]
    subject = ", ".join(name or unnamed for name in named)
    samples = max((check.samples for name in exact for check in compared[name]), default=0)
    known = _matches(report, named or exact, samples, given=given) if exact else ""
    parts = [f"{subject} {known}".lstrip()] if exact else []
    parts += [f"{name}: {_quality(checks)}" for name, checks in quantized.items() if checks]
    name_files = len(report.artifacts) > 1
    parts += [
        f"{printable(row.artifact)}: " * name_files + describe_trimmed(row)
        for row in report.trimmed
    ]
    measured = (precisions.get(c.artifact) for c in report.checks if c.stage == "quantize")
    unchecked = sorted({name for name in measured if name and name not in compared})
    parts += [f"{name}: not checked against a limit" for name in unchecked]
    if any(check.stage == QUALITY_STAGE for check in report.checks):
        parts.append("The task quality passes its gates")
    parts += _resources(report)
    return ". ".join(parts) or "not verified"


def describe_trimmed(row: Trimmed) -> str:
    """trimmed, not equal to the original: the first unit is the same in 99.2 % of 125 samples."""
    samples = plural(row.held_out_samples, "held-out sample")
    if row.agreement is None:
        return f"trimmed, not equal to the original: {decibels(row.sqnr_db)} on {samples}"
    samples = f"the places of {samples}" if row.places > 1 else samples
    shown = percent_with_interval(row.agreement, row.agreement_ci95)
    return f"trimmed, not equal to the original: the first unit is the same in {shown} of {samples}"


def _matches(report: Report, precisions: Sequence[str], samples: int, *, given: bool) -> str:
    modes = {head.mode for head in report.remap.heads} if report.remap else set()
    defined = " and ".join(sorted(modes - {"slice"}))
    expected = f"the output that mode {defined} defines" if defined else "the original"
    is_one = len(precisions) == 1
    if given:
        return f"{'is' if is_one else 'are'} within the given tolerance of {expected}"
    trimmed = {row.artifact for row in report.trimmed}
    files = [
        each
        for each in report.artifacts
        if each.precision in precisions and each.kind in KINDS and each.path not in trimmed
    ]
    converted = any(check.stage == "export" for check in report.checks)  # only the cut is proved
    proved = all(each.proof and each.proof.result == "proved" for each in files)
    if files and proved and not converted:
        return f"{'is' if is_one else 'are'} proved to match {expected}"
    return f"{'matches' if is_one else 'match'} {expected} on {plural(samples, 'sample')}"


def _resources(report: Report) -> Iterator[str]:
    """Size at most 28.9 kB, within your limit of 300 kB."""
    checks = [check for check in report.checks if check.stage == RESOURCES]
    for metric in dict.fromkeys(check.metric for check in checks):
        found = [check for check in checks if check.metric == metric]
        most = max(found, key=lambda check: check.value or 0.0)
        value, limit = value_and_limit(most)
        yield f"{metric.capitalize()} at most {value}, within your limit of {limit[3:]}"


_MEASURES = {  # metric -> how a headline writes it, and its value, in the order of preference
    "top1": ("{} top-1 agreement", percent),
    "sqnr_db": ("{} signal-to-noise ratio", decibels),
    "cosine": ("cosine {}", number),
    "max_abs": ("difference {}", number),
}


def describe_gate(check: Check) -> str:
    """98.6 % top-1 agreement, below your limit of 99 %; "" for checks that have no such words."""
    if check.stage != "quantize" or check.metric not in _MEASURES or check.limit is None:
        return ""
    words = _quality([check]) if check.value is not None else ""
    return f"{words} (output {check.output}, {plural(check.samples, 'sample')})" if words else ""


def _quality(checks: Iterable[Check]) -> str:
    """The worst value of the first metric that has a limit."""
    found = [check for check in checks if check.metric in _MEASURES]
    metric = next((name for name in _MEASURES if any(c.metric == name for c in found)), None)
    if metric is None:  # rows of a detector
        return "within the limits"
    text, write = _MEASURES[metric]
    of_metric = [check for check in found if check.metric == metric and check.value is not None]
    worst = min if higher_is_better(of_metric[0]) else max
    check = worst(of_metric, key=lambda each: each.value or 0.0)
    is_above = (check.value or 0.0) > (check.limit or 0.0)
    place = "at" if check.value == check.limit else "above" if is_above else "below"
    whose = "your" if check.limit_from == "user" else "the"
    value, limit = write(check.value), write(check.limit)
    if value == limit and check.value != check.limit:
        value, limit = told_apart(check.value, check.limit)
    return f"{text.format(value)}, {place} {whose} limit of {limit}"


def remap_rows(head: HeadRemap) -> Iterator[tuple[str, str, str]]:
    """New index, original index or indices, label: of the kept units."""
    kept = frozenset(head.kept)
    for new, place in enumerate(head.new_to_old):
        old = place if isinstance(place, tuple) else (place,)
        if kept.intersection(old):
            label = "" if head.labels is None else head.labels[new]
            yield str(new), " + ".join(map(str, old)), label


def describe_removed(head: HeadRemap) -> str:
    """The output values of removed units; "" if the output has no position for them."""
    removed = head.new_units - sum(1 for _ in remap_rows(head))
    if not removed:
        return ""
    value = f"as mode {head.mode} defines"
    if head.options["restore_width"]:
        value = f"{head.options['floor'] or 0:g}"
    return f"Every unit keeps its index; the output of the {removed} removed units is {value}."


def describe_ids(head: HeadRemap) -> str:
    """Which indices the model returns besides its values; "" if it returns none."""
    emit = head.options["emit"]
    if emit is None:
        original = head.options["restore_ids"]
        return "The ids that the model returns are the original's indices." if original else ""
    which = "the best unit" if emit["count"] is None else f"the best {emit['count']} units"
    return f"Output {emit['output']} contains the original index of {which}."


def describe_inputs(report: Report) -> str:
    """The inputs that were run, and the limits of a proof with synthetic ones."""
    calibration = report.inputs.get("calibration")
    calibrated = f" Calibrated on {_samples(calibration)}." if calibration else ""
    if not report.inputs.get("source") or not (report.checks or report.latency or report.memory):
        return f"No model was run.{calibrated}"
    proved = ""
    if _is_synthetic(report.inputs) and report.checks:
        proved = " They show whether outputs changed, not how accurate the model is."
    return f"{_samples(report.inputs)}.{proved}{calibrated}"


def describe_coverage(row: Coverage) -> str:
    """Head digit: 173 of 256 features are not zero in some sample; 5 of 10 units come first."""
    return (
        f"Head {row.head}: {row.active_features} of {plural(row.features, 'feature')} are not zero "
        f"in some sample; {row.first_units} of {plural(row.units, 'unit')} come first, "
        f"{row.first_kept_units} of the {row.kept_units} kept ones."
    )


def describe_settings(report: Report) -> Iterator[str]:
    """When and how models were run and compared; nothing for a report of an earlier version."""
    if report.date:
        yield f"Date: {report.date}."
    read = {"data": report.inputs, "calibration": report.inputs.get("calibration") or {}}
    hashes = [f"{name} {each['sha256']}" for name, each in read.items() if "sha256" in each]
    if hashes:
        yield f"SHA-256: {', '.join(hashes)}."
    get = report.settings.get
    if not report.settings:
        return
    kinds = {each.kind for each in report.artifacts} | {report.original.kind}
    runtimes = [f"{n}: {text}" for n, text in get("runtimes", {}).items() if n in kinds]
    load = get("load_average")
    parts = (
        plural(get("threads", 1), "thread"),
        f"batch {get('batch', 1)}",
        *runtimes,
        f"checks count {get('counted_samples')}" if get("counted_samples") else None,
        f"load average {', '.join(f'{each:.1f}' for each in load)}" if load else None,
    )
    yield f"Settings: {'; '.join(filter(None, parts))}."
    if any(check.limit_from == "user" for check in report.checks):
        yield "Limits that are marked as given are the user's; the others are built in."


def _samples(inputs: Mapping[str, Any]) -> str:
    source, count = str(inputs.get("source", "")), inputs.get("samples")
    if _is_synthetic(inputs):
        return f"{count} synthetic samples ({source.removeprefix('synthetic, ')}), not real data"
    return f"{count} samples from {source}"


def _is_synthetic(inputs: Mapping[str, Any]) -> bool:
    """A user's file may have a name such as synthetic.npz."""
    return str(inputs.get("source", "")).startswith("synthetic, seed ")


def describe_interfaces(artifacts: Iterable[Artifact]) -> Iterator[str]:
    """The integer inputs and outputs: small.tflite takes image int8 (scale 0.0039, zero point -128)
    and returns scores float32.
    """
    for artifact in artifacts:
        ends = (*artifact.inputs, *artifact.outputs)
        if any(end.scale is not None for end in ends):
            takes, returns = (
                ", ".join(map(_interface, each)) for each in (artifact.inputs, artifact.outputs)
            )
            yield f"{artifact.path} takes {takes} and returns {returns}"


def _interface(end: Interface) -> str:
    known = f" (scale {end.scale:.6g}, zero point {end.zero_point})" if end.scale else ""
    return f"{end.name} {end.dtype}{known}"


def describe_original(report: Report) -> str:
    """net.keras (keras, fp32, 14.6 MB, SHA-256 0123...)."""
    original = report.original
    facts = [original.kind, original.precision]
    facts += [] if original.bytes is None else [size(original.bytes)]
    facts += [] if original.sha256 is None else [f"SHA-256 {original.sha256}"]
    return f"{original.path} ({', '.join(filter(None, facts))})."


def describe_machine(report: Report) -> str:
    """AMD EPYC, 2 cores, 25.1 GB memory, Linux x86_64."""
    get = report.machine.get
    cores, memory = get("cores"), get("memory_bytes")
    parts = (
        get("cpu"),
        None if cores is None else plural(cores, "core"),
        None if memory is None else f"{size(memory)} memory",
        get("system"),
    )
    return ", ".join(str(part) for part in parts if part) or "unknown"
