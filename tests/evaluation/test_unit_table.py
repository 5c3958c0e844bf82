"""Statistics of units: held against counts that are made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.evaluation.unit_table import (
    UNLABELED,
    Predictions,
    UnitRow,
    confusion,
    confusion_groups,
    count_table,
    reassigned,
    redundant,
    unit_table,
)

SCORES = np.array(
    [
        [0.9, 0.1, 0.0, 0.0],
        [0.8, 0.2, 0.0, 0.0],
        [0.1, 0.7, 0.2, 0.0],
        [0.6, 0.3, 0.1, 0.0],
        [0.0, 0.1, 0.9, 0.0],
    ],
    np.float32,
)
TRUTH = np.array([0, 0, 1, 1, 2])  # the fourth sample is predicted as 0


def test_counts_without_labels() -> None:
    rows = unit_table(Predictions(SCORES), ("a", "b", "c", "d"))
    assert [(row.label, row.count) for row in rows] == [("a", 3), ("b", 1), ("c", 1), ("d", 0)]
    assert {row.f1 for row in rows} == {None}


def test_precision_recall_and_f1() -> None:
    a, b, c, d = unit_table(Predictions(SCORES, TRUTH), None)
    assert (a.support, b.support, c.support, d.support) == (2, 2, 1, 0)
    assert a.precision == pytest.approx(2 / 3)
    assert a.recall == 1.0
    assert (b.precision, b.recall) == (1.0, 0.5)
    assert b.f1 == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert (c.precision, c.recall, c.f1) == (1.0, 1.0, 1.0)
    assert (d.precision, d.recall, d.f1) == (0.0, 0.0, 0.0)


def test_average_precision_follows_the_ranking_of_a_unit() -> None:
    """Ranked by the score of unit 1: samples 2 (right), 3 (right), 1, 0 or 4: both come first."""
    rows = unit_table(Predictions(SCORES, TRUTH), None)
    assert rows[1].average_precision == 1.0
    # unit 0: samples 0 and 1 (right) rank first
    assert rows[0].average_precision == 1.0
    worse = np.array([0, 1, 1, 0, 2])  # now ranks 1 and 3 are right: (1/1 + 2/3) / 2
    assert unit_table(Predictions(SCORES, worse), None)[0].average_precision == pytest.approx(5 / 6)


def test_samples_of_other_classes_count_as_wrong() -> None:
    truth = np.array([0, UNLABELED, 1, 1, 2])
    assert unit_table(Predictions(SCORES, truth), None)[0].precision == pytest.approx(1 / 3)


def test_no_known_label_is_refused() -> None:
    with pytest.raises(UsageError, match="no sample has the label of a unit"):
        unit_table(Predictions(SCORES, np.full(5, UNLABELED)), None)


def test_confusion_lists_wrong_predictions_only() -> None:
    assert confusion(Predictions(SCORES, TRUTH)) == {(1, 0): 1}
    assert confusion(Predictions(SCORES, np.array([0, 0, 1, 0, 2]))) == {}


@pytest.mark.parametrize(
    ("truth", "kept", "expected"),
    [
        pytest.param(TRUTH, [0, 2], {1: {2: 1, 0: 1}}, id="by label"),
        pytest.param(None, [1, 2], {0: {1: 3}}, id="without labels, by the top-1 of before"),
        pytest.param(TRUTH, [0, 1, 2, 3], {}, id="nothing removed"),
    ],
)
def test_samples_of_removed_units_move(
    truth: np.ndarray | None, kept: list[int], expected: dict[int, dict[int, int]]
) -> None:
    assert reassigned(Predictions(SCORES, truth), kept) == expected


def test_count_table() -> None:
    rows = count_table({2: 7}, 3, ("a", "b", "c"))
    assert [(row.unit, row.label, row.count) for row in rows] == [
        (0, "a", 0),
        (1, "b", 0),
        (2, "c", 7),
    ]


def test_activity_is_the_share_of_samples_above_the_threshold() -> None:
    rows = unit_table(Predictions(SCORES), None)
    assert [row.active for row in rows] == pytest.approx([0.6, 0.2, 0.2, 0.0])
    low = unit_table(Predictions(SCORES, active_above=0.15), None)
    assert [row.active for row in low] == pytest.approx([0.6, 0.6, 0.4, 0.0])


def test_norms_are_passed_on() -> None:
    rows = unit_table(Predictions(SCORES), None, np.array([1.0, 2.0, 3.0, 4.0]))
    assert [row.norm for row in rows] == [1.0, 2.0, 3.0, 4.0]


SUPPORTED = tuple(UnitRow(unit, "", 0, support=50) for unit in range(6))


@pytest.mark.parametrize(
    ("confused", "groups"),
    [
        pytest.param({}, (), id="nothing confused"),
        pytest.param({(0, 1): 9}, (), id="9 of 100: too rare"),
        pytest.param({(0, 1): 10}, ((0, 1),), id="10 of 100"),
        pytest.param({(0, 1): 5, (1, 0): 5}, ((0, 1),), id="in both directions"),
        pytest.param({(1, 3): 20, (3, 5): 20}, ((1, 3, 5),), id="a chain is one group"),
        pytest.param({(0, 1): 50, (4, 2): 50}, ((0, 1), (2, 4)), id="two groups"),
    ],
)
def test_confusion_groups(
    confused: dict[tuple[int, int], int], groups: tuple[tuple[int, ...], ...]
) -> None:
    assert confusion_groups(confused, SUPPORTED, 0.1) == groups


def test_units_that_follow_a_more_frequent_one_are_redundant() -> None:
    random = np.random.default_rng(0)
    first, other = random.normal(size=(2, 40))
    noise = random.normal(size=40) * 1e-3
    scores = np.stack([first, other, 2 * first + 5 + noise, np.full(40, -9.0), -first - 9], axis=1)
    found = redundant(Predictions(scores.astype(np.float32)), 0.99)
    assert found.keys() == {0}, "unit 2 is the top-1 more often, a constant follows nothing"
    twin, value = found[0]
    assert twin == 2
    assert value == pytest.approx(np.corrcoef(scores[:, 0], scores[:, 2])[0, 1], abs=1e-5)
    assert redundant(Predictions(scores.astype(np.float32)), 1.1) == {}


def test_equal_scores_have_a_correlation_of_1() -> None:
    """Rounding must not hide an exact copy; each copy names a unit that is kept."""
    random = np.random.default_rng(3)
    scores = np.repeat(random.normal(size=(50, 20)), 2, axis=1).astype(np.float32)
    found = redundant(Predictions(scores), 1.0)
    assert len(found) == 20
    assert all(unit // 2 == twin // 2 and twin not in found for unit, (twin, _) in found.items())


def test_correlations_are_those_of_numpy() -> None:
    random = np.random.default_rng(4)
    scores = random.normal(size=(30, 3)) @ random.normal(size=(3, 12))
    predictions = Predictions(scores.astype(np.float32))
    expected = np.asarray(np.corrcoef(scores.astype(np.float32), rowvar=False))
    found = redundant(predictions, 0.7)
    chosen = [unit for unit in range(12) if unit not in found]
    assert found
    assert len(chosen) > 1
    for unit, (twin, value) in found.items():
        assert value == pytest.approx(expected[unit, twin])
        assert value >= 0.7
    pairs = expected[np.ix_(chosen, chosen)] - 2 * np.eye(len(chosen))
    assert pairs.max() < 0.7


def test_correlations_of_too_many_units_are_refused() -> None:
    wide = Predictions(np.zeros((1, 10_001), np.float32))
    with pytest.raises(UsageError, match="10001 units"):
        redundant(wide, 0.9)
