"""Which channels a product needs least: greedy elimination on the Gram matrix.

A product computes Z = X W from rows X. Without the columns of a unit u, the weights that come
nearest to Z are found from H = X^T X alone, and the squared error grows by

    tr(W_u^T (H^-1_uu)^-1 W_u),

where W are the best weights so far (Hassibi and Stork 1993, Optimal Brain Surgeon; in blocks). The
unit with the smallest growth is removed, and W and H^-1 are updated; then the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.graph import Array


@dataclass(frozen=True, eq=False)
class Elimination:
    """The order in which units are removed.

    Attributes:
        order: (units,) int64; the first is removed first.
        errors: (units + 1,) after removing the first 0, 1, 2, ... units: squared error of the
            products, as a share of the variance of their outputs.
    """

    order: Array
    errors: Array

    def kept(self, count: int) -> Array:
        """The units that stay if so many do, ascending."""
        return np.sort(self.order[len(self.order) - count :])

    def error(self, count: int) -> float:
        """The error if so many units stay."""
        return float(self.errors[len(self.order) - count])


@dataclass(frozen=True, eq=False)
class Regression:
    """One product of a group.

    Attributes:
        gram: (columns, columns), with its ridge; centered if the product has a bias.
        weights: (columns, outputs).
        units: unit of each column, (columns,); FIXED for columns that stay.
        variance: of the outputs, in the unit of the Gram matrix.
    """

    gram: Array
    weights: Array
    units: Array
    variance: float


def eliminate(regressions: Sequence[Regression], units: int) -> Elimination:
    """The order of the units of a group. The errors of its products add up.

    Args:
        regressions: one for each product that reads the group.
        units: their number.
    """
    states = [_State(each, units) for each in regressions]
    alive = np.ones(units, bool)
    order, errors = [], [0.0]
    for _ in range(units):
        costs = sum((state.costs() for state in states), np.zeros(units))
        costs = np.where(alive, costs, np.inf)
        unit = int(costs.argmin())
        alive[unit] = False
        order.append(unit)
        errors.append(errors[-1] + max(float(costs[unit]), 0.0))
        for state in states:
            state.remove(unit)
    return Elimination(np.array(order, np.int64), np.array(errors))


class _State:
    """The inverse of the Gram matrix and the best weights of the columns that are left."""

    def __init__(self, regression: Regression, units: int) -> None:
        weights = regression.weights
        if weights.shape[1] > len(weights):  # only W W^T matters
            weights = np.asarray(np.linalg.qr(weights.T, mode="r")).T
        self._inverse = np.linalg.inv(regression.gram)
        self._weights = np.array(weights)
        self._scale = 1.0 / regression.variance if regression.variance > 0 else 0.0
        self._columns = _columns(regression.units, units)  # (units, widest), -1 where there is none
        self._alive = np.ones(units, bool)

    def costs(self) -> Array:
        """The growth of the squared error if a unit is removed: (units,); 0 for removed ones."""
        columns, width = self._columns, self._columns.shape[1]
        if not width:
            return np.zeros(len(columns))
        found = np.zeros(len(columns))
        units = np.flatnonzero(self._alive)
        index = columns[units]
        absent = index < 0
        blocks = self._inverse[index[:, :, None], index[:, None, :]]
        weights = self._weights[index]
        if absent.any():
            either = absent[:, :, None] | absent[:, None, :]
            blocks = np.where(either, np.eye(width), blocks)
            weights = np.where(absent[:, :, None], 0.0, weights)
        solved = np.linalg.solve(blocks, weights) if width > 1 else weights / blocks
        found[units] = np.einsum("uto,uto->u", weights, solved) * self._scale
        return found

    def remove(self, unit: int) -> None:
        self._alive[unit] = False
        index = self._columns[unit]
        index = index[index >= 0]
        if not len(index):
            return
        block = self._inverse[:, index]
        factor = np.linalg.solve(self._inverse[np.ix_(index, index)], block.T)
        self._weights -= block @ np.linalg.solve(
            self._inverse[np.ix_(index, index)], self._weights[index]
        )
        self._inverse -= block @ factor
        self._compact(index)

    def _compact(self, index: Array) -> None:
        """Drop the columns of removed units when there are many of them: the rest is faster."""
        self._inverse[index] = self._inverse[:, index] = 0.0
        removed = self._columns[~self._alive]
        gone = removed[removed >= 0]
        if len(gone) * 4 < len(self._inverse):
            return
        left = np.setdiff1d(np.arange(len(self._inverse)), gone)
        numbers = np.full(len(self._inverse) + 1, -1)
        numbers[left] = np.arange(len(left))
        self._columns[~self._alive] = -1
        self._columns = np.where(self._columns < 0, -1, numbers[self._columns])
        self._inverse = self._inverse[np.ix_(left, left)]
        self._weights = self._weights[left]


def _columns(units: Array, count: int) -> Array:
    """The columns of each unit: (units, most columns of a unit), -1 where there is none."""
    members = [np.flatnonzero(units == unit) for unit in range(count)]
    found = np.full((count, max(map(len, members), default=0)), -1)
    for unit, each in enumerate(members):
        found[unit, : len(each)] = each
    return found
