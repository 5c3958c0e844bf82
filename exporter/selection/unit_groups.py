"""Select whole groups of units that follow each other: x, y and z of a landmark, for example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.errors import UsageError
from exporter.selection.select import Selection, select


def select_groups(
    size: int, *, units: int, labels: Sequence[str] | None = None, **selected: Any
) -> Selection:
    """As `select`, but indices and labels name groups, and all units of a group are selected.

    Args:
        size: units in a group.
        units: in all groups.
        labels: one for each group, or one for each unit; the first of a group then names it.
        selected: the other arguments of `select`.

    Raises:
        UsageError: the units are no groups of that size; or as `select`.
    """
    if units % size:
        raise UsageError(
            f"{units} units are no groups of {size}", "give a number that divides the units"
        )
    of_units = labels is not None and len(labels) == units
    names = labels[::size] if labels is not None and of_units else labels
    chosen = select(units=units // size, labels=names, **selected)
    each = range(size)
    if names is not None and not of_units:
        labels = [f"{name}:{i}" if name else "" for name in names for i in each]
    return Selection(
        units,
        tuple(group * size + i for group in chosen.kept for i in each),
        None if labels is None else tuple(labels),
        chosen.notes,
        {group * size + i: why for group, why in chosen.reasons.items() for i in each},
        chosen.matches,
    )
