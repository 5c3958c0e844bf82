"""Which units of the original the positions of a new file are, in the original's indices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from exporter.formats.model import Model
from exporter.graph import Array
from exporter.modes import Semantics
from exporter.modes.merging import merge_units
from exporter.remap.head_remap import HeadRemap, members
from exporter.trace.head import Head
from exporter.verification.match import earlier_table, semantics_of, units_of


@dataclass(frozen=True, eq=False)
class KeptUnits:
    """The positions of a new file, and its kept units, in the indices of its original.

    Attributes:
        units: number of units of the original.
        positions: for each position of the new file the original's units: one, or all members of a
            merged unit.
        kept: the kept units, in the order of the file.
        semantics: the options that the cut recorded.
    """

    units: int
    positions: tuple[tuple[int, ...], ...]
    kept: tuple[int, ...]
    semantics: Semantics

    @classmethod
    def uncut(cls, units: int) -> KeptUnits:
        """All units, each at its own position: of a converted or quantized file."""
        every = tuple(range(units))
        return cls(units, tuple((unit,) for unit in every), every, Semantics())

    @classmethod
    def of_cut(cls, original: Model, head: Head, table: HeadRemap) -> KeptUnits:
        """The units that a remap names, which may be that of the second cut of two.

        Raises:
            UsageError: the original is not the model that was cut.
        """
        kept, present = units_of(original, head, table)
        rest = iter(present)
        positions = tuple(tuple(next(rest) for _ in members(old)) for old in table.new_to_old)
        semantics = semantics_of(original, table)
        # the original is the merged file itself, of which this one is a quantized copy
        merge = {name: units for name, units in semantics.merge.items() if len(set(units)) > 1}
        return cls(
            head.units, positions, tuple(dict.fromkeys(kept)), replace(semantics, merge=merge)
        )

    @cached_property
    def group(self) -> Array:
        """(units,) the lowest member of each unit's group; the unit itself if it is in none."""
        lowest = np.arange(self.units)
        for units in self.positions:
            lowest[list(units)] = min(units)
        return lowest

    @cached_property
    def is_kept(self) -> Array:
        """(units,) bool."""
        found = np.zeros(self.units, bool)
        found[list(self.kept)] = True
        return found

    @cached_property
    def at_position(self) -> Array:
        """(positions,) the group of each position of the new file."""
        return np.asarray([min(units) for units in self.positions])

    @cached_property
    def merged_order(self) -> Array:
        """The groups of the kept units, in the order in which `merge_values` returns them."""
        merged = merge_units(self.kept, self.semantics)
        return np.asarray([min(members(units)) for units in merged])

    def of_first_original(self, original: Model, table: HeadRemap, indices: Array) -> Array:
        """The groups of indices of the first original, as `--restore-ids` returns them.

        An index that is no unit becomes -1.
        """
        earlier = earlier_table(original, table)
        count = table.old_units
        valid = (indices >= 0) & (indices < count)
        safe = np.where(valid, indices, 0)
        found = safe if earlier is None else earlier.to_new(safe)
        return np.where(valid & (found >= 0), self.group[found], -1)
