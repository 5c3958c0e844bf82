"""Measure the task quality of a new model and of its original, and apply the gates of a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from exporter.data.images import Images
from exporter.data.preprocessor import Resizing
from exporter.data.samples import Samples
from exporter.errors import ExporterError, UsageError, missing_library
from exporter.evaluation.box_answers import BoxAnswers, box_groups
from exporter.evaluation.kept_units import KeptUnits
from exporter.evaluation.labels import labels_of_units, names_of_units, units_of_labels
from exporter.evaluation.pixel_answers import artifact_pixels, original_pixels
from exporter.evaluation.read_boxes import artifact_boxes, input_size, original_boxes
from exporter.evaluation.read_classes import (
    Subject,
    artifact_classes,
    artifact_labels,
    original_classes,
    original_labels,
)
from exporter.evaluation.read_outputs import not_measurable
from exporter.evaluation.task_quality import (
    BeforeAndAfter,
    Group,
    class_groups,
    gate_checks,
    label_groups,
    quality_rows,
)
from exporter.evaluation.text_answers import (
    Alphabet,
    TextAnswers,
    artifact_texts,
    original_texts,
    read_transcripts,
    text_groups,
)
from exporter.evaluation.true_boxes import Placement, placement, read_true_boxes, stretched
from exporter.evaluation.true_masks import read_true_masks
from exporter.formats.model import Model, without_dropped
from exporter.graph import Array
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.predict import active_above
from exporter.remap import HeadRemap
from exporter.trace import trace_recorded
from exporter.verification.match import part_before

Answers = TypeVar("Answers")
_MASKS = "masks"
BOXES, TRANSCRIPTS = "annotations.json", "transcripts.csv"  # in the folder of the data

_FEW = 5  # units: the label is always among the first five
_ONLY_KEPT = (
    "only samples of kept classes are measured: the original has no labels, and the remap names "
    "the kept units only; --labels gives the labels of the original"
)
_HINT = "give class labels: one sub-folder per class, labels.csv, or the array labels in an .npz"


def check_truth(job: Job, samples: Samples) -> None:
    """Refuse a gate on data without labels, before models are converted.

    Raises:
        UsageError: see above; or `truth` has a suffix that no reader takes.
    """
    if job.truth is not None and _form(job.truth) not in {".json", ".csv", _MASKS}:
        raise UsageError(
            f"{job.truth.name} is no file of boxes, transcripts or masks",
            "boxes end in .json, transcripts in .csv; masks are a folder or end in .npz",
        )
    if job.has_quality_gate and samples.labels is None and not _truth_files(job):
        raise UsageError(f"the data {samples.source} has no labels, which the gate needs", _HINT)


def _form(truth: Path) -> str:
    """The suffix of a file of truth; of masks `_MASKS`, also for a folder."""
    suffix = truth.suffix.lower()
    return _MASKS if truth.is_dir() or suffix == ".npz" else suffix


def _truth_files(job: Job) -> dict[str, Path]:
    """Form -> the file with the truth: the given one, else boxes and transcripts of the data."""
    if job.truth is not None:
        return {_form(job.truth): job.truth}
    found = [job.data / name for name in (BOXES, TRANSCRIPTS)] if job.data else []
    return {path.suffix: path for path in found if path.is_file()}


class _Measured(NamedTuple):
    """Everything that the rows of one artifact are made from."""

    answers: BeforeAndAfter
    measures: tuple[str, ...]
    groups: tuple[Group, ...]
    warnings: tuple[str, ...] = ()


_Task = Callable[["QualityMeter", Subject, Model, Sequence[str] | None], _Measured]


@dataclass(eq=False)
class QualityMeter:
    """Measures artifacts against one original, which runs once for each selection.

    Attributes:
        names: of the original's units, from the user; None for those in the model.
    """

    job: Job
    original: Model
    samples: Samples
    names: Sequence[str] | None = None
    _known: dict[Any, Any] = field(default_factory=dict)

    def measure(self, artifact: Model, tables: Sequence[HeadRemap]) -> CheckResults:
        """The quality, the checks of the gates, and warnings; empty without labeled data.

        Args:
            artifact: the new model.
            tables: how its heads were cut; the first is measured.

        Raises:
            ExporterError: the quality cannot be measured, and the job has a gate or names a file
                of true boxes or transcripts.
        """
        check_truth(self.job, self.samples)
        if self.samples.labels is None and not _truth_files(self.job):
            return CheckResults()
        self.job.progress(f"measuring the task quality of {artifact.name}")
        try:
            return self._measured(artifact, next(iter(tables), None))
        except (ExporterError, ImportError) as error:
            if self.job.has_quality_gate or self.job.truth is not None:
                raise
            return CheckResults.warn(f"the task quality was not measured: {_reason(error)}")

    def _measured(self, artifact: Model, table: HeadRemap | None) -> CheckResults:
        subject = subject_of(self.job, self.original, self.samples, table)
        given = self.names or self.job.original_labels
        names = labels_of_units(self.original, subject.head, given)
        partial_names = None if names else names_of_units(subject.kept, table)
        measured = self._task(subject)(self, subject, artifact, names or partial_names)
        if partial_names is not None and measured.warnings:
            measured = measured._replace(groups=measured.groups[:1], warnings=(_ONLY_KEPT,))
        rows = quality_rows(artifact.name, measured.answers, measured.measures, measured.groups)
        job, output = self.job, subject.head.output
        checks = tuple(gate_checks(rows, output, job.min_accuracy, job.max_drop))
        return CheckResults(checks=checks, quality=rows, warnings=measured.warnings)

    @property
    def sample_names(self) -> list[str] | None:
        """The paths of the samples in the folder of the data; None if they are in one file."""
        data, samples = self.job.data, self.samples
        if data is None or not data.is_dir():
            return None
        if len(samples.files) != samples.count:
            raise not_measurable(
                f"the {samples.count} samples are not one for each file of {samples.source}",
                "give files that are one sample each, and leave out --batch",
            )
        return [file.relative_to(data).as_posix() for file in samples.files]

    def _task(self, subject: Subject) -> _Task:
        """The reader of what the data has: boxes, transcripts or labels."""
        files, labels = _truth_files(self.job), self.samples.labels
        readers = subject.head.readers
        rows = (column for column in readers.columns.values() if not column.is_whole)
        detects = bool(readers.detector_outputs) or any(rows)
        if ".json" in files and (self.job.truth or detects or labels is None):
            return partial(_boxes, files[".json"])
        if ".csv" in files and (self.job.truth or labels is None):
            return partial(_texts, files[".csv"])
        if _MASKS in files:
            return partial(_pixels, files[_MASKS])
        several = any(isinstance(label, tuple) for label in labels or ())
        return _several_labels if several else _one_label

    def once(self, subject: Subject, run: Callable[[], Answers]) -> Answers:
        """The answers of the original; computed once for each selection."""
        key = subject.head.name, subject.kept.kept, subject.kept.positions
        if key not in self._known:
            self._known[key] = run()
        found: Answers = self._known[key]
        return found


def subject_of(job: Job, original: Model, samples: Samples, table: HeadRemap | None) -> Subject:
    """The head of an original that a file was cut at; without a remap, its only head."""
    tables = () if table is None else (table,)
    original = without_dropped(original, tables)
    parts = [(each, part_before(original, each)) for each in tables]
    found = trace_recorded(original.graph(), parts)
    head = found.head(None if table is None else table.name)
    kept = KeptUnits.of_cut(original, head, table) if table else KeptUnits.uncut(head.units)
    return Subject(original, head, table, kept, samples, job.run_options)


def _one_label(
    meter: QualityMeter, subject: Subject, artifact: Model, names: Sequence[str] | None
) -> _Measured:
    """Samples of one class each."""
    kept, labels = subject.kept, _labels(subject.samples)
    truth = units_of_labels([label for (label,) in labels], kept.units, names)
    _check_known(subject.samples, truth >= 0)
    before = meter.once(subject, lambda: original_classes(subject, truth))
    after = artifact_classes(subject, artifact, truth)
    few = len(set(kept.group[list(kept.kept)].tolist())) <= _FEW
    measures = ("accuracy", "macro_f1") if few else ("accuracy", "top5_accuracy", "macro_f1")
    answers = BeforeAndAfter(before[0], before[1], after)
    warnings = _unknown(
        int((truth < 0).sum()), f"{len(truth)} samples have a label", "counted as wrong"
    )
    return _Measured(answers, measures, class_groups(truth, kept.is_kept), warnings)


def _several_labels(
    meter: QualityMeter, subject: Subject, artifact: Model, names: Sequence[str] | None
) -> _Measured:
    """Samples with any number of labels each."""
    kept, labels = subject.kept, _labels(subject.samples)
    every = [label for given in labels for label in given]
    units = units_of_labels(every, kept.units, names).astype(np.int64)
    rows, known = np.repeat(np.arange(len(labels)), list(map(len, labels))), units >= 0
    truth = np.zeros((len(labels), kept.units), bool)
    truth[rows[known], units[known]] = True
    _check_known(subject.samples, np.asarray(truth.any(axis=1)))
    above = active_above(subject.head.activation)
    before = meter.once(subject, lambda: original_labels(subject, truth, above))
    after = artifact_labels(subject, artifact, truth, above)
    measures = ("mean_average_precision", "multilabel_macro_f1")
    answers = BeforeAndAfter(before[0], before[1], after)
    warnings = _unknown(int((~known).sum()), f"{len(every)} labels are names", "left out")
    return _Measured(answers, measures, label_groups(truth, kept.is_kept), warnings)


def _boxes(
    path: Path,
    meter: QualityMeter,
    subject: Subject,
    artifact: Model,
    names: Sequence[str] | None,
) -> _Measured:
    """Samples with true boxes."""
    kept, samples = subject.kept, subject.samples
    place = _placement(subject.original, samples)
    true = read_true_boxes(path, samples.count, meter.sample_names, place)
    ids = list(true.categories)
    units = units_of_labels([true.categories[each] for each in ids], kept.units, names)
    unit_of = {each: unit for each, unit in zip(ids, units.tolist(), strict=True) if unit >= 0}
    truth = true.in_units(unit_of)
    every, known = (sum(len(boxes.units) for boxes in each) for each in (true.samples, truth))
    if not known:
        raise not_measurable(
            f"no unit has the name of a category of {path.name}",
            "give the labels of the units with --labels, or name categories by unit index",
        )
    before = meter.once(subject, lambda: original_boxes(subject))
    of_kept = [boxes.only(kept.is_kept[boxes.units]) for boxes in before]
    after = artifact_boxes(subject, artifact)
    answers = BeforeAndAfter(*(BoxAnswers(truth, found) for found in (before, of_kept, after)))
    what = f"{every} true boxes have a category"
    warnings = _unknown(every - known, what, "left out")
    groups = box_groups(truth, kept.is_kept)
    return _Measured(answers, ("map", "map50"), groups, warnings)


def _texts(
    path: Path,
    meter: QualityMeter,
    subject: Subject,
    artifact: Model,
    names: Sequence[str] | None,
) -> _Measured:
    """Samples with transcripts."""
    alphabet = Alphabet.of(names)
    truth = read_transcripts(path, subject.samples.count, meter.sample_names)
    every, restricted = meter.once(subject, lambda: original_texts(subject, alphabet))
    after = artifact_texts(subject, artifact, alphabet)
    answers = BeforeAndAfter(*(TextAnswers(truth, found) for found in (every, restricted, after)))
    measures = ("character_error_rate", "word_error_rate")
    return _Measured(answers, measures, text_groups(truth, alphabet, subject.kept.is_kept))


def _pixels(
    path: Path,
    meter: QualityMeter,
    subject: Subject,
    artifact: Model,
    _labels_of_units: Sequence[str] | None,
) -> _Measured:
    """Samples with a true unit for each pixel."""
    kept, count = subject.kept, subject.samples.count
    images = next(iter(subject.samples.values.values()))
    resizing = images.resizing if isinstance(images, Images) else Resizing()
    masks = read_true_masks(path, count, meter.sample_names, resizing, kept.units)
    before = meter.once(subject, lambda: original_pixels(subject, masks))
    answers = BeforeAndAfter(*before, artifact_pixels(subject, artifact, masks))
    groups = label_groups(before[0].truth, kept.is_kept)
    return _Measured(answers, ("mean_iou", "pixel_accuracy"), groups)


def _placement(original: Model, samples: Samples) -> Placement:
    """Where boxes are after the resizing of the images."""
    images = next(iter(samples.values.values()))
    size = input_size(original, samples)
    if not isinstance(images, Images) or size is None:
        return stretched
    return placement(images.resizing.policy, size, images.resizing.shown)


def _unknown(count: int, what: str, effect: str) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} of {what} that no unit has: they are {effect}",)


def _labels(samples: Samples) -> list[tuple[str | int, ...]]:
    """The labels of each sample."""
    return [each if isinstance(each, tuple) else (each,) for each in samples.labels or ()]


def _check_known(samples: Samples, known: Array) -> None:
    if not known.any():
        shown = next((each for labels in _labels(samples) for each in labels), "")
        raise not_measurable(
            f"no unit is called {shown!r}, or has another label of {samples.source}",
            "give the labels of the units with --labels, or name classes by unit index",
        )


def _reason(error: ExporterError | ImportError) -> str:
    known = missing_library(error) if isinstance(error, ImportError) else error
    if known is None:
        return str(error)
    message = known.message.removeprefix("the task quality cannot be measured: ")
    return f"{message} ({known.hint})" if known.hint else message
