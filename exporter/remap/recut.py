"""Two cuts of one head, one after the other, told as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporter.errors import ModelError, UsageError
from exporter.remap.head_remap import OPTIONS, HeadRemap, Place, members


def recut(earlier: HeadRemap, later: HeadRemap) -> HeadRemap:
    """The table from the first original to the file that was cut twice.

    A place is *dead* where its unit was removed but the width was kept (zero, mask, gate).

    1. The output, its axis and part, the activation and the new width are the later cut's.
    2. `kept` holds the units that both cuts left alive: zero after slice keeps the places of the
       slice, and `kept` names those of them that still answer; slice after zero may carry dead
       places along, and they are not in `kept`.
    3. `mode`, `floor` and `restore_width` come from the cut to which the dead places belong; where
       there are none, from the last cut that made the output narrower, else from the earlier one.
    4. A unit that both cuts removed is the later one's: it answers as that cut says. Dead places of
       both cuts - the later one keeps a unit that the earlier one had removed - need the same mode,
       floor and restored width, because one table cannot say of two kinds of dead places how each
       answers.
    5. A gate says itself how units that are off answer. Dead places of an earlier cut are neither
       on nor off, and would have a share in the probabilities that it compares: there are none.
    6. Other options: the later cut's where it used them, else the earlier's. Merged groups of both
       cuts are listed by original units, unless a later group took an earlier one in. Outputs whose
       ids the later cut brought back to the first original's hold no new ones.

    Args:
        earlier: the head's table in the file that was cut.
        later: the table of the later cut alone, in that file's indices.

    Raises:
        ModelError: the later table does not start at the width that the earlier one leaves.
        UsageError: no kept unit is alive; case 4 or 5; or absolute probabilities of a file that no
            longer has all units of the original.
    """
    if later.old_units != earlier.new_units:
        raise ModelError(
            f"remap of head {later.name!r}: the earlier cut leaves {earlier.new_units} units, "
            f"the later one starts from {later.old_units}"
        )
    if later.options["probabilities"] == "absolute" and len(earlier.kept) < earlier.old_units:
        raise UsageError(
            f"head {later.name!r} was cut before: what it shares out is not what the original did",
            "cut the original, or leave out --probabilities absolute",
        )
    _refuse_gate(earlier, later)
    places = tuple(_before(earlier, place) for place in later.new_to_old)
    alive = set(earlier.kept).intersection(_before_all(earlier, later.kept))
    kept = tuple(unit for place in places for unit in members(place) if unit in alive)
    if not kept:
        raise UsageError(
            f"no unit that is kept in head {later.name!r} is alive: an earlier cut removed them "
            f"with mode {earlier.mode}",
            "keep a unit that the earlier cut kept",
        )
    source = _tells_of_dead(earlier, later)
    options = {key: _either(earlier, later, key) for key in OPTIONS}
    options |= {key: source.options[key] for key in ("floor", "restore_width")}
    options["merge"] = _groups(earlier, later, places)
    if later.options["restore_ids"]:
        options["ids"] = later.options["ids"]
    return replace(
        later,
        mode=source.mode,
        old_units=earlier.old_units,
        kept=kept,
        new_to_old=places,
        labels=_labels(earlier, later),
        options=options,
    )


def _refuse_gate(earlier: HeadRemap, later: HeadRemap) -> None:
    standing = {unit for place in earlier.new_to_old for unit in members(place)}
    if later.options["gate"] is not None and standing.difference(earlier.kept):
        raise UsageError(
            f"head {later.name!r} was cut with mode {earlier.mode}: its removed units still have "
            "places, and a gate cannot stand beside them",
            "cut the original with the gate, and with the units to keep",
        )


def _before_all(earlier: HeadRemap, units: tuple[int, ...]) -> tuple[int, ...]:
    """The original units that stand at these places of the file in between."""
    return tuple(member for unit in units for member in members(earlier.new_to_old[unit]))


def _before(earlier: HeadRemap, place: Place) -> Place:
    units = _before_all(earlier, members(place))
    return units[0] if len(units) == 1 else tuple(sorted(units))


def _tells_of_dead(earlier: HeadRemap, later: HeadRemap) -> HeadRemap:
    """The cut whose mode says how dead places answer (cases 3 and 4)."""
    places = [unit for place in later.new_to_old for unit in members(place)]
    alive = set(earlier.kept)
    carried = not alive.issuperset(_before_all(earlier, later.kept))
    own = len(later.kept) < len(places) or later.options["gate"] is not None
    if carried and own and _answer(earlier) != _answer(later):
        raise UsageError(
            f"head {later.name!r} was cut with mode {earlier.mode}, and its removed units cannot "
            f"stand beside those of mode {later.mode}",
            f"use --mode {earlier.mode}, remove those units again, keep the width away with "
            "--mode slice, or cut the original anew",
        )
    if own or carried:
        return later if own else earlier
    return later if later.new_units < later.old_units else earlier


def _answer(head: HeadRemap) -> tuple[Any, ...]:
    return head.mode, head.options["floor"], head.options["restore_width"]


def _either(earlier: HeadRemap, later: HeadRemap, key: str) -> Any:
    value = later.options[key]
    return earlier.options[key] if value is None else value


def _groups(
    earlier: HeadRemap, later: HeadRemap, places: tuple[Place, ...]
) -> dict[str, tuple[int, ...]] | None:
    """The merged groups of both cuts that are places of the result, in original units."""
    standing = {members(place) for place in places}
    before = earlier.options["merge"] or {}
    after = {
        name: tuple(sorted(_before_all(earlier, group)))
        for name, group in (later.options["merge"] or {}).items()
    }
    groups = {name: g for name, g in before.items() if g in standing.difference(after.values())}
    return (groups | after) or None


def _labels(earlier: HeadRemap, later: HeadRemap) -> tuple[str, ...] | None:
    """The later labels, else the earlier ones; a merged unit bears its members', joined."""
    if later.labels is not None or earlier.labels is None:
        return later.labels
    known = earlier.labels
    return tuple("+".join(known[unit] for unit in members(p)) for p in later.new_to_old)
