"""What the report page shows first: a verdict and a card for each file, and the whole remap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from exporter.output.c_source import FORMS
from exporter.records import QUANTIZED_AFTER_TRIM, Artifact, Report, SelectedUnit
from exporter.remap.head_remap import HeadRemap, members
from exporter.report import describe
from exporter.report.check_groups import compares_values, describe_failure, failed
from exporter.report.formatting import NOTHING, change, milliseconds, percent, printable, size

Result = Literal["pass", "warning", "fail"]

_SHOWN_LABELS = 5  # of each head, in the index of variants
LOW_TOP1 = 0.95  # an agreement below this is a warning, even where the limit allows it
_WORDS = {"pass": "Pass", "warning": "Look closer", "fail": "Do not use"}


@dataclass(frozen=True)
class FileVerdict:
    """The verdict on one file.

    Attributes:
        shown_by: "proved", "sampled", "trimmed", "not verified" or "different".
        reasons: sentences; empty if there is nothing to say.
    """

    file: str
    result: Result
    shown_by: str
    reasons: Sequence[str]

    @property
    def word(self) -> str:
        """The result in words."""
        return _WORDS[self.result]


@dataclass(frozen=True)
class Measure:
    """One figure of a card, before and after.

    Attributes:
        share: after / before; None if no bar can be drawn.
        note: a few words under the bar.
    """

    title: str
    before: str
    after: str
    share: float | None = None
    note: str = ""

    @property
    def widths(self) -> tuple[float, float]:
        """The lengths of both bars, in percent of the longer one."""
        share = self.share or 0.0
        longer = max(1.0, share)
        return 100 / longer, 100 * share / longer


@dataclass(frozen=True)
class Card:
    """One file: its verdict and its figures."""

    artifact: Artifact
    verdict: FileVerdict
    measures: Sequence[Measure]


@dataclass(frozen=True)
class UnitRow:
    """One unit of the original in the table of a head.

    Attributes:
        new: its index in the files; "" if it was removed.
        label: "" if it is not known.
        reason: of a selection by data.
    """

    old: int
    new: str
    label: str
    reason: str

    @property
    def fate(self) -> str:
        """What happened to the unit."""
        return "kept" if self.new else "removed"


def file_verdicts(report: Report) -> list[FileVerdict]:
    """The verdict on each model file of a report, in its order."""
    return [_verdict(report, each) for each in report.artifacts if each.kind not in FORMS]


def report_result(report: Report) -> Result:
    """The worst verdict; a warning of the whole job is at least "warning"."""
    results = {verdict.result for verdict in file_verdicts(report)}
    if not report.ok or "fail" in results:
        return "fail"
    compared = any(map(compares_values, report.checks))
    return "warning" if "warning" in results or report.warnings or not compared else "pass"


def cards(report: Report) -> list[Card]:
    """A card for each model file."""
    models = [each for each in report.artifacts if each.kind not in FORMS]
    return [
        Card(artifact, verdict, list(_measures(report, artifact)))
        for artifact, verdict in zip(models, file_verdicts(report), strict=True)
    ]


def chosen_units(report: Report) -> Mapping[int, SelectedUnit]:
    """Why each unit was kept or removed, if the report has one head."""
    several = report.remap is not None and len(report.remap.heads) > 1
    return {} if several else {row.unit: row for row in report.selection}


def unit_rows(
    head: HeadRemap,
    units: Iterable[int],
    chosen: Mapping[int, SelectedUnit] = MappingProxyType({}),
    known: Sequence[str] = (),
) -> list[UnitRow]:
    """Some units of the original.

    Args:
        units: their indices, in the order of the rows.
        known: labels of the first units of the original.
    """
    new = {
        int(place): index
        for index, old, _ in describe.remap_rows(head)
        for place in old.split(" + ")
    }
    labels = {int(i): label for i, _, label in describe.remap_rows(head)}
    rows = []
    for old in units:
        row, index = chosen.get(old), new.get(old, "")
        label = row.label if row else labels[int(index)] if index else ""
        own = known[old] if old < len(known) else ""
        rows.append(UnitRow(old, index, own or label, row.reason if row else ""))
    return rows


def kept_first(head: HeadRemap) -> Iterator[int]:
    """The units of the original: kept ones in the order of the files, then removed ones."""
    kept = [old for place in head.new_to_old for old in members(place)]
    wanted = frozenset(head.kept)
    kept = [old for old in dict.fromkeys(kept) if old in wanted]
    yield from kept
    yield from sorted(set(range(head.old_units)).difference(kept))


def _verdict(report: Report, artifact: Artifact) -> FileVerdict:
    checks = [check for check in report.checks if check.artifact == artifact.path]
    compared = any(map(compares_values, checks))
    shown_by: str = artifact.proof.result if artifact.proof else "sampled" if compared else ""
    if any(row.artifact == artifact.path for row in report.trimmed):
        compared, shown_by = True, "trimmed"
    if bad := failed(checks):
        reasons = [describe.describe_gate(check) or describe_failure(check) for check in bad]
        return FileVerdict(artifact.path, "fail", shown_by or "not verified", reasons)
    reasons = [text for text in report.warnings if _names(text, artifact.path)]
    top1 = agreement(report, artifact)
    if top1 is not None and top1 < LOW_TOP1:
        reasons.append(f"The first answer is another one in {percent(1 - top1)} of the samples.")
    if not compared:
        reasons.append("No answer of this file was compared with the original.")
    result: Result = "warning" if reasons else "pass"
    return FileVerdict(artifact.path, result, shown_by or "not verified", reasons)


def _names(text: str, path: str) -> bool:
    """Whether a sentence names a file: "net.onnx" is not named in "small_net.onnx is slow"."""
    return path in (word.strip(",:;.") for word in text.split())


def _measures(report: Report, artifact: Artifact) -> Iterator[Measure]:
    before, after = artifact.original_bytes, artifact.bytes
    share = after / before if before else None
    yield Measure("Size", size(before), size(after), share, change(before, after))
    for time in report.latency:
        if time.artifact == artifact.path:
            first, second = time.original_p50_ms, time.p50_ms
            share = second / first if first else None
            texts = milliseconds(first), milliseconds(second)
            yield Measure("Latency, p50", *texts, share, time.verdict)
    for row in report.memory:
        if row.artifact == artifact.path:
            changed = row.verdict != "no measurable change"
            note = change(row.original_bytes, row.bytes) if changed else str(row.verdict)
            texts = size(row.original_bytes), size(row.bytes)
            share = row.bytes / row.original_bytes if row.original_bytes > 0 else None
            yield Measure("Memory", *texts, share, note)
    if (top1 := agreement(report, artifact)) is not None:
        note = f"same first answer as {_compared_with(report, artifact)}"
        yield Measure("Top-1 agreement", percent(1.0), percent(top1), top1, note)


def _compared_with(report: Report, artifact: Artifact) -> str:
    if any(row.artifact == artifact.path for row in report.trimmed):
        return "the untrimmed file, on held-out samples"
    if artifact.proof is not None and artifact.proof.reason == QUANTIZED_AFTER_TRIM:
        return "the trimmed float file"
    return "the original"


def agreement(report: Report, artifact: Artifact) -> float | None:
    """How often the first answer equals the original's: the worst output and stage, or None."""
    of_file = (c for c in report.checks if c.artifact == artifact.path and c.metric == "top1")
    return min((check.value for check in of_file if check.value is not None), default=None)


def headline(report: Report) -> str:
    """One sentence on the whole report."""
    bad = len({check.artifact for check in failed(report.checks)})
    if bad:
        files = sum(each.kind not in FORMS for each in report.artifacts)
        return f"Do not use {'this file' if files == bad == 1 else f'{bad} of {files} files'}"
    return printable(f"{describe.describe_change(report)}: {describe.describe_result(report)}")


@dataclass(frozen=True)
class VariantRow:
    """One file of one variant, in the table of all variants."""

    variant: str
    kept: str
    card: Card

    @property
    def cells(self) -> tuple[str, ...]:
        """Size, its change, agreement, latency and memory; "-" for what was not measured."""
        found = {measure.title: measure for measure in self.card.measures}
        size_, *others = (
            found.get(t) for t in ("Size", "Top-1 agreement", "Latency, p50", "Memory")
        )
        change_ = size_.note if size_ else NOTHING
        return (
            size_.after if size_ else NOTHING,
            change_,
            *(each.after if each else NOTHING for each in others),
        )


def variant_rows(reports: Mapping[str, Report]) -> list[VariantRow]:
    """A row for each model file of each variant."""
    return [
        VariantRow(name, _kept(report), card)
        for name, report in reports.items()
        for card in cards(report)
    ]


def _kept(report: Report) -> str:
    heads = report.remap.heads if report.remap else ()
    return ", ".join(map(_kept_units, heads)) or NOTHING


def _kept_units(head: HeadRemap) -> str:
    """3 of 10: cat, dog, owl; the first labels if there are many."""
    text, labels = f"{len(head.kept)} of {head.old_units}", head.labels or ()
    shown = ", ".join(map(printable, labels[:_SHOWN_LABELS]))
    more = ", ..." if len(labels) > _SHOWN_LABELS else ""
    return f"{text}: {shown}{more}" if shown else text
