"""The checks of a report, grouped by artifact and stage, and the sentence for a failed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from exporter.evaluation.measures import QUALITY_STAGE
from exporter.performance.resources import HISTORY, RESOURCES
from exporter.records import Check, FirstDifference, WorstCase, WorstSample
from exporter.report.formatting import (
    higher_is_better,
    number,
    plural,
    printable,
    told_apart,
    value_and_limit,
)

# Checks without a value: they pass or fail.
REASONS: Mapping[str, str] = {
    "shape": "the shape is not the expected one",
    "finite": "a value is NaN, or only one side is infinite",
    "remap": "the remap next to the file differs from the one inside it",
    "original": "the original is not the file that the remap names: give the file that was cut",
    "batch": "a batch of 3 inputs is not computed as three single inputs are",
    "precision": "the file does not have the precision that it states",
    "structure": "the file is not the cut that its remap describes",
    "probe": "the head, fed directly, does not compute what its remap says",
}


@dataclass(frozen=True)
class CheckGroup:
    """The checks of one artifact at one stage, on one device or on this machine ("")."""

    artifact: str
    stage: str
    checks: Sequence[Check]
    device: str = ""

    @property
    def tally(self) -> str:
        """6 of 6: how many passed of the checks that can fail."""
        can_fail = gated(self.checks)
        return f"{sum(check.passed for check in can_fail)} of {len(can_fail)}"

    @property
    def worst(self) -> Check | None:
        """The check that failed or is nearest to its limit; None if no check can fail."""
        return max(gated(self.checks), key=_nearness, default=None)


def _nearness(check: Check) -> tuple[bool, float, bool]:
    """Only of an upper limit: a score of 1.0 is at its limit, but not close to failing."""
    upper_limit = not higher_is_better(check)
    if check.value is None or not check.limit or not upper_limit:
        return not check.passed, 0.0, upper_limit
    return not check.passed, check.value / check.limit, upper_limit


def group_checks(checks: Iterable[Check]) -> list[CheckGroup]:
    """By artifact, stage and device, in the order of the report."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.artifact, check.stage, check.device), []).append(check)
    return [
        CheckGroup(artifact, stage, found, on) for (artifact, stage, on), found in groups.items()
    ]


def is_gated(check: Check) -> bool:
    """Whether the check can fail: it has a limit, or it failed, or it has only pass and fail."""
    return check.limit is not None or not check.passed or check.metric in REASONS


def gated(checks: Iterable[Check]) -> list[Check]:
    """The checks that can fail."""
    return [check for check in checks if is_gated(check)]


def compares_values(check: Check) -> bool:
    """Whether the check passed because values of both models are within a limit.

    A remap that names the right original, or equal shapes, show nothing about the values.
    """
    return check.limit is not None and check.stage not in {QUALITY_STAGE, RESOURCES, HISTORY}


def failed(checks: Iterable[Check]) -> list[Check]:
    """The checks that failed."""
    return [check for check in checks if not check.passed]


_ACCEPTING = {  # metric of a floor -> the option that accepts any value
    "sqnr_db": "--min-sqnr=-100",
    "top1": "--min-top1 0",
    "cosine": "--min-cosine=-1",
}


def describe_quantization(checks: Sequence[Check]) -> str:
    """Whether the cut or the precision is the cause, and how to accept a loss of quality.

    "" if anything but the quality of quantized files failed. A network with random weights is
    below the floors at any precision: its units nearly tie.
    """
    bad = failed(checks)
    if not bad or any(each.stage != "quantize" or each.metric not in _ACCEPTING for each in bad):
        return ""
    metrics = dict.fromkeys(each.metric for each in bad)
    accept = f"{' '.join(_ACCEPTING[metric] for metric in metrics)} accepts this loss"
    if any(each.stage == "cut" and compares_values(each) for each in checks):
        return f"the cut is not the cause, since the float file matches the original: {accept}"
    return f"the cause is the precision, or a cut before it: {accept}"


def describe_worst(case: WorstCase) -> str:
    """net.onnx, y: in sample 3, unit 1 (7 in the original, owl) is 0.82, expected 0.11."""
    replay = f" Replay: {case.command}" if case.command else ""
    saved = f" The input is in {case.file}." if case.file else ""
    return f"{case.artifact}, {case.output}: in {_difference(case)}.{saved}{replay}"


def sample_text(sample: int, name: str) -> str:
    """sample 3 (parrot/a.jpg)"""
    return f"sample {sample} ({printable(name)})" if name else f"sample {sample}"


def _difference(case: WorstCase) -> str:
    """sample 3, unit 1 (7 in the original, owl) is 0.82, expected 0.11."""
    of_original = f"{case.original_unit} in the original"
    names = ", ".join(filter(None, (of_original, printable(case.label))))
    unit = "a value" if case.unit is None else f"unit {case.unit} ({names})"
    actual, expected = values_told_apart(case.actual, case.expected)
    sample = sample_text(case.sample, case.sample_name)
    return f"{sample}, {unit} is {actual}, expected {expected}"


def is_equal(row: WorstSample) -> bool:
    """Whether no value differs in any sample."""
    expected = row.case.expected
    return row.passed and expected is not None and expected == row.case.actual


def describe_sample(row: WorstSample) -> str:
    """net.onnx, y, cut: of 16 samples, in sample 3, unit 1 (owl) is 0.82, expected 0.81."""
    case, limit = row.case, "" if row.limit is None else f", limit {number(row.limit)}"
    where = f"{case.artifact}, {case.output}, {case.stage}"
    if is_equal(row):
        return f"{where}: all values of {plural(row.samples, 'sample')} are equal."
    return f"{where}: of {plural(row.samples, 'sample')}, in {_difference(case)}{limit}."


def describe_first(found: FirstDifference) -> str:
    """net.onnx: the first tensor that differs is 'z', of Gemm 'head': at [0, 3] 0.1, not 0.2."""
    equal = f"{plural(found.equal, 'tensor')} with the same name"
    if not found.tensor:
        return f"{found.artifact}: {equal} are equal; the difference is after them."
    actual, expected = values_told_apart(found.actual, found.expected)
    return (
        f"{found.artifact}: the first tensor that differs is {printable(found.tensor)!r}, of "
        f"{printable(found.operation)}: at {list(found.place)} it is {actual}, expected {expected} "
        f"({sample_text(found.sample, found.sample_name)}; {equal} are equal before it)."
    )


def values_told_apart(
    actual: float | None, expected: float | None, digits: int = 6
) -> tuple[str, str]:
    """Both values with so many digits, and more if they would look equal."""
    first, second = told_apart(actual, expected, digits)
    nothing = "not finite"
    return nothing if actual is None else first, nothing if expected is None else second


def describe_failure(check: Check) -> str:
    """One line with all that is known about a failed check."""
    where = ", ".join(filter(None, (check.artifact, check.stage, check.output, check.device)))
    if check.metric in REASONS:
        return ": ".join(filter(None, (where, REASONS[check.metric], check.detail)))
    value, limit = value_and_limit(check)
    unit = "round" if check.stage == RESOURCES else "sample"
    samples = f" ({plural(check.samples, unit)})" if check.samples or unit == "sample" else ""
    known = check.detail or f"{check.metric} is {value}"
    return f"{where}: {known}, limit {limit[3:] or limit}{samples}"
