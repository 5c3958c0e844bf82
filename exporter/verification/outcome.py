"""The checks of one output, from all blocks of samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from exporter.records import Check, UnitAgreement, WorstCase
from exporter.verification.judge import Allowed, Place, Result, Tally
from exporter.verification.limits import Basis, UserLimits, limits, precision_of_limits
from exporter.verification.metrics import metrics_of
from exporter.verification.roles import FILL_VALUES, ROLES, Comparison, ModelPair, WrongRows

WORST_UNITS = 20  # a report names so many units of each output


class Outcome:
    """Judges one output with the limits of its role.

    Args:
        each: the comparison of the first block.
        user: limits that replace the built-in ones.
        quantized_to: the precision of the pruned model, at the stage "quantize".
        synthetic: the samples were generated.
    """

    def __init__(
        self,
        pair: ModelPair,
        each: Comparison | WrongRows,
        user: UserLimits,
        *,
        quantized_to: str,
        synthetic: bool,
    ) -> None:
        self._pair, self._each, self._user = pair, each, user
        self._count: int | None = 0  # of wrong rows
        self._fills = np.empty(0)  # the first different values that are expected
        self._is_empty = True
        if isinstance(each, WrongRows):
            return
        self._role = ROLES[each.role]
        by_user = each.role == "not pruned" and user.tolerance is not None
        self._must_be_equal = pair.stage in self._role.equal_at and not by_user
        metrics = self._role.metrics or metrics_of(pair.stage)
        self._equal, self._near = (Tally(each.axis, metrics) for _ in range(2))
        self._basis = _basis(pair, each, quantized_to, synthetic=synthetic)

    def add(self, each: Comparison | WrongRows) -> None:
        """Count a further block."""
        if isinstance(each, WrongRows):
            known = self._count is not None and each.count is not None
            self._count = (self._count or 0) + (each.count or 0) if known else None
            return
        self._is_empty &= each.is_empty
        expected, actual = each.expected, each.actual
        if self._must_be_equal or self._role.is_fill:
            self._equal.add(expected, actual, Allowed(np.zeros(len(expected))))
        if not self._must_be_equal:
            self._near.add(expected, actual, limits(self._basis, expected, self._user))
        if self._role.is_fill and len(self._fills) <= FILL_VALUES:
            self._fills = np.union1d(self._fills, expected)

    def checks(self, samples: int) -> Iterator[tuple[Check, WorstCase | None]]:
        """One check for each metric; for the first that fails, the worst case.

        Args:
            samples: how many were compared.
        """
        if isinstance(self._each, WrongRows):
            count = None if self._count is None else float(self._count)
            result = Result(self._each.metric, count, 0.0, passed=count == 0)
            yield self._check(result, samples), None
            return
        if self._is_empty:
            return
        only_fills = self._role.is_fill and len(self._fills) <= FILL_VALUES
        tally = self._equal if self._must_be_equal or only_fills else self._near
        located = False
        for result in tally.results():
            check, worst = self._check(result, samples), None
            if not (result.passed or located):
                place, located = tally.place(result.metric), True
                worst = None if place is None else self._worst(check, self._each, place)
            yield check, worst

    def agreement(self) -> Iterator[UnitAgreement]:
        """The units on whose first place a quantized file agrees least; those of a head only."""
        each = self._each
        if isinstance(each, WrongRows) or self._pair.stage != "quantize" or self._is_empty:
            return
        found, table, units = self._near.first_units, each.table, each.units
        if found is None or table is None or units is None or each.role == "z":
            return
        wrong: Counter[int] = Counter()
        for (wanted, _), count in found.confused.items():
            wrong[wanted] += count
        shares = {position: count / found.firsts[position] for position, count in wrong.items()}

        def unit_and_label(position: int) -> tuple[int, str]:
            unit = int(table.to_new([int(units[position])])[0])
            return unit, table.labels[unit] if table.labels else ""

        for position in sorted(shares, key=lambda each: (-shares[each], each))[:WORST_UNITS]:
            others = {to: n for (of, to), n in found.confused.items() if of == position}
            most = max(others, key=lambda to: (others[to], -to))
            if min(int(units[position]), int(units[most])) < 0:
                continue  # the value of no unit
            yield UnitAgreement(
                self._pair.pruned.name,
                each.output,
                *unit_and_label(position),
                found.firsts[position],
                found.firsts[position] - wrong[position],
                *unit_and_label(most),
                others[most],
            )

    def _check(self, result: Result, samples: int) -> Check:
        return Check(
            stage=self._pair.stage,
            artifact=self._pair.pruned.name,
            output=self._each.output,
            metric=result.metric,
            value=result.value,
            limit=result.limit,
            passed=result.passed,
            samples=samples,
            limit_from="" if result.limit is None else "user" if result.by_user else "built-in",
        )

    def _worst(self, check: Check, each: Comparison, place: Place) -> WorstCase:
        first = -1 if each.units is None else int(each.units[place.position])
        unit = int(each.table.to_new([first])[0]) if each.table and first >= 0 else None
        labels = each.table.labels if each.table else None
        return WorstCase(
            stage=check.stage,
            artifact=check.artifact,
            output=check.output,
            metric=check.metric,
            sample=place.sample,
            unit=unit,
            original_unit=first if first >= 0 else None,
            label=labels[unit] if labels and unit is not None and unit >= 0 else "",
            expected=place.expected if math.isfinite(place.expected) else None,
            actual=place.actual if math.isfinite(place.actual) else None,
        )


def _basis(pair: ModelPair, each: Comparison, quantized_to: str, *, synthetic: bool) -> Basis:
    """Which limits apply to a comparison."""
    role = ROLES[each.role]
    if pair.stage == "quantize":
        places = (n for i, n in enumerate(each.expected.shape) if i not in {0, 1, each.axis})
        vectors = math.prod(places) == 1  # the others are the sample, the batch and the units
        return Basis(pair.stage, quantized_to, role.limit, 0, synthetic, vectors)
    precision = each.precision or precision_of_limits(pair)
    return Basis(pair.stage, precision, role.limit, each.added_units)
