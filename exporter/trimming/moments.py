"""Sums over the rows of a regression, in float64: all that a fit needs.

The memory grows with the columns squared, however many samples are added.
"""

from __future__ import annotations

import numpy as np

from exporter.graph import Array

_BLOCK = 2048  # rows


class Moments:
    """Sums over rows X of one network and rows Y of another one, at the same positions.

    Attributes:
        count: number of rows.
        gram: X^T X.
        cross: X^T Y; the Gram matrix itself without Y.
        sums, other_sums: of X and Y.
    """

    def __init__(self, columns: int, others: int | None = None) -> None:
        self.count = 0
        self._waiting: list[tuple[Array, Array | None]] = []
        self.gram = np.zeros((columns, columns))
        self.sums = np.zeros(columns)
        self.cross = self.gram if others is None else np.zeros((columns, others))
        self.other_sums = self.sums if others is None else np.zeros(others)

    def add(self, rows: Array, others: Array | None = None) -> None:
        """Add rows: (rows, columns) float64. Few rows wait: large products are faster."""
        self._waiting.append((rows, others))
        if sum(len(each) for each, _ in self._waiting) >= _BLOCK:
            self.finish()

    def finish(self) -> Moments:
        """Add the rows that wait."""
        if self._waiting:
            rows = np.concatenate([each for each, _ in self._waiting])
            self.count += len(rows)
            self.gram += rows.T @ rows
            self.sums += rows.sum(axis=0)
            others = [each for _, each in self._waiting if each is not None]
            if others:
                joined = np.concatenate(others)
                self.cross += rows.T @ joined
                self.other_sums += joined.sum(axis=0)
            self._waiting = []
        return self

    def plus(self, other: Moments) -> Moments:
        """The sums over the rows of both, which were added without others."""
        both = Moments(0)
        both.count = self.count + other.count
        both.gram = both.cross = self.gram + other.gram
        both.sums = both.other_sums = self.sums + other.sums
        return both

    def centered(self, *, centers: bool) -> tuple[Array, Array]:
        """Gram and cross matrices, without the product of the means if `centers`."""
        if not centers or not self.count:
            return self.gram, self.cross
        sums = self.sums[:, None] / self.count
        return self.gram - sums * self.sums, self.cross - sums * self.other_sums


def with_ridge(gram: Array, ridge: float) -> tuple[Array, float]:
    """A Gram matrix with a ridge, and the number that was added to its diagonal.

    Args:
        ridge: as a share of the mean of the diagonal.
    """
    size = len(gram)
    added = ridge * float(np.trace(gram)) / max(size, 1)
    added = added if added > 0.0 else 1.0  # all rows are zero: any weights fit
    return gram + added * np.eye(size), added
