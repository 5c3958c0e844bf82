"""Combine the tables of two cuts of one head, the second after the first, into one table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from exporter.errors import ModelError, UsageError
from exporter.remap.head_remap import OPTIONS, HeadRemap, OldUnits, members


def recut(earlier: HeadRemap, later: HeadRemap) -> HeadRemap:
    """The table from the first original to the file that was cut twice.

    A *placeholder* is a removed unit that still has a position, as in modes zero, mask and gate.

    1. The output, its axis and part, the activation, the logits and the new width come from the
       later cut.
    2. `kept` contains the units that both cuts kept. If mode zero follows slice, the positions
       are those of the slice, and `kept` has fewer units. If slice follows zero, it may keep
       placeholders, which are not in `kept`.
    3. `mode`, `floor` and `restore_width` come from the cut that made the placeholders. Without
       placeholders, they come from the later cut if it made the output narrower, else from the
       earlier one.
    4. A unit that both cuts removed is a placeholder of the later cut. If both cuts made
       placeholders (the later cut keeps a unit that the earlier one removed), they must have the
       same mode, floor and restored width: a table records one value for all placeholders.
    5. A gate decides about all units. Placeholders of an earlier cut are neither on nor off, and
       would change the probabilities that the gate compares, so a gate allows none.
    6. Other options come from the later cut if it used them, else from the earlier one. Merged
       groups of both cuts are listed with original unit indices; a later group replaces the
       earlier groups that it includes. If the later cut restored the ids, no output returns new
       ones.

    Args:
        earlier: the table in the file that the later cut started from.
        later: the table of the later cut alone, with the unit indices of that file.

    Raises:
        ModelError: the later cut starts from another number of units than the earlier one made.
        UsageError: no unit is kept by both cuts; the cuts break rule 4 or 5; or the later cut asks
            for absolute probabilities, and the earlier one removed units.
    """
    if later.old_units != earlier.new_units:
        raise ModelError(
            f"remap of head {later.name!r}: the earlier cut results in {earlier.new_units} units, "
            f"the later one starts from {later.old_units}"
        )
    if later.options["probabilities"] == "absolute" and len(earlier.kept) < earlier.old_units:
        raise UsageError(
            f"head {later.name!r} was cut before, so the original's probabilities are not known",
            "cut the original, or leave out --probabilities absolute",
        )
    _refuse_gate(earlier, later)
    if earlier.options["vocabulary"] and not later.options["vocabulary"]:
        raise UsageError(
            f"head {later.name!r} was cut on both sides of its vocabulary, so that its inputs take "
            "the ids that it returns",
            "use --vocabulary both again",
        )
    new_to_old = tuple(_originals_of(earlier, units) for units in later.new_to_old)
    kept_by_both = set(earlier.kept).intersection(_all_originals(earlier, later.kept))
    kept = tuple(unit for units in new_to_old for unit in members(units) if unit in kept_by_both)
    if not kept:
        raise UsageError(
            f"all units to keep in head {later.name!r} were removed by an earlier cut with mode "
            f"{earlier.mode}",
            "keep a unit that the earlier cut kept",
        )
    source = _cut_of_placeholders(earlier, later)
    options = {key: _later_or_earlier(earlier, later, key) for key in OPTIONS}
    options |= {key: source.options[key] for key in ("floor", "restore_width")}
    options["merge"] = _groups(earlier, later, new_to_old)
    dropped = [table.options["drop_outputs"] or () for table in (earlier, later)]
    options["drop_outputs"] = (*dropped[0], *dropped[1]) or None
    if later.options["restore_ids"]:
        options["ids"] = later.options["ids"]
    return replace(
        later,
        mode=source.mode,
        old_units=earlier.old_units,
        kept=kept,
        new_to_old=new_to_old,
        labels=_labels(earlier, later),
        options=options,
    )


def _refuse_gate(earlier: HeadRemap, later: HeadRemap) -> None:
    present = {unit for units in earlier.new_to_old for unit in members(units)}
    if later.options["gate"] is not None and present.difference(earlier.kept):
        raise UsageError(
            f"head {later.name!r} was cut with mode {earlier.mode}: its removed units still have "
            "positions, and a gate needs a head without removed units",
            "cut the original with the gate, and with the units to keep",
        )


def _all_originals(earlier: HeadRemap, units: tuple[int, ...]) -> tuple[int, ...]:
    """The original indices of units of the file between the two cuts."""
    return tuple(old for unit in units for old in members(earlier.new_to_old[unit]))


def _originals_of(earlier: HeadRemap, units: OldUnits) -> OldUnits:
    found = _all_originals(earlier, members(units))
    return found[0] if len(found) == 1 else tuple(sorted(found))


def _cut_of_placeholders(earlier: HeadRemap, later: HeadRemap) -> HeadRemap:
    """The cut that sets the values of the placeholders (rules 3 and 4)."""
    present = [unit for units in later.new_to_old for unit in members(units)]
    by_earlier = not set(earlier.kept).issuperset(_all_originals(earlier, later.kept))
    by_later = len(later.kept) < len(present) or later.options["gate"] is not None
    if by_earlier and by_later and _placeholder_values(earlier) != _placeholder_values(later):
        raise UsageError(
            f"head {later.name!r} was cut with mode {earlier.mode}: its removed units and those of "
            f"mode {later.mode} would have different values",
            f"use --mode {earlier.mode}, remove those units again, remove their positions with "
            "--mode slice, or cut the original again",
        )
    if by_earlier or by_later:
        return later if by_later else earlier
    return later if later.new_units < later.old_units else earlier


def _placeholder_values(head: HeadRemap) -> tuple[Any, ...]:
    return head.mode, head.options["floor"], head.options["restore_width"]


def _later_or_earlier(earlier: HeadRemap, later: HeadRemap, key: str) -> Any:
    value = later.options[key]
    return earlier.options[key] if value is None else value


def _groups(
    earlier: HeadRemap, later: HeadRemap, new_to_old: tuple[OldUnits, ...]
) -> dict[str, tuple[int, ...]] | None:
    """The merged groups of both cuts that are units of the result, with original unit indices."""
    before = earlier.options["merge"] or {}
    after = {
        name: tuple(sorted(_all_originals(earlier, group)))
        for name, group in (later.options["merge"] or {}).items()
    }
    units = set(map(members, new_to_old)).difference(after.values())
    return ({name: group for name, group in before.items() if group in units} | after) or None


def _labels(earlier: HeadRemap, later: HeadRemap) -> tuple[str, ...] | None:
    """The later labels, else the earlier ones. A merged unit joins those of its members with +."""
    if later.labels is not None or earlier.labels is None:
        return later.labels
    known = earlier.labels
    return tuple("+".join(known[unit] for unit in members(units)) for units in later.new_to_old)
