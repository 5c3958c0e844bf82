"""Samples that stay in their file, which is read in blocks: data may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from exporter.graph import Array

BLOCK_BYTES = 8 << 20
IN_MEMORY_BYTES = 64 << 20

Blocks = Callable[[], Iterator[Array]]  # starts a pass: (samples, batch, ...) block after block


class Stream(Sequence[Array]):
    """Samples in the order of their file.

    A pass from the first to the last sample reads the file once, and holds one block. An earlier
    sample than the last one read starts a new pass.
    """

    def __init__(self, blocks: Blocks, count: int) -> None:
        self._blocks, self._count = blocks, count
        self._first, self._block = 0, np.empty(0)  # the block that is held, and its first sample
        self._pass = blocks()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """One sample, (batch, ...); of a slice, a list of samples."""
        if isinstance(index, slice):
            return [self[i] for i in range(self._count)[index]]
        if not 0 <= index < self._count:
            raise IndexError(index)
        if index < self._first:
            self._restart()
        while index >= self._first + len(self._block):
            self._first += len(self._block)
            self._block = next(self._pass)
        return self._block[index - self._first, ...]

    def _restart(self) -> None:
        self._first, self._block = 0, np.empty(0)
        self._pass = self._blocks()


def read_blocks(
    blocks: Blocks, again: Blocks | None = None, in_memory: int = IN_MEMORY_BYTES
) -> Array | Stream:
    """All samples: an array if it is small, else a `Stream`. Reads each block once.

    Args:
        blocks: checks the values, for example.
        again: the same blocks in later passes; `blocks` if not given.
    """
    kept: list[Array] = []
    size = count = 0
    for block in blocks():
        size, count = size + block.nbytes, count + len(block)
        kept = [*kept, block] if size <= in_memory else []
    return np.concatenate(kept) if size <= in_memory else Stream(again or blocks, count)


def first_samples(blocks: Iterator[Array], limit: int | None) -> Iterator[Array]:
    """The blocks up to the sample `limit`; None for all of them."""
    left = limit
    for block in blocks:
        if left is None:
            yield block
            continue
        yield block[:left]
        left -= min(left, len(block))
        if not left:
            return


def spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of the numbers below `count`, evenly spaced: each label keeps its share."""
    wanted = count if limit is None else min(limit, count)
    return [i * count // wanted for i in range(wanted)]


def rows_per_block(row_bytes: int) -> int:
    """How many samples of so many bytes a block has."""
    return max(1, BLOCK_BYTES // max(1, row_bytes))
