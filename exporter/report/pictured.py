"""The samples that a page shows: the worst one of each file, and pictures with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from exporter.records import BoxPicture, DrawnBox, InputPreview, Report, UnitValue, WorstSample
from exporter.report.check_groups import is_equal, sample_text, values_told_apart
from exporter.report.formatting import number, percent, plural, printable
from exporter.report.tables import class_name

_MOST = 12  # files; a picture of each takes up to 20 kB
_MOST_DETECTIONS = 3  # files; a picture of each takes up to 100 kB
_SAFE = ("data:image/png;base64,", "data:image/jpeg;base64,")


@dataclass(frozen=True)
class ShownInput:
    """One input: a picture, or numbers."""

    name: str
    facts: str
    picture: str
    values: str


@dataclass(frozen=True)
class ShownValue:
    """One row of the table of values; `is_worst` marks the largest difference."""

    name: str
    expected: str
    actual: str
    is_worst: bool


@dataclass(frozen=True)
class ShownSample:
    """The worst sample of one file, in words."""

    file: str
    words: str
    passed: bool
    inputs: Sequence[ShownInput]
    values: Sequence[ShownValue]


@dataclass(frozen=True)
class ShownBox:
    """A box in pixels of the picture."""

    left: float
    top: float
    width: float
    height: float
    text: str
    is_kept: bool
    picture_width: int
    text_y: float = 0.0

    @property
    def line(self) -> float:
        """The height of a line of text."""
        return self.picture_width / 24

    @property
    def ends(self) -> bool:
        """The text ends at the right side of the box, so that it does not leave the picture."""
        return self.left > self.picture_width / 2

    @property
    def text_x(self) -> float:
        """Where the text starts, or ends."""
        room = self.picture_width / 100
        return self.left + self.width - room if self.ends else self.left + room

    def covers(self, other: ShownBox) -> bool:
        """Do the texts of two boxes overlap? A letter counts as 0.6 of a line wide."""
        widths = [0.6 * each.line * len(each.text) for each in (self, other)]
        starts = [e.text_x - w * e.ends for e, w in zip((self, other), widths, strict=True)]
        is_apart = starts[0] > starts[1] + widths[1] or starts[1] > starts[0] + widths[0]
        return not is_apart and abs(self.text_y - other.text_y) < self.line


@dataclass(frozen=True)
class ShownBoxes:
    """The boxes of one model in one picture, and the same in words."""

    title: str
    summary: str
    boxes: Sequence[ShownBox]


@dataclass(frozen=True)
class ShownDetection:
    """One picture with the boxes before and after."""

    file: str
    sample: str
    picture: str
    width: int
    height: int
    lowest_score: str
    sides: Sequence[ShownBoxes]


def worst_samples(report: Report) -> list[ShownSample]:
    """For each file the comparison that failed, or came nearest to its limit."""
    found: dict[str, WorstSample] = {}
    for row in report.worst_samples:
        name = row.case.artifact
        if name not in found or _rank(row) > _rank(found[name]):
            found[name] = row
    rows = sorted(found.values(), key=lambda row: row.passed)
    return [_sample(row) for row in rows[:_MOST]]


def _rank(row: WorstSample) -> tuple[bool, float]:
    expected, actual = row.case.expected, row.case.actual
    if expected is None or actual is None or not row.limit:
        return not row.passed, 0.0
    return not row.passed, abs(expected - actual) / row.limit


def _sample(row: WorstSample) -> ShownSample:
    case = row.case
    sample = sample_text(case.sample, case.sample_name)
    against = {"cut": "the original", "export": "the model before its conversion"}.get(
        case.stage, "the float model"
    )
    if is_equal(row):
        words = (
            f"All values of {plural(row.samples, 'sample')} are equal to the values of {against}; "
            f"for example {sample}."
        )
    else:
        limit = "" if row.limit is None else f" The limit of this sample is {number(row.limit)}."
        words = (
            f"Of {plural(row.samples, 'sample')} (counted from 0), {sample} has the largest "
            f"difference from {against}, in output "
            f"{printable(case.output)}.{limit}"
        )
    if row.quantized:
        words += " The values are quantized values."
    worst = case.unit, case.original_unit
    units = [value for value in row.values if value.unit is not None] or row.values
    return ShownSample(
        case.artifact,
        words,
        row.passed,
        [_input(each) for each in row.inputs],
        [_value(v, not is_equal(row) and (v.unit, v.original_unit) == worst) for v in units],
    )


def _value(value: UnitValue, is_worst: bool) -> ShownValue:
    name = "value" if value.unit is None else class_name(value.unit, value.label)
    actual, expected = number(value.actual, 4), number(value.expected, 4)
    if is_worst:
        actual, expected = values_told_apart(value.actual, value.expected, 4)
    return ShownValue(name, expected, actual, is_worst)


def _input(each: InputPreview) -> ShownInput:
    shape = " x ".join(map(str, each.shape))
    range_ = ""
    if each.low is not None:
        range_ = f", {number(each.low)} to {number(each.high)}, mean {number(each.mean)}"
    count = 1
    for length in each.shape:
        count *= length
    more = ", ..." if count > len(each.values) else ""
    values = ", ".join(map(printable, each.values)) + more
    return ShownInput(each.name, f"{shape} {each.dtype}{range_}", safe(each.picture), values)


def safe(picture: str) -> str:
    """The picture if it is one that this program writes: report.json may come from anywhere."""
    return picture if picture.startswith(_SAFE) else ""


def detections(report: Report) -> list[ShownDetection]:
    """The pictures with boxes."""
    rows = [row for row in report.box_pictures if safe(row.picture)]
    return [_detection(row) for row in rows[:_MOST_DETECTIONS]]


def _detection(row: BoxPicture) -> ShownDetection:
    sides = ("Original", row.before), (row.artifact, row.after)
    return ShownDetection(
        row.artifact,
        sample_text(row.sample, row.sample_name),
        row.picture,
        row.width,
        row.height,
        percent(row.lowest_score),
        [_boxes(title, boxes, row) for title, boxes in sides],
    )


def _boxes(title: str, boxes: Sequence[DrawnBox], row: BoxPicture) -> ShownBoxes:
    shown: list[ShownBox] = []
    for box in boxes:
        shown.append(_with_free_text(_box(box, row), shown, row.height))
    texts = [f"{box.text}{'' if box.is_kept else ' (removed class)'}" for box in shown]
    summary = f"{title}: {', '.join(texts) or 'no boxes'}"
    return ShownBoxes(title, summary, shown[::-1])  # the highest scores are drawn last


def _with_free_text(box: ShownBox, others: Sequence[ShownBox], height: int) -> ShownBox:
    """The box with its text in the first free line below its top, or else above it."""
    lines = int(height / box.line)
    places = [box.top + (1 + n) * box.line for n in (*range(lines), *range(-1, -lines, -1))]
    inside = [y for y in places if box.line <= y <= height]
    placed = [replace(box, text_y=y) for y in (*inside, places[0])]
    return next((p for p in placed if not any(map(p.covers, others))), placed[-1])


def _box(box: DrawnBox, row: BoxPicture) -> ShownBox:
    left, top, right, bottom = (min(max(share, 0.0), 1.0) for share in box.corners)
    return ShownBox(
        left * row.width,
        top * row.height,
        max(right - left, 0.0) * row.width,
        max(bottom - top, 0.0) * row.height,
        f"{printable(box.label) or f'class {box.original_unit}'} {100 * box.score:.0f} %",
        box.is_kept,
        row.width,
    )
