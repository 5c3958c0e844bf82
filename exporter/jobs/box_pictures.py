"""Boxes of a detector before and after, for a picture in the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from exporter.data.preview import picture_of
from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.evaluation.box_answers import Boxes
from exporter.evaluation.labels import labels_of_units, names_of_units
from exporter.evaluation.read_boxes import artifact_boxes, input_size, original_boxes
from exporter.evaluation.read_classes import Subject
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.jobs.checks import CheckResults
from exporter.jobs.job import Job
from exporter.jobs.task_quality import subject_of
from exporter.records import BoxPicture, DrawnBox
from exporter.remap import HeadRemap

LOWEST_SCORE = 0.4
_SAMPLES = 4  # the one with most boxes is shown
_MOST_BOXES = 12
_SIDE = 320  # pixels


def box_pictures(  # noqa: PLR0917 - two models, how they were cut, and what is known
    job: Job,
    original: Model,
    artifact: Model,
    samples: Samples,
    tables: Sequence[HeadRemap],
    names: Sequence[str] | None = None,
) -> CheckResults:
    """A picture of one sample; empty for models whose boxes cannot be read, and synthetic samples.

    Args:
        tables: how the heads of the artifact were cut; the boxes of the first are read.
        names: of the original's units; None for those in the model.
    """
    if not (job.verify and job.plots and tables and samples.count) or samples.synthetic:
        return CheckResults()
    few = samples.at(range(min(_SAMPLES, samples.count)))
    try:
        subject = subject_of(job, original, few, tables[0])
        found = tuple(_pictures(job, subject, artifact, names))
    except UsageError:  # no detector, or one whose boxes have a form that is not known
        return CheckResults()
    return CheckResults(box_pictures=found)


def _pictures(
    job: Job, subject: Subject, artifact: Model, names: Sequence[str] | None
) -> Iterator[BoxPicture]:
    size = input_size(subject.original, subject.samples)
    if size is None:
        return
    kept = subject.kept.is_kept
    before = [_likely(boxes) for boxes in original_boxes(subject)]
    sample = max(range(len(before)), key=lambda i: _shows(before[i], kept))
    if not len(before[sample].units):
        return
    chosen = replace(subject, samples=subject.samples.at([sample]))
    (after,) = artifact_boxes(chosen, artifact)
    image = next(values for values in chosen.samples.values.values() if np.ndim(values[0]) == 4)  # noqa: PLR2004 - batch, height, width and channels
    given = names or job.original_labels
    labels = labels_of_units(subject.original, subject.head, given)
    known = labels or names_of_units(subject.kept, subject.table)
    if picture := picture_of(np.asarray(image[0]), _SIDE):
        yield BoxPicture(
            artifact.name,
            sample,
            picture,
            *size,
            LOWEST_SCORE,
            tuple(_drawn(before[sample], kept.tolist(), known)),
            tuple(_drawn(_likely(after), kept.tolist(), known)),
            subject.samples.name_of(sample),
        )


def _shows(boxes: Boxes, kept: Array) -> tuple[int, int]:
    """How much a picture shows: first boxes of both kept and removed classes, then many kept."""
    of_kept = int(kept[boxes.units].sum())
    of_removed = len(boxes.units) - of_kept
    return min(of_kept, 1) + min(of_removed, 1), of_kept


def _likely(boxes: Boxes) -> Boxes:
    """The boxes with the highest scores."""
    order = np.argsort(-boxes.scores, kind="stable")[:_MOST_BOXES]
    return boxes.only(order[boxes.scores[order] >= LOWEST_SCORE])


def _drawn(boxes: Boxes, kept: Sequence[bool], labels: Sequence[str] | None) -> Iterator[DrawnBox]:
    for corners, unit, score in zip(
        boxes.corners.tolist(), boxes.units.tolist(), boxes.scores.tolist(), strict=True
    ):
        left, top, right, bottom = corners
        label = labels[unit] if labels else ""
        yield DrawnBox((left, top, right, bottom), unit, label, score, kept[unit])
