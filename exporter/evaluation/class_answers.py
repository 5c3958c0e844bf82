"""The answers of a classifier, and their quality on labeled samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from exporter.graph import Array

RANKS = 5  # how many units per sample are kept
NO_UNIT = -2  # where a model returns no unit, or NaN; never a label, which is -1 at least


def rank(scores: Array, units: Array) -> Array:
    """(samples, RANKS) the units with the largest scores, the best first.

    Equal scores rank by position, as on a device. A sample with NaN ranks no unit.

    Args:
        scores: (samples, positions).
        units: (positions,) the unit of each position.
    """
    ranked = np.full((len(scores), RANKS), NO_UNIT)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :RANKS]
    ranked[:, : order.shape[1]] = units[order]
    ranked[np.isnan(scores).any(axis=1)] = NO_UNIT
    return ranked


@dataclass(frozen=True, eq=False)
class ClassAnswers:
    """The units that a model ranks first, for samples of one class each.

    Attributes:
        truth: (samples,) the unit of each sample; -1 if its label is no unit.
        ranked: (samples, RANKS), as `rank` returns them.
    """

    truth: Array
    ranked: Array

    def value(self, measure: str, cases: Array, _units: Array) -> float:
        """The measure on some of the samples."""
        return _OF_CLASSES[measure](self.truth[cases], self.ranked[cases])


def accuracy(truth: Array, ranked: Array) -> float:
    """The share of samples whose first unit is the label."""
    return float((ranked[:, 0] == truth).mean())


def top5_accuracy(truth: Array, ranked: Array) -> float:
    """The share of samples whose label is among the first five units."""
    return float((ranked == truth[:, np.newaxis]).any(axis=1).mean())


def macro_f1(truth: Array, ranked: Array) -> float:
    """The mean F1 of the units that have samples, as scikit-learn's `f1_score(labels=them)`.

    F1 = 2 true positives / (samples of the unit + predictions of the unit). It is written out
    because the bootstrap evaluates it a thousand times, and scikit-learn checks its inputs anew.
    """
    first = ranked[:, 0]
    width = int(max(truth.max(initial=0), first.max(initial=0))) + 1
    support, predicted, correct = (
        np.bincount(units[units >= 0], minlength=width)
        for units in (truth, first, truth[truth == first])
    )
    present = support > 0
    if not present.any():
        return 0.0
    return float((2 * correct[present] / (support + predicted)[present]).mean())


_OF_CLASSES: Mapping[str, Callable[[Array, Array], float]] = {
    "accuracy": accuracy,
    "top5_accuracy": top5_accuracy,
    "macro_f1": macro_f1,
}


@dataclass(frozen=True, eq=False)
class LabelAnswers:
    """The scores of a model, for samples that each have any number of labels.

    Attributes:
        truth: (samples, units) bool.
        scores: (samples, units); the lowest number where a model does not return the unit.
        returned: (units,) bool: the model returns a score for it.
        active_above: a unit with a higher score is predicted.
    """

    truth: Array
    scores: Array
    returned: Array
    active_above: float

    def value(self, measure: str, cases: Array, units: Array) -> float:
        """The mean over those of the units that some of these samples have; NaN without any."""
        truth = self.truth[np.ix_(cases, units)]
        present = truth.any(axis=0)
        if not present.any():
            return float("nan")
        wanted, chosen = truth[:, present], units[present]
        scores = self.scores[np.ix_(cases, chosen)]
        found = _OF_LABELS[measure](wanted, scores, self.active_above)
        return float(np.where(self.returned[chosen], found, 0.0).mean())


def _average_precision(truth: Array, scores: Array, _active_above: float) -> Array:
    from sklearn.metrics import average_precision_score  # noqa: PLC0415 - an optional library

    return np.atleast_1d(average_precision_score(truth, scores, average=None))


def _f1(truth: Array, scores: Array, active_above: float) -> Array:
    active = scores > active_above
    both = (truth & active).sum(axis=0)
    return np.asarray(2 * both / (truth.sum(axis=0) + active.sum(axis=0)))


_OF_LABELS: Mapping[str, Callable[[Array, Array, float], Array]] = {
    "mean_average_precision": _average_precision,
    "multilabel_macro_f1": _f1,
}
