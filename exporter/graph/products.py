"""Products as nested loops, which `graph.multiply_adds` counts.

For example, the scores of an attention, [batch, queries, keys], are a MatMul that sums 32 features:
its loops run over all axes of the output and over the last axis of the first input.
"""

from __future__ import annotations

from typing import NamedTuple


class Axis(NamedTuple):
    """An axis of an input of a node; for slot ~n (-1, -2, ...) of its output n."""

    slot: int
    axis: int


Product = tuple[Axis | int, ...]  # the loops; a number where no axis has the length
Products = tuple[Product, ...] | None  # of a node; None: not known

OUTPUT = ~0  # slot of the first output


def axes(slot: int, rank: int, *, without: int | None = None) -> Product:
    """All axes of an input or output, perhaps without one."""
    skipped = None if without is None else without % rank
    return tuple(Axis(slot, axis) for axis in range(rank) if axis != skipped)


def matmul(output_rank: int, summed: Axis) -> Product:
    """A matrix product: for each value of the output, the axis that is summed."""
    return (*axes(OUTPUT, output_rank), summed)


def einsum(equation: str, output_rank: int) -> Product | None:
    """One loop for each letter: over the output's axes, and over the axes that are summed.

    None if the equation does not state its result, or sums axes that it does not name.
    """
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    if not arrow or ("." in inputs and "." not in output):
        return None
    summed = {
        letter: Axis(slot, position if "." not in term[:position] else position - len(term))
        for slot, term in reversed(list(enumerate(inputs.split(","))))
        for position, letter in enumerate(term)
        if letter not in output
    }
    return (*axes(OUTPUT, output_rank), *summed.values())
