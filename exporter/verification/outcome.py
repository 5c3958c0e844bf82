"""The checks of one output, from all blocks of samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from exporter.records import (
    Check,
    Confusion,
    UnitAgreement,
    UnitValue,
    WorstCase,
    WorstSample,
)
from exporter.verification.judge import Allowed, Place, Result, Tally
from exporter.verification.limits import Basis, UserLimits, limits, precision_of_limits
from exporter.verification.metrics import TopAgreement, metrics_of
from exporter.verification.roles import FILL_VALUES, ROLES, Comparison, ModelPair, WrongRows

WORST_UNITS = 20  # a report names so many units of each output
_MOST_CONFUSED = 10  # units of a table of confusions


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
        tally, located = self._tally, False
        for result in tally.results():
            check, worst = self._check(result, samples), None
            if not (result.passed or located):
                place, located = tally.place(result.metric), True
                worst = None if place is None else self._worst(result.metric, self._each, place)
            yield check, worst

    @property
    def _tally(self) -> Tally:
        """The comparison whose limits apply."""
        only_fills = self._role.is_fill and len(self._fills) <= FILL_VALUES
        return self._equal if self._must_be_equal or only_fills else self._near

    def worst_sample(self, samples: int) -> tuple[tuple[float, ...], WorstSample] | None:
        """The sample with the largest difference; None if no values were compared.

        Args:
            samples: how many were compared.

        Returns:
            Its rank among those of other outputs, and the sample. A failed check ranks first, then
            the one nearest to its limit; of equal ones, and without limits, values that a client
            reads.
        """
        each = self._each
        if isinstance(each, WrongRows) or self._is_empty or self._tally.worst is None:
            return None
        worst = self._tally.worst
        failed = next((r.metric for r in self._tally.results() if not r.passed), None)
        values = [
            UnitValue(*self._unit(each, position), _finite(expected), _finite(actual))
            for position, expected, actual in worst.values
        ]
        case = self._worst(failed or "max_abs", each, worst.place)
        found = WorstSample(
            case,
            failed is None,
            worst.limit,
            samples,
            tuple(values),
            quantized=bool(each.precision),
        )
        is_read = each.role not in {"z", "removed"}
        unlimited = worst.limit is None and is_read
        return (failed is not None, unlimited, worst.excess, is_read), found

    @property
    def _first_units(self) -> TopAgreement | None:
        """How often which unit comes first in a quantized file; of a head's output only."""
        each = self._each
        if isinstance(each, WrongRows) or self._pair.stage != "quantize" or self._is_empty:
            return None
        if each.table is None or each.units is None or each.role == "z":
            return None
        return self._near.first_units

    def confusion(self) -> Iterator[Confusion]:
        """The units that a quantized file confuses most; nothing if it confuses none."""
        found, each = self._first_units, self._each
        if found is None or not found.confused or isinstance(each, WrongRows):
            return
        involved: Counter[int] = Counter()
        for pair, count in found.confused.items():
            involved.update(dict.fromkeys(pair, count))
        known = {position: self._unit(each, position) for position in {*found.firsts, *involved}}
        positions = [position for position, (unit, *_) in known.items() if unit is not None]
        positions.sort(key=lambda position: (-involved[position], position))
        positions = sorted(positions[:_MOST_CONFUSED])
        same = found.firsts.copy()
        for (wanted, _), count in found.confused.items():
            same[wanted] -= count
        yield Confusion(
            self._pair.pruned.name,
            each.output,
            tuple(known[position][0] or 0 for position in positions),
            tuple(known[position][2] for position in positions),
            tuple(
                tuple(found.confused[i, j] + (same[i] if i == j else 0) for j in positions)
                for i in positions
            ),
        )

    def agreement(self) -> Iterator[UnitAgreement]:
        """The units on whose first place a quantized file agrees least; those of a head only."""
        found, each = self._first_units, self._each
        if found is None or isinstance(each, WrongRows):
            return
        wrong: Counter[int] = Counter()
        for (wanted, _), count in found.confused.items():
            wrong[wanted] += count
        shares = {position: count / found.firsts[position] for position, count in wrong.items()}

        for position in sorted(shares, key=lambda each: (-shares[each], each))[:WORST_UNITS]:
            others = {to: n for (of, to), n in found.confused.items() if of == position}
            most = max(others, key=lambda to: (others[to], -to))
            (unit, _, label), (instead, _, other) = (self._unit(each, p) for p in (position, most))
            if unit is None or instead is None:
                continue
            yield UnitAgreement(
                self._pair.pruned.name,
                each.output,
                unit,
                label,
                found.firsts[position],
                found.firsts[position] - wrong[position],
                instead,
                other,
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

    def _worst(self, metric: str, each: Comparison, place: Place) -> WorstCase:
        unit, original_unit, label = self._unit(each, place.position)
        return WorstCase(
            stage=self._pair.stage,
            artifact=self._pair.pruned.name,
            output=each.output,
            metric=metric,
            sample=place.sample,
            unit=unit,
            original_unit=original_unit,
            label=label,
            expected=_finite(place.expected),
            actual=_finite(place.actual),
        )

    @staticmethod
    def _unit(each: Comparison, position: int) -> tuple[int | None, int | None, str]:
        """The index in the artifact, the index in the first original, and the label."""
        units = () if each.units is None else each.units
        first = int(units[position]) if position < len(units) else -1  # "absolute" adds positions
        unit = int(each.table.to_new([first])[0]) if each.table and first >= 0 else -1
        labels = each.table.labels if each.table else None
        label = labels[unit] if labels and unit >= 0 else ""
        return unit if unit >= 0 else None, first if first >= 0 else None, label


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _basis(pair: ModelPair, each: Comparison, quantized_to: str, *, synthetic: bool) -> Basis:
    """Which limits apply to a comparison."""
    role = ROLES[each.role]
    if pair.stage == "quantize":
        places = (n for i, n in enumerate(each.expected.shape) if i not in {0, 1, each.axis})
        vectors = math.prod(places) == 1  # the others are the sample, the batch and the units
        return Basis(pair.stage, quantized_to, role.limit, 0, synthetic, vectors)
    precision = each.precision or precision_of_limits(pair)
    return Basis(pair.stage, precision, role.limit, each.added_units)
