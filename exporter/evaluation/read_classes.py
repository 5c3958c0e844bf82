"""Run a classifier and its original on labeled samples, and keep what the measures need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.evaluation.class_answers import NO_UNIT, RANKS, ClassAnswers, LabelAnswers, rank
from exporter.evaluation.kept_units import KeptUnits
from exporter.evaluation.read_outputs import (
    ArtifactScores,
    OriginalScores,
    artifact_ids,
    artifact_scores,
    not_measurable,
    run_on,
    with_scores,
)
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.remap import HeadRemap
from exporter.trace.head import Head

_LARGEST_SCORES = 250_000_000  # samples x units of multi-label data in memory: 1 GB of float32


@dataclass(frozen=True, eq=False)
class Subject:
    """A head of the original, how a new file was cut there, and the samples to run.

    Attributes:
        table: of the new file; None if nothing was cut.
        kept: the same in the original's indices.
        options: how to run both models.
    """

    original: Model
    head: Head
    table: HeadRemap | None
    kept: KeptUnits
    samples: Samples
    options: RunOptions

    @property
    def scores(self) -> OriginalScores:
        """How to read the scores of the original."""
        return OriginalScores(with_scores(self.original, self.head), self.head, self.kept)

    def scores_of(self, artifact: Model) -> ArtifactScores | None:
        """How to read the scores of the new file; None if it returns indices only."""
        return artifact_scores(artifact, self.head, self.table, self.kept)


def original_classes(subject: Subject, truth: Array) -> tuple[ClassAnswers, ClassAnswers]:
    """The answers of the original over all units, and over the kept ones only.

    Args:
        subject: the original and its samples.
        truth: (samples,) the unit of each sample.
    """
    kept, scores = subject.kept, subject.scores
    every, restricted = [], []
    for outputs, rows in run_on(scores.model, subject.samples, subject.options):
        every.append(rank(scores.every_unit(outputs, rows), kept.group))
        restricted.append(rank(scores.kept_units(outputs, rows), kept.merged_order))
    wanted = _grouped(truth, kept)
    return ClassAnswers(wanted, _joined(every, truth)), ClassAnswers(
        wanted, _joined(restricted, truth)
    )


def artifact_classes(subject: Subject, artifact: Model, truth: Array) -> ClassAnswers:
    """The answers of the new file, in the units of the original."""
    kept, scores = subject.kept, subject.scores_of(artifact)
    found = []
    if scores is not None:
        for outputs, rows in run_on(artifact, subject.samples, subject.options):
            found.append(rank(scores.positions(outputs, rows), kept.at_position))
    else:
        ids = artifact_ids(artifact, subject.original, subject.head, subject.table, kept)
        for outputs, rows in run_on(artifact, subject.samples, subject.options):
            units = ids(outputs, rows)[:, :RANKS]
            padding = ((0, 0), (0, RANKS - units.shape[1]))
            found.append(np.pad(units, padding, constant_values=NO_UNIT))
    return ClassAnswers(_grouped(truth, kept), _joined(found, truth))


def _grouped(truth: Array, kept: KeptUnits) -> Array:
    return np.where(truth >= 0, kept.group[np.maximum(truth, 0)], truth)


def _joined(rows: Sequence[Array], truth: Array) -> Array:
    """One row per labeled sample: the last feed of a fixed batch repeats the first samples.

    Raises:
        UsageError: a sample of the data is a batch, and has one label.
    """
    every = np.concatenate(rows)
    if not 0 <= len(every) - len(truth) < len(rows[-1]):
        raise not_measurable(
            f"{len(truth)} labels for {len(every)} answers",
            "give one label for each sample, and samples without a batch dimension",
        )
    return every[: len(truth)]


def original_labels(
    subject: Subject, truth: Array, active_above: float
) -> tuple[LabelAnswers, LabelAnswers]:
    """As `original_classes`, for samples with any number of labels.

    Args:
        subject: the original and its samples.
        truth: (samples, units) bool.
        active_above: a unit with a higher score is predicted.
    """
    _check_memory(truth)
    kept, scores = subject.kept, subject.scores
    every = []
    for outputs, rows in run_on(scores.model, subject.samples, subject.options):
        found = scores.every_unit(outputs, rows)
        found[:, kept.merged_order] = scores.kept_units(outputs, rows)
        every.append(_without_nan(found))
    wanted, joined = _grouped_labels(truth, kept), _joined(every, truth)
    returned = np.ones(kept.units, bool)
    return (
        LabelAnswers(wanted, joined, returned, active_above),
        LabelAnswers(wanted, joined, kept.is_kept, active_above),
    )


def artifact_labels(
    subject: Subject, artifact: Model, truth: Array, active_above: float
) -> LabelAnswers:
    """As `artifact_classes`, for samples with any number of labels.

    Raises:
        UsageError: the file returns indices only.
    """
    kept, scores = subject.kept, subject.scores_of(artifact)
    if scores is None:
        raise not_measurable(
            f"{artifact.name} returns indices, and samples with several labels need scores",
            "export the model with its scores as an output",
        )
    found = []
    for outputs, rows in run_on(artifact, subject.samples, subject.options):
        wide = np.full((rows, kept.units), -np.inf)
        wide[:, kept.at_position] = scores.positions(outputs, rows)
        found.append(_without_nan(wide))
    wanted = _grouped_labels(truth, kept)
    return LabelAnswers(wanted, _joined(found, truth), kept.is_kept, active_above)


def _without_nan(scores: Array) -> Array:
    """The scores in float32, with the lowest number for NaN and minus infinity."""
    lowest = float(np.finfo(np.float32).min)
    return np.maximum(np.where(np.isnan(scores), lowest, scores), lowest).astype(np.float32)


def _grouped_labels(truth: Array, kept: KeptUnits) -> Array:
    """A sample has a merged unit if it has one of its members."""
    wanted = np.zeros_like(truth)
    for unit, lowest in enumerate(kept.group.tolist()):
        wanted[:, lowest] |= truth[:, unit]
    return wanted


def _check_memory(truth: Array) -> None:
    if truth.size > _LARGEST_SCORES:
        most = _LARGEST_SCORES // truth.shape[1]
        raise UsageError(
            f"the scores of {len(truth)} samples with several labels each do not fit in memory",
            f"use --samples {most} or fewer",
        )
