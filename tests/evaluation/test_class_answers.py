"""Measures of a classifier: held against scikit-learn, and against counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    top_k_accuracy_score,
)

from exporter.evaluation.class_answers import NO_UNIT, ClassAnswers, LabelAnswers, rank
from exporter.graph import Array

UNITS = 9
RANDOM = np.random.default_rng(7)
SCORES = RANDOM.normal(size=(80, UNITS))
TRUTH = np.where(RANDOM.random(80) < 0.5, SCORES.argmax(axis=1), RANDOM.integers(0, UNITS, 80))
EVERY = np.arange(80)
ALL = np.arange(UNITS)
SEVERAL = RANDOM.random((80, UNITS)) < 0.3


def answers(scores: Array = SCORES, truth: Array = TRUTH) -> ClassAnswers:
    return ClassAnswers(truth, rank(scores, np.arange(scores.shape[1])))


@pytest.mark.parametrize("cases", [EVERY, EVERY[:30], np.repeat(EVERY[5:15], 3)])
def test_accuracy_and_f1_are_scikit_learns(cases: Array) -> None:
    truth, first = TRUTH[cases], SCORES[cases].argmax(axis=1)
    found = answers()
    assert found.value("accuracy", cases, ALL) == pytest.approx(accuracy_score(truth, first))
    assert found.value("macro_f1", cases, ALL) == pytest.approx(
        f1_score(truth, first, average="macro", labels=np.unique(truth))
    )
    assert found.value("top5_accuracy", cases, ALL) == pytest.approx(
        top_k_accuracy_score(truth, SCORES[cases], k=5, labels=ALL)
    )


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param([0.1, 0.7, 0.2], [11, 12, 10], id="the best first"),
        pytest.param([0.5, 0.5, 0.1], [10, 11, 12], id="of equal scores the first"),
        pytest.param([0.5, math.nan, 0.1], [NO_UNIT] * 3, id="NaN names no unit"),
        pytest.param([-math.inf, -math.inf, -2.0], [12, 10, 11], id="masked units rank last"),
    ],
)
def test_ranks(scores: list[float], expected: list[int]) -> None:
    ranked = rank(np.array([scores]), np.array([10, 11, 12]))
    assert ranked.tolist() == [[*expected, NO_UNIT, NO_UNIT]]


def test_no_unit_is_wrong() -> None:
    """An unknown label and a model that returns NaN do not agree."""
    found = ClassAnswers(np.array([-1, 0]), rank(np.array([[1.0, math.nan], [1.0, 0.0]]), ALL[:2]))
    both = np.arange(2)
    assert found.value("accuracy", both, ALL) == 0.5
    assert found.value("top5_accuracy", both, ALL) == 0.5
    assert found.value("macro_f1", both, ALL) == 1.0  # of the one unit that has a sample
    assert found.value("macro_f1", both[:1], ALL) == 0.0


@pytest.mark.parametrize("units", [ALL, ALL[2:5]])
def test_several_labels_are_measured_by_scikit_learn(units: Array) -> None:
    found = LabelAnswers(SEVERAL, SCORES, np.ones(UNITS, bool), 0.0)
    truth, scores = SEVERAL[:, units], SCORES[:, units]
    assert found.value("mean_average_precision", EVERY, units) == pytest.approx(
        average_precision_score(truth, scores, average="macro")
    )
    assert found.value("multilabel_macro_f1", EVERY, units) == pytest.approx(
        f1_score(truth, scores > 0, average="macro")
    )


def test_a_unit_that_the_model_lacks_has_an_average_precision_of_0() -> None:
    returned = np.arange(UNITS) < 4
    found = LabelAnswers(SEVERAL, SCORES, returned, 0.0)
    complete = LabelAnswers(SEVERAL, SCORES, np.ones(UNITS, bool), 0.0)
    for measure in ("mean_average_precision", "multilabel_macro_f1"):
        of_four = complete.value(measure, EVERY, ALL[:4])
        assert found.value(measure, EVERY, ALL[:4]) == of_four
        assert found.value(measure, EVERY, ALL) == pytest.approx(of_four * 4 / UNITS)
        assert found.value(measure, EVERY, ALL[4:]) == 0.0


def test_units_without_samples_have_no_value() -> None:
    nothing = LabelAnswers(np.zeros((3, 2), bool), SCORES[:3, :2], np.ones(2, bool), 0.0)
    assert math.isnan(nothing.value("mean_average_precision", np.arange(3), np.arange(2)))
