"""The unit axis of a tensor, and the records that say what changes in a file with it. Data only.

For example, a dense layer of three units has the kernel `UnitConstant("kernel", (8, 3), ...)`, with
the unit axis `UnitAxis(1, [0, 1, 2])`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.graph import Array, Node, Quantization, Shape, Use


@dataclass(frozen=True, eq=False)
class UnitAxis:
    """The axis of a tensor that the units are on, and the unit of each position on it.

    Attributes:
        axis: index of the axis, never negative.
        units: int64, one entry a position; -1 for a position that belongs to no unit.
    """

    axis: int
    units: Array  # (positions,)

    def same(self, other: UnitAxis) -> bool:
        alike = self.units is other.units or np.array_equal(self.units, other.units)
        return self.axis == other.axis and alike

    def at(self, axis: int) -> UnitAxis:
        """The same units on another axis."""
        return UnitAxis(axis, self.units)

    @property
    def has_units(self) -> bool:
        """Does any position belong to a unit?"""
        return bool((self.units >= 0).any())

    def shows(self, units: int) -> bool:
        """Does each of the units 0, 1, ... have a position, in this order?"""
        found, first = np.unique(self.units[self.units >= 0], return_index=True)
        return len(found) == units and bool((np.diff(first) > 0).all())

    @property
    def span(self) -> tuple[int, int]:
        """The range from the first position with a unit to the last; there must be one."""
        positions = np.flatnonzero(self.units >= 0)
        return int(positions[0]), int(positions[-1]) + 1

    def positions(self, kept: Sequence[int]) -> Array:
        """The positions that remain for the kept units, in their new order.

        Positions without a unit keep their order. If `kept` is not ascending, the positions of the
        units are exchanged, occurrence by occurrence, so that repeated blocks (anchors) stay
        complete.
        """
        chosen = np.asarray(kept, dtype=np.int64)
        if self._is_plain:
            return chosen[chosen < len(self.units)]  # a part of an axis lacks some units
        chosen = chosen[self._among(chosen, self.units)]
        ascending = np.sort(chosen)
        remaining = np.flatnonzero((self.units < 0) | self._among(self.units, chosen))
        if np.array_equal(chosen, ascending):
            return remaining
        replacement = dict(zip(ascending.tolist(), chosen.tolist(), strict=True))
        occurrences = {unit: np.flatnonzero(self.units == unit) for unit in replacement}
        seen = dict.fromkeys(replacement, 0)
        result = remaining.copy()
        for i, position in enumerate(remaining):
            unit = int(self.units[position])
            if unit >= 0:
                result[i] = occurrences[replacement[unit]][seen[unit]]
                seen[unit] += 1
        return result

    def removed(self, kept: Sequence[int]) -> Array:
        """The positions of the units that are not kept, ascending."""
        return np.flatnonzero(
            (self.units >= 0) & ~self._among(self.units, np.asarray(kept, np.int64))
        )

    @cached_property
    def _is_plain(self) -> bool:
        """Does the position of each unit have the unit's index?"""
        return np.array_equal(self.units, np.arange(len(self.units)))

    @staticmethod
    def _among(units: Array, others: Array) -> Array:
        """As `numpy.isin`, which sorts; units are small numbers from -1 on."""
        largest = max(units.max(initial=-1), others.max(initial=-1))
        present = np.zeros(largest + 2, bool)  # the last entry is for -1
        present[others] = True
        return np.asarray(present[units])


@dataclass(frozen=True, eq=False)
class UnitTensor:
    """A computed tensor with a unit axis: a cut makes it narrower."""

    name: str
    shape: Shape
    dtype: str
    unit_axis: UnitAxis
    quantization: Quantization | None = None

    def with_width(self, width: int) -> Shape:
        """The shape of the tensor with another length of the unit axis."""
        axis = self.unit_axis.axis
        return (*self.shape[:axis], width, *self.shape[axis + 1 :])


@dataclass(frozen=True, eq=False)
class UnitConstant:
    """A constant with a unit axis, and the inputs that read it with that axis.

    Attributes:
        zero: the value that makes a removed unit 0; None where its entries may stay as they are
            (scales, variances).
        quantization: None where the values are real.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit_axis: UnitAxis
    uses: tuple[Use, ...]
    zero: float | None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Width:
    """A number in the file that states the length of a unit axis.

    Attributes:
        node: the node that has the attribute or reads the constant.
        place: name of the attribute, or slot of the constant.
        constant: name of the constant, if it is one.
        value: the whole attribute or constant.
        entry: index of the number in `value`; None where the value is that number alone.
        tensor: the tensor with the unit axis.
        offset: the number minus the length of the axis.
        before: the number counts only the positions before this one; None for the whole axis.
    """

    node: str
    place: str | int
    constant: str | None
    value: tuple[int, ...]
    entry: int | None
    tensor: str
    offset: int = 0
    before: int | None = None


@dataclass(frozen=True, eq=False)
class Junction:
    """A node that joins a unit axis out of parts, or splits it.

    Attributes:
        stops: where the parts end on the whole axis.
    """

    node: Node
    whole: UnitAxis
    stops: tuple[int, ...]
