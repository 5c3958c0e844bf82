"""Criteria: which units they keep, and the reason that each unit gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from exporter.errors import UsageError
from exporter.evaluation.criteria import Criteria, decide
from exporter.evaluation.unit_table import UnitRow

ROWS = (
    UnitRow(
        0, "a", count=50, support=40, precision=0.8, recall=1.0, f1=0.89, average_precision=0.9
    ),
    UnitRow(
        1, "b", count=30, support=40, precision=0.5, recall=0.4, f1=0.44, average_precision=0.5
    ),
    UnitRow(2, "c", count=15, support=15, precision=1.0, recall=1.0, f1=1.0, average_precision=1.0),
    UnitRow(3, "d", count=5, support=0, precision=0.0, recall=0.0, f1=0.0, average_precision=0.0),
)
COUNTED = tuple(UnitRow(row.unit, row.label, row.count) for row in ROWS)

KEPT = {
    "f1": (Criteria(at_least=(("f1", 0.6),)), (0, 2)),
    "equal to the limit": (Criteria(at_least=(("f1", 1.0),)), (2,)),
    "two limits": (Criteria(at_least=(("recall", 0.4), ("count", 20))), (0, 1)),
    "top by recall": (Criteria(top=2, by="recall"), (0, 2)),
    "equal values rank by index": (Criteria(top=1, by="recall"), (0,)),
    "top by count": (Criteria(top=3), (0, 1, 2)),
    "more than there are": (Criteria(top=9), (0, 1, 2, 3)),
    "coverage": (Criteria(coverage=0.8), (0, 1)),
    "coverage just missed": (Criteria(coverage=0.81), (0, 1, 2)),
    "a coverage of no units": (Criteria(coverage=0.001), (0,)),
    "coverage of all": (Criteria(coverage=1.0), (0, 1, 2, 3)),
    "a limit before the top": (Criteria(at_least=(("f1", 0.4),), top=2, by="precision"), (0, 2)),
}


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    criteria, kept = KEPT[name]
    decisions = decide(ROWS, criteria)
    assert tuple(each.unit for each in decisions) == (0, 1, 2, 3)
    assert tuple(each.unit for each in decisions if each.kept) == kept
    assert all(each.reason for each in decisions)


def test_a_share_that_is_reached_exactly_needs_no_further_unit() -> None:
    """0.07 * 100 is 7.000000000000001 in floating point."""
    rows = (UnitRow(0, "", 7), *(UnitRow(unit, "", 3) for unit in range(1, 32)))
    decisions = decide(rows, Criteria(coverage=0.07))
    assert [each.unit for each in decisions if each.kept] == [0]


def test_redundant_units_are_removed_first() -> None:
    decisions = decide(ROWS, Criteria(max_correlation=0.9, top=2), {0: (1, 0.95)})
    assert [each.kept for each in decisions] == [False, True, True, False]
    assert decisions[0].reason == "correlation 0.95 with unit 1"
    assert decisions[1].reason == "not redundant, rank 1 of 3 by count (30)"


def test_reasons_contain_the_number() -> None:
    decisions = decide(ROWS, Criteria(at_least=(("f1", 0.6),)))
    assert [each.reason for each in decisions[:2]] == ["f1 0.89 >= 0.6", "f1 0.44 < 0.6"]
    ranked = decide(ROWS, Criteria(top=1, by="count"))
    assert ranked[1].reason == "rank 2 of 4 by count (30)"
    both = decide(ROWS, Criteria(at_least=(("f1", 0.6),), top=1))
    assert both[2].reason == "f1 1 >= 0.6, rank 2 of 2 by count (15)"


def test_counts_are_written_with_all_digits() -> None:
    (kept, _) = decide(
        (UnitRow(0, "a", 1234567), UnitRow(1, "b", 3)), Criteria((("count", 1e6),), top=1)
    )
    assert kept.reason == "count 1234567 >= 1000000, rank 1 of 1 by count (1234567)"


REFUSED: Mapping[str, tuple[Callable[[], object], str]] = {
    "no criterion": (Criteria, "no criterion is given"),
    "no such measure": (
        lambda: Criteria(at_least=(("beauty", 1.0),)),
        "there is no measure 'beauty'",
    ),
    "an order without a number": (
        lambda: Criteria(coverage=0.5, by="f1"),
        "--top, which is missing",
    ),
    "nothing at the top": (lambda: Criteria(top=-1), "--top is -1"),
    "no unit at the top": (lambda: Criteria(top=0), "--top is 0"),
    "a share above 1": (lambda: Criteria(coverage=1.5), "1.5 is not a share"),
    "no share": (lambda: Criteria(coverage=0.0), "0.0 is not a share"),
    "no correlation": (lambda: Criteria(max_correlation=0.0), "0.0 is not a correlation"),
    "a correlation above 1": (lambda: Criteria(max_correlation=1.5), "1.5 is not a correlation"),
    "counts do not correlate": (
        lambda: decide(COUNTED, Criteria(max_correlation=0.9)),
        "correlations need the model",
    ),
    "no unit passes": (lambda: decide(ROWS, Criteria(at_least=(("count", 99),))), "no unit passes"),
    "labels are needed": (
        lambda: decide(COUNTED, Criteria(at_least=(("f1", 0.5),))),
        "f1 needs labeled data",
    ),
    "the model is needed": (
        lambda: decide(COUNTED, Criteria(top=1, by="norm")),
        "norm needs the model",
    ),
    "nothing counted": (
        lambda: decide((UnitRow(0, "a", 0),), Criteria(coverage=0.5)),
        "no unit was counted",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        call()
