"""Which units are one unit: a disjoint-set forest over the numbers 0, 1, 2, ..."""

from __future__ import annotations

import numpy as np

from exporter.graph import Array

FIXED = -1  # the unit of a position that always stays


class Disjoint:
    """Units that are joined are removed together; a unit that is joined with FIXED stays."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count + 1)  # the last entry is FIXED
        self.joined = 0

    def join(self, some: Array, others: Array) -> None:
        """Make each unit of one array the same as the unit at its place in the other.

        Args:
            some, others: (positions,) int64, FIXED or a unit.
        """
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            first, second = self._root(one), self._root(other)
            if first != second:
                self._parents[min(first, second)] = max(first, second)  # FIXED is the largest
                self.joined += 1

    def numbers(self) -> Array:
        """The new number of each unit: 0, 1, 2, ... in the order of the first unit; or FIXED."""
        fixed = self._root(FIXED)
        roots = [self._root(unit) for unit in range(len(self._parents) - 1)]
        order: dict[int, int] = {}
        for root in roots:
            if root != fixed:
                order.setdefault(root, len(order))
        return np.array([order.get(root, FIXED) for root in roots], np.int64)

    def _root(self, unit: int) -> int:
        unit %= len(self._parents)
        while self._parents[unit] != unit:
            self._parents[unit] = self._parents[self._parents[unit]]
            unit = int(self._parents[unit])
        return unit
