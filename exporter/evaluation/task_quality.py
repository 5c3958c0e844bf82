"""Compare the task quality of a new file with its original, on labeled samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from exporter.evaluation import intervals
from exporter.evaluation.measures import DROP, MEASURES, QUALITY_STAGE, gated_measure, score
from exporter.graph import Array
from exporter.records import Check, Interval, Quality


class TaskAnswers(Protocol):
    """What a model returned for all samples, ready to be measured."""

    def value(self, measure: str, cases: Array, units: Array) -> float:
        """A measure on some of the samples; NaN if it is not defined on them.

        Args:
            measure: key of MEASURES.
            cases: (cases,) indices of samples; may repeat.
            units: the units to average over, where a measure is a mean over units.
        """


@dataclass(frozen=True, eq=False)
class Group:
    """The samples that are reported together.

    Attributes:
        classes: "kept", "removed" or "all".
        cases: indices of the samples.
        units: the units of these classes.
        samples: how many there are: samples, or for detectors true boxes.
    """

    classes: str
    cases: Array
    units: Array
    samples: int


@dataclass(frozen=True, eq=False)
class BeforeAndAfter:
    """The answers of the original and of a new file on the same samples.

    Attributes:
        original: over all its units.
        original_kept: the original's, if it could name the kept units only.
        artifact: of the new file.
    """

    original: TaskAnswers
    original_kept: TaskAnswers
    artifact: TaskAnswers


def quality_rows(
    artifact: str, answers: BeforeAndAfter, measures: Sequence[str], groups: Iterable[Group]
) -> tuple[Quality, ...]:
    """One row for each measure and group of samples, in this order."""
    by_group = [list(_rows(artifact, answers, measures, group)) for group in groups]
    return tuple(rows[i] for i in range(len(measures)) for rows in by_group)


def _rows(
    artifact: str, answers: BeforeAndAfter, measures: Sequence[str], group: Group
) -> Iterator[Quality]:
    """One row for each measure; all intervals are from the same resamples."""
    models = [answers.original, answers.original_kept, answers.artifact]

    def values(cases: Array) -> list[float]:
        found: list[float] = []
        for measure in measures:
            original, kept, after = (each.value(measure, cases, group.units) for each in models)
            found += [original, kept, after, score(measure, kept) - score(measure, after)]
        return found

    if not group.samples:
        for measure in measures:
            yield Quality(artifact, MEASURES[measure].task, measure, group.classes, 0)
        return
    exact, limits = values(group.cases), list[Interval | None]([None] * (4 * len(measures)))
    if resamples := _resamples(measures, group):
        limits = intervals.bootstrap(values, group.cases, resamples)
    for i, measure in enumerate(measures):
        four = slice(4 * i, 4 * i + 4)
        yield _row(artifact, measure, group, exact[four], limits[four])


def _resamples(measures: Iterable[str], group: Group) -> int:
    """How many resamples take seconds, not minutes; 0 if they are too few for an interval."""
    of_units = any(MEASURES[measure].of_units for measure in measures)
    work = len(group.cases) * (len(group.units) if of_units else 1)
    most = min(_RESAMPLES_OF_UNITS if of_units else _RESAMPLES, _MOST_WORK // max(1, work))
    return most if most >= _FEWEST_RESAMPLES else 0


_RESAMPLES, _RESAMPLES_OF_UNITS, _FEWEST_RESAMPLES = 1000, 100, 20
_MOST_WORK = 40_000_000  # samples x units x resamples


def _row(
    artifact: str,
    measure: str,
    group: Group,
    values: Sequence[float],
    limits: list[Interval | None],
) -> Quality:
    """The row of four values: of the original, of it with kept units, of the artifact, the drop."""
    exact = [value if math.isfinite(value) else None for value in values]
    if MEASURES[measure].is_share:
        limits[:3] = [_share(value, len(group.cases)) for value in exact[:3]]
    is_kept = group.classes == "kept"  # else the original, kept to these units, answers nothing
    return Quality(
        artifact=artifact,
        task=MEASURES[measure].task,
        measure=measure,
        classes=group.classes,
        samples=group.samples,
        original=exact[0],
        original_ci95=limits[0],
        original_kept=exact[1] if is_kept else None,
        original_kept_ci95=limits[1] if is_kept else None,
        value=exact[2],
        ci95=limits[2],
        drop=exact[3] if is_kept else None,
        drop_ci95=limits[3] if is_kept else None,
    )


def _share(value: float | None, count: int) -> Interval | None:
    return None if value is None else intervals.of_share(round(value * count), count)


def gate_checks(
    rows: Iterable[Quality], output: str, min_accuracy: float | None, max_drop: float | None
) -> Iterator[Check]:
    """A check for each gate: on the samples of kept classes. A missing value fails."""
    row = next(each for each in rows if each.classes == "kept")
    measure = gated_measure(row.task)
    accuracy = None if row.value is None else score(measure, row.value)
    name = measure if MEASURES[measure].higher_is_better else f"1 - {measure}"
    reached = accuracy is not None and min_accuracy is not None and accuracy >= min_accuracy
    near = row.drop is not None and max_drop is not None and row.drop <= max_drop + _ROUNDING
    for metric, value, limit, passed in (
        (name, accuracy, min_accuracy, reached),
        (DROP, row.drop, max_drop, near),
    ):
        if limit is not None:
            stage, count = QUALITY_STAGE, row.samples
            yield Check(
                stage, row.artifact, output, metric, value, limit, passed, count, limit_from="user"
            )


_ROUNDING = 1e-12  # of the difference of two shares: 0.9 - 0.89 is a little more than 0.01


def groups_of_cases(known: Array, kept: Array, is_kept: Array) -> tuple[Group, ...]:
    """Samples of kept, of removed and of all classes; samples of no unit are in "all" only.

    Args:
        known: (samples,) bool: its classes are units.
        kept: (samples,) bool: its classes are kept units.
        is_kept: (units,) bool.
    """
    masks = {"kept": kept, "removed": known & ~kept, "all": np.ones_like(known)}
    return tuple(
        Group(name, np.flatnonzero(masks[name]), units, int(masks[name].sum()))
        for name, units in _units(is_kept).items()
    )


def groups_of_units(
    samples: int, is_kept: Array, count: Callable[[Array], int]
) -> tuple[Group, ...]:
    """All samples, with the units of kept, of removed and of all classes.

    Args:
        is_kept: (units,) bool.
        count: (units,) bool -> how many samples or true boxes these units have.
    """
    return tuple(
        Group(name, np.arange(samples), units, count(np.isin(np.arange(len(is_kept)), units)))
        for name, units in _units(is_kept).items()
    )


def _units(is_kept: Array) -> dict[str, Array]:
    masks = {"kept": is_kept, "removed": ~is_kept, "all": np.ones_like(is_kept)}
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def class_groups(truth: Array, is_kept: Array) -> tuple[Group, ...]:
    """Groups of samples with one class each.

    Args:
        truth: (samples,) the unit of each sample, -1 for another label.
        is_kept: (units,) bool.
    """
    known = truth >= 0
    return groups_of_cases(known, known & is_kept[np.maximum(truth, 0)], is_kept)


def label_groups(truth: Array, is_kept: Array) -> tuple[Group, ...]:
    """Groups by units; the count is the number of samples with at least one of these units.

    Args:
        truth: (samples, units) bool, or numbers of pixels.
        is_kept: (units,) bool.
    """
    return groups_of_units(len(truth), is_kept, lambda mask: int(truth[:, mask].any(axis=1).sum()))
