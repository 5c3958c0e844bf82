"""One row of numbers per unit: how often it is predicted, and how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array

_MOST_CORRELATED = 10_000  # units, each of which is compared with the others
_ROUNDING = 1e-9  # by which the computed correlation of equal scores may be below 1
UNLABELED = -1  # the class of a sample whose label is not a unit of the model


@dataclass(frozen=True)
class UnitRow:
    """The statistics of one unit; None for a number that was not measured.

    Attributes:
        count: how many samples it was the top-1 of, or how often a count file names it; of a
            detector, in how many samples it was detected.
        support: how many samples have its label.
        precision, recall, f1: of its top-1 predictions against the labels.
        average_precision: area under its precision-recall curve, over all samples.
        active: the share of samples with a probability above 0.5; above 0 for other outputs.
        norm: Euclidean norm of its weights in the kernel.
    """

    unit: int
    label: str
    count: int
    support: int | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    average_precision: float | None = None
    active: float | None = None
    norm: float | None = None


QUALITY = ("support", "precision", "recall", "f1", "average_precision")  # need labels
MEASURES: tuple[str, ...] = tuple(
    f.name for f in fields(UnitRow) if f.name not in {"unit", "label"}
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """The outputs of a model on samples.

    Attributes:
        scores: (samples, units) float32.
        truth: (samples,) unit index of each label, UNLABELED if it is not a unit; None without
            labels.
        active_above: a unit with a score above this is active in a sample.
        is_detector: a score belongs to the best box, 0 without one. A sample has any number of
            units: every active one is counted.
    """

    scores: Array
    truth: Array | None = None
    active_above: float = 0.5
    is_detector: bool = False

    @property
    def counts(self) -> Array:
        """(units,) how many samples each unit was predicted for."""
        if self.is_detector:
            return np.asarray((self.scores > self.active_above).sum(axis=0))
        return np.bincount(self.top1, minlength=self.scores.shape[1])

    @property
    def top1(self) -> Array:
        """(samples,) the unit with the largest score; of equal ones the first."""
        return np.asarray(self.scores.argmax(axis=1))


def unit_table(
    predictions: Predictions, labels: Sequence[str] | None, norms: Array | None = None
) -> tuple[UnitRow, ...]:
    """The statistics of every unit.

    For example, a unit that is the top-1 of 10 samples, 8 of them with its label, has a precision
    of 0.8. If 16 samples have its label, its recall is 0.5.

    Args:
        labels: one per unit; None if the model has none.
        norms: (units,) of the weights in the kernel; None if they were not computed.
    """
    units = predictions.scores.shape[1]
    counts = predictions.counts
    measured = {"active": (predictions.scores > predictions.active_above).mean(axis=0)}
    if predictions.truth is not None:
        measured |= _quality(predictions, units)
    if norms is not None:
        measured["norm"] = norms
    rows = []
    for unit in range(units):
        values: dict[str, Any] = {name: values[unit].item() for name, values in measured.items()}
        rows.append(UnitRow(unit, labels[unit] if labels else "", int(counts[unit]), **values))
    return tuple(rows)


def count_table(
    counts: Mapping[int, int], units: int, labels: Sequence[str] | None
) -> tuple[UnitRow, ...]:
    """A row per unit that has only a count."""
    return tuple(UnitRow(u, labels[u] if labels else "", counts.get(u, 0)) for u in range(units))


def _quality(predictions: Predictions, units: int) -> Mapping[str, Array]:
    """Precision, recall, F1, support and average precision, by scikit-learn."""
    from sklearn.metrics import (  # noqa: PLC0415 - an optional library, and a second to import
        average_precision_score,
        precision_recall_fscore_support,
    )

    truth = np.asarray(predictions.truth)
    if not (truth >= 0).any():
        raise UsageError(
            "no sample has the label of a unit", "check --labels and the data's labels"
        )
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predictions.top1, labels=range(units), average=None, zero_division=0.0
    )
    is_class = truth[:, np.newaxis] == np.arange(units)
    present = support > 0
    average = np.zeros(units)
    average[present] = average_precision_score(
        is_class[:, present], predictions.scores[:, present], average=None
    )
    return {
        "support": support,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "average_precision": average,
    }


def confusion(predictions: Predictions) -> Mapping[tuple[int, int], int]:
    """(label, top-1) -> how many labeled samples, for wrong predictions only."""
    truth, top1 = np.asarray(predictions.truth), predictions.top1
    wrong = (truth >= 0) & (truth != top1)
    pairs, counts = np.unique(np.stack([truth[wrong], top1[wrong]]), axis=1, return_counts=True)
    return {(int(a), int(b)): int(n) for (a, b), n in zip(pairs.T, counts, strict=True)}


def reassigned(predictions: Predictions, kept: Sequence[int]) -> Mapping[int, Mapping[int, int]]:
    """For each removed unit: the kept units that its samples are predicted as after the cut.

    A sample belongs to its label if there are labels, else to its top-1 of before.
    """
    before = predictions.top1 if predictions.truth is None else np.asarray(predictions.truth)
    chosen, is_kept = np.asarray(kept), set(kept)
    after = chosen[predictions.scores[:, chosen].argmax(axis=1)]
    found: dict[int, dict[int, int]] = {}
    for unit, new in zip(before.tolist(), after.tolist(), strict=True):
        if unit >= 0 and unit not in is_kept:
            row = found.setdefault(unit, {})
            row[new] = row.get(new, 0) + 1
    return {
        unit: dict(sorted(row.items(), key=lambda e: -e[1])) for unit, row in sorted(found.items())
    }


def confusion_groups(
    confused: Mapping[tuple[int, int], int], rows: Sequence[UnitRow], rate: float
) -> tuple[tuple[int, ...], ...]:
    """Groups of units that are confused with each other so often that merging them may help.

    Two units are linked if at least `rate` of the samples with either label are predicted as the
    other unit. A group is all units that links connect. For example, with a rate of 0.1, cat and
    lynx are linked if 12 of their 100 labeled samples are mixed up.
    """
    from scipy.sparse import coo_array  # noqa: PLC0415 - an optional library
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415 - likewise

    both: dict[tuple[int, int], int] = {}
    for (label, predicted), count in confused.items():
        pair = (min(label, predicted), max(label, predicted))
        both[pair] = both.get(pair, 0) + count
    linked = [
        (a, b)
        for (a, b), count in both.items()
        if count >= rate * ((rows[a].support or 0) + (rows[b].support or 0))
    ]
    if not linked:
        return ()
    firsts, seconds = zip(*linked, strict=True)
    shape = (len(rows), len(rows))
    _, numbers = connected_components(coo_array((np.ones(len(linked)), (firsts, seconds)), shape))
    groups = [tuple(np.flatnonzero(numbers == n).tolist()) for n in dict.fromkeys(numbers.tolist())]
    return tuple(group for group in groups if len(group) > 1)


def redundant(predictions: Predictions, correlation: float) -> Mapping[int, tuple[int, float]]:
    """Units whose scores follow those of a more frequent unit: unit -> (that unit, correlation).

    The units are visited from the most frequent top-1 down; a unit is redundant if its Pearson
    correlation with one that is not redundant is at least `correlation`. Constant scores correlate
    with nothing.

    Raises:
        UsageError: more than 10,000 units.
    """
    if predictions.scores.shape[1] > _MOST_CORRELATED:
        raise UsageError(
            f"correlations of {predictions.scores.shape[1]} units take too long",
            f"use another criterion; at most {_MOST_CORRELATED} units are compared",
        )
    counts = predictions.counts
    order = np.argsort(-counts, kind="stable")
    rows = predictions.scores.T[order].astype(np.float64, order="C")
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    np.divide(rows, lengths, out=rows, where=lengths > 0)
    chosen: list[int] = []
    found: dict[int, tuple[int, float]] = {}
    for unit, row in zip(order.tolist(), rows, strict=True):
        values = rows[: len(chosen)] @ row
        if chosen and values.max() >= correlation - _ROUNDING:
            found[unit] = (chosen[int(values.argmax())], float(values.max()))
        else:
            rows[len(chosen)] = row  # the chosen rows are the first ones; later rows are not moved
            chosen.append(unit)
    return found
