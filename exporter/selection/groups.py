"""Groups of units that are merged into one: their members, and their order among the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.errors import UsageError
from exporter.selection.select import Selection, Units, add_reason, find_units
from exporter.selection.spec import parse

UnitGroups = Mapping[str, tuple[int, ...]]  # name -> members


def add_groups(
    selection: Selection,
    merge: Mapping[str, Units],
    *,
    removed: bool,
    rank: Sequence[int] | None = None,
) -> tuple[Selection, UnitGroups]:
    """The groups, and the selection with all members added, those of a group next to each other.

    Example: keeping 5,0 in this order and merging {"pets": "2,7"} gives the order 5, 0, 2, 7.

    1. All members are kept. If the kept units are in an order given by the user, members that the
       selection does not name follow them; otherwise all units ascend.
    2. A group has the position of its lowest member, and its members ascend.

    Args:
        selection: the selection without the groups.
        merge: name of a group -> its members, as in `select`.
        removed: the user named the units to remove; a member must not be one of them.
        rank: unit -> its index in the first original, by which units are ordered.

    Raises:
        UsageError: a group without a name, with the label of a unit as name, with fewer than two
            units, or with a member that is removed or in another group.
    """
    if not merge:
        return selection, {}
    every = replace(selection, kept=tuple(range(selection.units)), notes=())
    groups: dict[str, tuple[int, ...]] = {}
    owner: dict[int, str] = {}
    notes = list(selection.notes)
    for name, spec in merge.items():
        _check_name(name, selection.labels)
        found, new_notes = find_units(parse(spec, f"merge {name}", selection.labels or ()), every)
        notes += new_notes
        for unit in found:
            if unit in owner:
                raise UsageError(
                    f"{every.describe_unit(unit)} is a member of {owner[unit]!r} and of {name!r}",
                    "a unit can be in one group only",
                )
            if removed and unit not in selection.kept:
                raise UsageError(
                    f"{every.describe_unit(unit)} is removed and also a member of {name!r}",
                    "name it in only one of the two",
                )
            owner[unit] = name
        if len(found) < 2:  # noqa: PLR2004 - one unit needs no group
            raise UsageError(
                f"the group {name!r} has {len(found)} units",
                "a group needs at least two members",
            )
        groups[name] = tuple(sorted(found, key=None if rank is None else rank.__getitem__))
    kept, reasons = _order(selection, groups), selection.reasons
    for name, group in groups.items():
        reasons = add_reason(reasons, group, f"member of the group {name!r}")
    return replace(selection, kept=kept, notes=tuple(notes), reasons=reasons), groups


def _check_name(name: str, labels: tuple[str, ...] | None) -> None:
    if not name.strip() or name != name.strip() or len(name.splitlines()) > 1:
        raise UsageError(f"a group cannot be named {name!r}", "give it a name on one line")
    if labels is not None and name in labels:
        raise UsageError(
            f"the group {name!r} has the label of unit {labels.index(name)}", "choose another name"
        )


def _order(selection: Selection, groups: UnitGroups) -> tuple[int, ...]:
    kept = dict.fromkeys(selection.kept)
    as_given = list(kept) != sorted(kept)
    kept.update(dict.fromkeys(unit for members in groups.values() for unit in members))
    lowest = {members[0]: members for members in groups.values()}
    inside = {unit for members in groups.values() for unit in members[1:]}
    ordered = kept if as_given else sorted(kept)
    groups_and_units = (lowest.get(unit, (unit,)) for unit in ordered if unit not in inside)
    return tuple(unit for members in groups_and_units for unit in members)
