"""Groups of units that become one: which units belong to which, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from exporter.errors import UsageError
from exporter.selection.select import Selection, reached
from exporter.selection.spec import parse

Groups = Mapping[str, tuple[int, ...]]  # name -> members


def grouped(
    selection: Selection,
    merge: Mapping[str, str | Iterable[int | str]],
    *,
    removed: bool,
    rank: Sequence[int] | None = None,
) -> tuple[Selection, Groups]:
    """The groups, and the selection with all their members in it, each group's side by side.

    1. A member stays, whether the selection names it or not: the others follow in the groups' order
       behind the units that it names where the order is the user's, and ascending elsewhere.
    2. A group stands where its lowest member would, and its members ascend.

    Args:
        selection: what stays without the groups.
        merge: name of a group -> its members, as in `select`.
        removed: the user said which units go, so that a member must not be among those.
        rank: what "lowest" and "ascend" compare instead of indices: those of the first original.

    Raises:
        UsageError: a group without a name, called like a unit, of less than two units, or with a
            member that is removed or in another group.
    """
    every = replace(selection, kept=tuple(range(selection.units)), notes=())
    groups: dict[str, tuple[int, ...]] = {}
    owner: dict[int, str] = {}
    notes = list(selection.notes)
    for name, spec in merge.items():
        _check_name(name, selection.labels)
        found, said = reached(parse(spec, f"merge {name}"), every)
        notes += said
        for unit in found:
            if unit in owner:
                raise UsageError(
                    f"{every.named(unit)} is a member of {owner[unit]!r} and of {name!r}",
                    "a unit can be in one group",
                )
            if removed and unit not in selection.kept:
                raise UsageError(
                    f"{every.named(unit)} is removed, and a member of {name!r}",
                    "leave it out of one of the two",
                )
            owner[unit] = name
        if len(found) < 2:  # noqa: PLR2004 - one unit is no group
            raise UsageError(
                f"the group {name!r} has {len(found)} of the units",
                "a group has at least two members; a unit alone needs none",
            )
        groups[name] = tuple(sorted(found, key=None if rank is None else rank.__getitem__))
    return replace(selection, kept=_order(selection, groups), notes=tuple(notes)), groups


def _check_name(name: str, labels: tuple[str, ...] | None) -> None:
    if not name.strip() or name != name.strip() or len(name.splitlines()) > 1:
        raise UsageError(f"a group cannot be called {name!r}", "give it a name on one line")
    if labels is not None and name in labels:
        raise UsageError(
            f"the group {name!r} is called like unit {labels.index(name)}", "choose another name"
        )


def _order(selection: Selection, groups: Groups) -> tuple[int, ...]:
    kept = dict.fromkeys(selection.kept)
    as_given = list(kept) != sorted(kept)
    kept.update(dict.fromkeys(unit for members in groups.values() for unit in members))
    lowest = {members[0]: members for members in groups.values()}
    inside = {unit for members in groups.values() for unit in members[1:]}
    standing = kept if as_given else sorted(kept)
    places = (lowest.get(unit, (unit,)) for unit in standing if unit not in inside)
    return tuple(unit for place in places for unit in place)
