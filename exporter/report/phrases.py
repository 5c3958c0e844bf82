"""What Markdown and the terminal say in the same words: numbers, sentences, groups of checks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.records import Artifact, Check, Latency, Memory, PrecisionRow, Report, precision_rows
from exporter.remap.head_remap import HeadRemap

NOTHING = "-"  # stands where there is no value
SIZE_UNITS = "1 kB = 1000 bytes, 1 MB = 1000 kB"

# Of these a larger value is better, so that their limit is a lower bound.
AT_LEAST = frozenset({"cosine", "top1", "top5", "sqnr_db"})

# Checks that have no value: they hold or they do not.
REASONS: Mapping[str, str] = {
    "shape": "the shape is not the expected one",
    "finite": "a value is NaN, or infinite on one side only",
    "remap": "the remap beside the file is not the one inside it",
    "original": "the original is not the file that the remap names",
}

STAGES: Mapping[str, str] = {
    "cut": "against the original, in the same runtime",
    "export": "against the model before its conversion",
    "quantize": "against the model before it was quantized",
}

# --- numbers ------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 2) -> str:
    """A measured value with so many significant digits: 1.2e-07, 0.83, 39, 0."""
    if value is None:
        return NOTHING
    if value == 0 or not math.isfinite(value):
        return f"{value:g}".replace("-0", "0")
    if value == round(value) and abs(value) < 1e6:  # noqa: PLR2004 - whole numbers stay whole
        return f"{value:.0f}"
    plain = 1e-3 <= abs(value) < 1e6  # noqa: PLR2004 - where people read decimals easily
    return f"{value:.{max(digits, 3)}g}" if plain else f"{value:.{digits - 1}e}"


def value_and_limit(check: Check) -> tuple[str, str]:
    """Both with as many digits as it takes to tell them apart; the limit with its direction."""
    if check.limit is None:
        return number(check.value), NOTHING
    sign = ">=" if check.metric in AT_LEAST else "<="
    value, limit = number(check.value), number(check.limit)
    for digits in range(3, 18):
        if value != limit or check.value == check.limit:
            break
        value, limit = number(check.value, digits), number(check.limit, digits)
    return value, f"{sign} {limit}"


def size(count: int | None) -> str:
    """Bytes for people, in decimal units: 512 B, 1.20 kB, 14.1 MB."""
    if count is None:
        return NOTHING
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while abs(value) >= 999.5 and len(units) > 1:  # noqa: PLR2004 - rounds to 1000
        value /= 1000
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{_three_digits(value)} {units[0]}"


def milliseconds(value: float | None) -> str:
    """0.83, 12.3, 104; without the unit."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.2g}" if 0 < value < 0.1 else _three_digits(value)  # noqa: PLR2004 - 0.012


def _three_digits(value: float) -> str:
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0  # noqa: PLR2004 - digits
    return f"{value:.{decimals}f}"


def change(before: int | None, after: int | None) -> str:
    """How much smaller or larger, in percent of before."""
    if not before or after is None:
        return NOTHING
    percent = 100 * (after - before) / before
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else "0.0 %"  # noqa: PLR2004 - rounds to 0


def decibels(value: float | None) -> str:
    """12.1 dB; "equal" where nothing was lost."""
    if value is None:
        return NOTHING
    return "equal" if value == math.inf else f"{value:.1f} dB"


def share(value: float | None) -> str:
    """97.2 %"""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def speedup(row: Latency) -> str:
    """1.04x [1.01, 1.06]: the median paired ratio and its 95 % interval."""
    low, high = row.speedup_ci95
    return f"{_bare(row.speedup)}x [{_bare(low)}, {_bare(high)}]"


def factor(value: float | None) -> str:
    """1.04x"""
    return NOTHING if value is None else f"{_bare(value)}x"


def _bare(value: float | None) -> str:
    return NOTHING if value is None else _three_digits(value)


def noise(row: Latency) -> str:
    """The half-width of the interval of the original against itself, as a factor."""
    return f"+/- {number(row.noise_floor)}"


def printable(text: str) -> str:
    """Without what would move a cursor or end a line; it is shown escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- checks -------------------------------------------------------------------------------------


def informational(check: Check) -> bool:
    """Whether the check has no limit to keep, and only reports its value."""
    return check.limit is None and check.passed and check.metric not in REASONS


def gated(checks: Iterable[Check]) -> list[Check]:
    """The checks that can fail."""
    return [check for check in checks if not informational(check)]


def failed(report: Report) -> list[Check]:
    """The checks that did."""
    return [check for check in report.checks if not check.passed]


@dataclass(frozen=True)
class Group:
    """The checks of one artifact at one stage."""

    artifact: str
    stage: str
    checks: Sequence[Check]

    @property
    def tally(self) -> str:
        """6 of 6: how many passed of those that can fail."""
        can_fail = gated(self.checks)
        return f"{sum(check.passed for check in can_fail)} of {len(can_fail)}"

    @property
    def worst(self) -> Check | None:
        """The check that failed, or came nearest to its limit."""
        return max(gated(self.checks), key=_nearness, default=None)


def _nearness(check: Check) -> tuple[bool, float, bool]:
    """A score at its best value stands at its limit without being near to failing."""
    bounded_above = check.metric not in AT_LEAST
    if check.value is None or not check.limit or not bounded_above:
        return not check.passed, 0.0, bounded_above
    return not check.passed, check.value / check.limit, bounded_above


def groups(report: Report) -> list[Group]:
    """By artifact and stage, in the order of the record."""
    keys = dict.fromkeys((check.artifact, check.stage) for check in report.checks)
    return [
        Group(
            artifact,
            stage,
            [c for c in report.checks if (c.artifact, c.stage) == (artifact, stage)],
        )
        for artifact, stage in keys
    ]


def failure(check: Check) -> str:
    """One line with everything that is known of a failed check."""
    where = ", ".join(filter(None, (check.artifact, check.stage, check.output)))
    if check.metric in REASONS:
        return printable(f"{where}: {REASONS[check.metric]}")
    value, limit = value_and_limit(check)
    found = f"{check.metric} is {value}, limit {limit.removeprefix('<= ').removeprefix('>= ')}"
    return printable(f"{where}: {found} ({plural(check.samples, 'sample')})")


# --- sentences ----------------------------------------------------------------------------------


def plural(count: int, noun: str) -> str:
    """1 check, 2 checks."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def headline(report: Report) -> str:
    """The one sentence that a reader must not miss."""
    bad, can_fail = failed(report), gated(report.checks)
    if bad:
        return f"NOT TO SHIP: {len(bad)} of {plural(len(can_fail), 'check')} failed"
    return f"{_what_was_done(report)}: {_what_was_found(report, len(can_fail))}"


def _what_was_done(report: Report) -> str:
    if report.remap is None:
        return printable(f"{report.original.path}, nothing cut")
    heads = report.remap.heads
    return ", ".join(
        kept(head) + (f" of {printable(head.name)}" * (len(heads) > 1)) for head in heads
    )


def kept(head: HeadRemap) -> str:
    """10 of 1000 units kept; of a file with groups also what they became."""
    if head.options["merge"] is None:
        return f"{len(head.kept)} of {plural(head.old_units, 'unit')} kept"
    if len(head.kept) == head.old_units:
        return f"{plural(head.old_units, 'unit')} merged into {head.new_units}"
    return (
        f"{len(head.kept)} of {plural(head.old_units, 'unit')} kept, merged into {head.new_units}"
    )


def _what_was_found(report: Report, can_fail: int) -> str:
    coarser = _coarser(report)
    if not can_fail:
        return f"{coarser} measured, held to no limit" if coarser else "not verified"
    modes = {head.mode for head in report.remap.heads} if report.remap else set()
    promised = " and ".join(sorted(modes - {"slice"}))
    found = f"answers as mode {promised} promises" if promised else "answers as the original did"
    held = any(check.stage == "quantize" for check in gated(report.checks))
    return f"{found}, {coarser} aside" if coarser and not held else found


def _coarser(report: Report) -> str:
    """The precisions of what was quantized and compared."""
    rows = (row for row in precision_rows(report) if row.top1 is not None)
    return ", ".join(dict.fromkeys(row.precision for row in rows))


def inputs(report: Report) -> str:
    """On what it was measured, and what that proves."""
    calibration = report.inputs.get("calibration")
    ranges = f" Calibrated on {_samples(calibration)}." if calibration else ""
    if not report.inputs.get("source") or not (report.checks or report.latency or report.memory):
        return f"Nothing was run.{ranges}"
    told = _samples(report.inputs)
    if not _made_up(report.inputs) or not report.checks:
        return f"{told}.{ranges}"
    return f"{told}: they show whether answers changed, not how good the answers are.{ranges}"


def _samples(inputs: Mapping[str, Any]) -> str:
    source, count = printable(str(inputs.get("source", ""))), inputs.get("samples")
    if _made_up(inputs):
        return f"{count} samples ({source}), made up and not real data"
    return f"{count} samples from {source}"


def _made_up(inputs: Mapping[str, Any]) -> bool:
    """A file may be called synthetic.npz."""
    return str(inputs.get("source", "")).startswith("synthetic, seed ")


def machine(report: Report) -> str:
    """AMD EPYC, 2 cores, 25.1 GB memory, Linux x86_64."""
    get = report.machine.get
    cores, memory = get("cores"), get("memory_bytes")
    parts = (
        get("cpu"),
        None if cores is None else plural(cores, "core"),
        None if memory is None else f"{size(memory)} memory",
        get("system"),
    )
    return ", ".join(printable(str(part)) for part in parts if part) or "unknown"


# --- rows ---------------------------------------------------------------------------------------


def remap_rows(head: HeadRemap) -> Iterator[tuple[str, str, str]]:
    """New index, original index or indices, label: of the units that still answer."""
    alive = frozenset(head.kept)
    for new, place in enumerate(head.new_to_old):
        old = place if isinstance(place, tuple) else (place,)
        if alive.intersection(old):
            label = "" if head.labels is None else head.labels[new]
            yield str(new), " + ".join(map(str, old)), printable(label)


def precision_cells(row: PrecisionRow) -> tuple[str, ...]:
    """What stands under `PRECISION_TITLES`."""
    time = NOTHING if row.p50_ms is None else f"{milliseconds(row.p50_ms)} ms"
    return row.precision, decibels(row.sqnr_db), share(row.top1), size(row.bytes), time


PRECISION_TITLES = ("Precision", "SQNR:", "Top-1:", "Size:", "p50:")


def passed(group: Group) -> str:
    """How many checks of a group passed, as a sentence."""
    return f"{group.tally} passed." if gated(group.checks) else "No limit applies."


def standing(head: HeadRemap) -> str:
    """A note where removed units keep their places, else ""."""
    silent = head.new_units - sum(1 for _ in remap_rows(head))
    if not silent:
        return ""
    how = f"as mode {head.mode} says"
    if head.options["restore_width"]:
        how = f"{head.options['floor'] or 0:g}"
    return f"Every unit keeps its index; the {silent} that are not listed answer {how}."


def ids(head: HeadRemap) -> str:
    """What the ids say that the model returns beside its values, else ""."""
    emit = head.options["emit"]
    if emit is None:
        original = head.options["restore_ids"]
        return "The ids that the model returns are the original's indices." if original else ""
    which = "the best unit" if emit["count"] is None else f"the best {emit['count']}"
    return f"Output {printable(emit['output'])} gives the original's index of {which}."


def before_and_after(artifact: Artifact) -> str:
    """14.1 MB -> 9.04 MB; only the size where the original's is not known."""
    if artifact.original_bytes is None:
        return size(artifact.bytes)
    return f"{size(artifact.original_bytes)} -> {size(artifact.bytes)}"


def held(row: Memory) -> str:
    """19.6 MB -> 15.6 MB: what the original and the artifact hold in their runtime."""
    return f"{size(row.original_bytes)} -> {size(row.bytes)}"
