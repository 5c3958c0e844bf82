"""The unit that a segmentation model returns for each pixel, and its quality against true masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.evaluation.read_classes import Subject
from exporter.evaluation.read_outputs import Outputs, artifact_ids, not_measurable, run_on
from exporter.evaluation.true_masks import NO_LABEL, Masks
from exporter.formats.model import Model
from exporter.graph import Array

_SPATIAL = 2  # height and width
Read = Callable[[Outputs], Array]  # -> (height, width) units


@dataclass(frozen=True, eq=False)
class PixelAnswers:
    """The pixels of all samples, counted by unit.

    Attributes:
        truth: (samples, units) how many pixels have the unit.
        correct: (samples, units) how many of these the model returns the unit for.
        predicted: (2, samples, units) how many pixels the model returns the unit for, among those
            of removed units, and those of kept ones.
        is_kept: (units,) bool.
    """

    truth: Array
    correct: Array
    predicted: Array
    is_kept: Array

    def value(self, measure: str, cases: Array, units: Array) -> float:
        """The measure on the pixels of these units; NaN if no pixel has one."""
        kinds = sorted({int(kept) for kept in self.is_kept[units]})
        truth, correct, predicted = (
            counts[cases].sum(axis=0)[units]
            for counts in (self.truth, self.correct, self.predicted[kinds].sum(axis=0))
        )
        present = truth > 0
        if not present.any():
            return float("nan")
        if measure == "pixel_accuracy":
            return float(correct.sum() / truth.sum())
        union = truth + predicted - correct
        return float((correct[present] / union[present]).mean())


def original_pixels(subject: Subject, masks: Masks) -> tuple[PixelAnswers, PixelAnswers]:
    """The answers of the original over all units, and over the kept ones only."""
    kept, scores = subject.kept, subject.scores
    axis = subject.head.tensor(subject.head.output).unit_axis.axis

    def every(outputs: Outputs) -> Array:
        shape = _sizes(outputs[subject.head.output], axis)
        values = scores.every_unit(outputs, scores.rows(outputs))
        return np.asarray(kept.group[values.argmax(axis=1)].reshape(shape))

    def restricted(outputs: Outputs) -> Array:
        shape = _sizes(outputs[subject.head.output], axis)
        values = scores.kept_units(outputs, scores.rows(outputs))
        return np.asarray(kept.merged_order[values.argmax(axis=1)].reshape(shape))

    first, second = _count(subject, scores.model, masks, (every, restricted))
    return first, second


def artifact_pixels(subject: Subject, artifact: Model, masks: Masks) -> PixelAnswers:
    """The answers of the new file, in the units of the original."""
    kept, scores = subject.kept, subject.scores_of(artifact)

    def read(outputs: Outputs) -> Array:
        if scores is None:
            return np.asarray(indices(outputs))
        shape = _sizes(outputs[scores.output], scores.axis)
        values = scores.positions(outputs, scores.rows(outputs))
        return np.asarray(kept.at_position[values.argmax(axis=1)].reshape(shape))

    def indices(outputs: Outputs) -> Array:
        ids = artifact_ids(artifact, subject.original, subject.head, subject.table, kept)
        (name,) = outputs
        shape = tuple(length for length in outputs[name].shape if length != 1)
        return ids(outputs, outputs[name].size)[:, 0].reshape(shape)

    (found,) = _count(subject, artifact, masks, (read,))
    return found


def _sizes(values: Array, axis: int) -> tuple[int, int]:
    """Height and width of an output of shape [1, height, width] and the unit axis."""
    sizes = [length for i, length in enumerate(values.shape) if i != axis % values.ndim]
    if len(sizes) != 1 + _SPATIAL or sizes[0] != 1:
        raise not_measurable(
            f"the model returns values of shape {list(values.shape)}, and masks need [1, height, "
            "width, units] or [1, units, height, width]",
            "give --truth for boxes or transcripts, or labels for one class per sample",
        )
    return sizes[1], sizes[2]


def _count(
    subject: Subject, model: Model, masks: Masks, reads: Sequence[Read]
) -> list[PixelAnswers]:
    """Run a model once, and count the pixels of each way to read it."""
    kept, count = subject.kept, subject.kept.units
    found: list[list[Mapping[str, Array]]] = [[] for _ in reads]
    samples = enumerate(run_on(model, subject.samples, subject.options))
    for sample, (outputs, _) in samples:
        for rows, read in zip(found, reads, strict=True):
            units = read(outputs)
            if units.ndim != _SPATIAL:
                raise not_measurable(
                    f"{model.name} returns indices of shape {list(units.shape)}",
                    "masks need one index per pixel, and models with a batch of 1",
                )
            truth = masks(sample, (units.shape[0], units.shape[1]))
            rows.append(_counts(truth, units, kept.group, kept.is_kept, count))
    return [_joined(rows, kept.is_kept) for rows in found]


def _counts(
    truth: Array, units: Array, group: Array, is_kept: Array, count: int
) -> Mapping[str, Array]:
    """The counts of one sample; pixels without a label are left out."""
    known = truth != NO_LABEL
    true, predicted = group[truth[known]], units[known]
    of_kept = is_kept[truth[known]]
    return {
        "truth": _by_unit(true, count),
        "correct": _by_unit(true[true == predicted], count),
        "removed": _by_unit(predicted[~of_kept], count),
        "kept": _by_unit(predicted[of_kept], count),
    }


def _by_unit(units: Array, count: int) -> Array:
    return np.bincount(units[units >= 0], minlength=count)


def _joined(rows: Iterable[Mapping[str, Array]], is_kept: Array) -> PixelAnswers:
    rows = list(rows)
    truth, correct, removed, kept = (
        np.stack([row[name] for row in rows]) for name in ("truth", "correct", "removed", "kept")
    )
    return PixelAnswers(truth, correct, np.stack([removed, kept]), is_kept)
