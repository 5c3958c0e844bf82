"""Select whole groups of units: x, y and z of a landmark, for example.

The units of a group follow each other (x0, y0, z0, x1, ...), or there is a block for each of them
(x0, x1, ..., y0, y1, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.errors import UsageError
from exporter.selection.select import Selection, select


def select_groups(
    size: int,
    *,
    units: int,
    labels: Sequence[str] | None = None,
    blocks: bool = False,
    **selected: Any,
) -> Selection:
    """As `select`, but indices and labels name groups, and all units of a group are selected.

    Args:
        size: units in a group.
        units: in all groups.
        labels: one for each group, or one for each unit; the first of a group then names it.
        blocks: the units of a group do not follow each other; each is in a block of its own.
        selected: the other arguments of `select`.

    Raises:
        UsageError: the units are no groups of that size; or as `select`.
    """
    if units % size:
        raise UsageError(
            f"{units} units are no groups of {size}", "give a number that divides the units"
        )
    count = units // size
    of_units = labels is not None and len(labels) == units
    first = slice(count) if blocks else slice(None, None, size)
    names = labels[first] if labels is not None and of_units else labels
    chosen = select(units=count, labels=names, **selected)

    def units_of(groups: Sequence[int]) -> list[tuple[int, int, int]]:
        """Unit, group and index in the group, of these groups in their order."""
        if blocks:
            return [(i * count + group, group, i) for i in range(size) for group in groups]
        return [(group * size + i, group, i) for group in groups for i in range(size)]

    if names is not None and not of_units:
        every = units_of(range(count))
        labels = [f"{names[group]}:{i}" if names[group] else "" for _, group, i in every]
    reasons = chosen.reasons
    return Selection(
        units,
        tuple(unit for unit, _, _ in units_of(chosen.kept)),
        None if labels is None else tuple(labels),
        chosen.notes,
        {unit: reasons[group] for unit, group, _ in units_of(tuple(reasons))},
        chosen.matches,
    )
