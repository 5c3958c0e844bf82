"""Choose units by their statistics. Every unit gets a decision with the rule and the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from exporter.errors import UsageError
from exporter.evaluation.unit_table import MEASURES, UnitRow


@dataclass(frozen=True)
class Decision:
    """Why a unit is kept or removed, for example "f1 0.41 < 0.6"."""

    unit: int
    kept: bool
    reason: str


@dataclass(frozen=True)
class Criteria:
    """The rules that a unit must pass to be kept; at least one is given.

    Attributes:
        at_least: measure -> smallest value, such as {"f1": 0.6}.
        top, by: keep the `top` units with the largest value of the measure `by`.
        coverage: keep the most frequent units that together make up this share of the counts.
        max_correlation: remove a unit whose scores correlate at least so with a more frequent one.
    """

    at_least: tuple[tuple[str, float], ...] = ()
    top: int | None = None
    by: str | None = None
    coverage: float | None = None
    max_correlation: float | None = None

    def uses(self, measure: str) -> bool:
        """Does a rule read this measure?"""
        return measure == self.by or measure in dict(self.at_least)

    def __post_init__(self) -> None:
        if not self.at_least and {self.top, self.coverage, self.max_correlation} == {None}:
            raise UsageError("no criterion is given", "give --min-f1, --top, --coverage, ...")
        for measure in [name for name, _ in self.at_least] + ([self.by] if self.by else []):
            if measure not in MEASURES:
                raise UsageError(
                    f"there is no measure {measure!r}", f"measures: {', '.join(MEASURES)}"
                )
        if self.by and self.top is None:
            raise UsageError("--by orders the units for --top, which is missing", "give --top N")
        if self.top is not None and self.top < 1:
            raise UsageError(f"--top is {self.top}", "keep at least one unit")
        if self.coverage is not None and not 0.0 < self.coverage <= 1.0:
            raise UsageError(
                f"a coverage of {self.coverage} is not a share", "give 0.995, for example"
            )
        if self.max_correlation is not None and not 0.0 < self.max_correlation <= 1.0:
            raise UsageError(
                f"{self.max_correlation} is not a correlation that criteria use",
                "give a number above 0, at most 1: 0.99, for example",
            )


def decide(
    rows: Sequence[UnitRow],
    criteria: Criteria,
    redundancy: Mapping[int, tuple[int, float]] | None = None,
    always: Mapping[int, str] | None = None,
) -> tuple[Decision, ...]:
    """One decision per unit, in their order: kept only if every rule keeps it.

    Args:
        redundancy: unit -> the unit that it follows, and their correlation.
        always: unit -> why it is kept whatever its numbers. The rules are for the other units.

    Raises:
        UsageError: a rule needs a measure that the data does not give, or no unit is left.
    """
    rules: list[Callable[[Sequence[UnitRow]], Iterable[Decision]]] = [
        partial(_at_least, measure=name, limit=limit) for name, limit in criteria.at_least
    ]
    if criteria.max_correlation is not None:
        if redundancy is None:
            raise UsageError("correlations need the model, not a file of counts", "give --data")
        rules.append(partial(_not_redundant, redundancy=redundancy))
    if criteria.coverage is not None:
        rules.append(partial(_coverage, share=criteria.coverage))
    if criteria.top is not None:
        rules.append(partial(_top, top=criteria.top, by=criteria.by or "count"))
    fixed = always or {}
    decisions = {
        row.unit: Decision(
            row.unit,
            kept=True,
            reason=f"{fixed[row.unit]}, count {row.count}" if row.unit in fixed else "",
        )
        for row in rows
    }
    for rule in rules:
        left = [row for row in rows if decisions[row.unit].kept and row.unit not in fixed]
        for each in rule(left):
            before = decisions[each.unit]
            reason = f"{before.reason}, {each.reason}" if before.reason else each.reason
            decisions[each.unit] = replace(each, reason=reason)
    if not any(each.kept for each in decisions.values()):
        worst = next(iter(decisions.values()))
        raise UsageError(
            f"no unit passes; unit {worst.unit}, for example: {worst.reason}", "relax the criteria"
        )
    return tuple(decisions.values())


def _value(row: UnitRow, measure: str) -> float:
    value = getattr(row, measure)
    if value is None and measure in {"active", "norm"}:
        raise UsageError(f"{measure} needs the model, not a file of counts", "give --data")
    if value is None:
        raise UsageError(
            f"{measure} needs labeled data",
            "give a folder with one sub-folder per class, or an .npz with the array labels",
        )
    return float(value)


def _number(value: float) -> str:
    """Counts with all their digits, other numbers with four."""
    return str(int(value)) if float(value).is_integer() else f"{value:.4g}"


def _at_least(rows: Sequence[UnitRow], measure: str, limit: float) -> Iterable[Decision]:
    for row in rows:
        value = _value(row, measure)
        sign = ">=" if value >= limit else "<"
        reason = f"{measure} {_number(value)} {sign} {_number(limit)}"
        yield Decision(row.unit, value >= limit, reason)


def _not_redundant(
    rows: Sequence[UnitRow], redundancy: Mapping[int, tuple[int, float]]
) -> Iterable[Decision]:
    for row in rows:
        if row.unit in redundancy:
            other, value = redundancy[row.unit]
            reason = f"correlation {value:.4g} with unit {other}"
            yield Decision(row.unit, kept=False, reason=reason)
        else:
            yield Decision(row.unit, kept=True, reason="not redundant")


def _top(rows: Sequence[UnitRow], top: int, by: str) -> Iterable[Decision]:
    ranked = sorted(rows, key=lambda row: (-_value(row, by), row.unit))
    for rank, row in enumerate(ranked, 1):
        reason = f"rank {rank} of {len(ranked)} by {by} ({_number(_value(row, by))})"
        yield Decision(row.unit, rank <= top, reason)


def _coverage(rows: Sequence[UnitRow], share: float) -> Iterable[Decision]:
    """The fewest units, most frequent first, whose counts reach the share."""
    total = sum(row.count for row in rows)
    if not total:
        raise UsageError("no unit was counted", "give data that the model predicts something on")
    covered = 0
    for row in sorted(rows, key=lambda row: (-row.count, row.unit)):
        needed = covered / total < share  # not share * total: 0.07 * 100 is above 7
        covered += row.count
        reason = f"count {row.count}, {100 * covered / total:.1f} % of all are covered with it"
        yield Decision(
            row.unit,
            needed,
            reason if needed else f"count {row.count}, {100 * share:g} % are covered without it",
        )
