"""Positions of a constant that are gathered when they are written, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.graph.mapped import map_pages

if TYPE_CHECKING:
    from exporter.graph.graph import Array

BLOCK_BYTES = 1 << 20  # of a block: it stays in the processor's cache until it is written
_DENSE = 16  # positions for each one that is gathered: most pages are read then


@dataclass(frozen=True, eq=False)
class Gathered:
    """Some positions of an array along one axis.

    Attributes:
        source: in C order, for example a view of a file.
        axis: of the source.
        positions: (positions,) int64, from 0 on.

    Raises:
        IndexError: the source has no such position.
    """

    source: Array
    axis: int
    positions: Array

    def __post_init__(self) -> None:
        length = self.source.shape[self.axis]
        if self.positions.size and not 0 <= self.positions.min() <= self.positions.max() < length:
            raise IndexError(f"positions {self.positions} of {length}")

    @property
    def shape(self) -> tuple[int, ...]:
        lengths = list(self.source.shape)
        lengths[self.axis] = len(self.positions)
        return tuple(lengths)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def read(self) -> Array:
        """All of it, in one array."""
        return np.take(self._plain, self.positions, axis=self.axis).view(self.dtype)

    def blocks(self) -> Iterator[Array]:
        """Its bytes in C order, as arrays of uint8. A block is valid until the next one is made."""
        shape = self.source.shape
        axis = self.axis % len(shape)
        outer, inner = prod(shape[:axis]), prod(shape[axis + 1 :])
        plain = self._plain.reshape(outer, shape[axis], inner)
        row = inner * self.dtype.itemsize
        count = min(len(self.positions), max(1, BLOCK_BYTES // max(1, row)))  # positions at a time
        lines = max(1, BLOCK_BYTES // max(1, row * len(self.positions)))  # outer ones at a time
        room = np.empty((min(lines, outer), count, inner), plain.dtype)
        for line in range(0, outer, lines):
            part = plain[line : line + lines]
            for start in range(0, len(self.positions), count):
                chosen = self.positions[start : start + count]
                around = part[:, chosen.min() : chosen.max() + 1] if len(part) == 1 else part
                if around.shape[1] < _DENSE * len(chosen):
                    map_pages(around)
                block = room.reshape(-1)[: len(part) * len(chosen) * inner]
                shaped = block.reshape(len(part), len(chosen), inner)
                np.take(part, chosen, axis=1, out=shaped, mode="clip")  # "raise" makes a copy
                yield block.view(np.uint8)

    @property
    def _plain(self) -> Array:
        """The source as plain bytes of the same width.

        Values in a file are rarely aligned, and NumPy copies the whole of an unaligned array before
        it gathers numbers. It gathers bytes at once.
        """
        return self.source.view(f"V{self.dtype.itemsize}")
