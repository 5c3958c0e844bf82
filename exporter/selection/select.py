"""Which units stay: checked once, when it is made; what holds a Selection never checks again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from exporter.errors import UsageError
from exporter.selection.lookup import LabelIndex, listed
from exporter.selection.spec import Entry, Glob, Name, parse, whole

_UNFIT = re.compile("[\n\r\ud800-\udfff]")  # what no line of a UTF-8 file can hold


@dataclass(frozen=True)
class Selection:
    """The units that stay.

    Attributes:
        units: how many there are.
        kept: the indices of those that stay, in the order in which they shall stand.
        labels: one an original unit, each on one line; "" for a unit without a name.
        notes: what a reader should know about how the selection came about.

    Raises:
        UsageError: nothing is kept, an index out of range or given twice, or a number of labels
            that is not the number of units.
    """

    units: int
    kept: tuple[int, ...]
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", _whole(self.units))
        object.__setattr__(self, "kept", tuple(map(_whole, self.kept)))
        _check_kept(self.units, self.kept)
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
            _check_labels(self.units, self.labels)

    @cached_property
    def removed(self) -> tuple[int, ...]:
        """The indices of the units that do not stay, ascending."""
        kept = set(self.kept)
        return tuple(unit for unit in range(self.units) if unit not in kept)

    @property
    def kept_labels(self) -> tuple[str, ...] | None:
        """The labels of the kept units, in their order."""
        return None if self.labels is None else tuple(self.labels[unit] for unit in self.kept)

    def named(self, unit: int) -> str:
        """What messages call a unit: by its index, and its label if it has one."""
        label = self.labels[unit] if self.labels else ""
        return f"unit {unit}, {label!r}," if label else f"unit {unit}"

    @property
    def keeps_all(self) -> bool:
        """All units stay, each in its place."""
        return self.kept == tuple(range(self.units))


def select(
    *,
    units: int,
    keep: str | Iterable[int | str] | None = None,
    remove: str | Iterable[int | str] | None = None,
    labels: Sequence[str] | None = None,
    keep_order: bool = False,
) -> Selection:
    """The selection that `keep` or `remove` describes; exactly one of the two is given.

    Labels match exactly, else without regard to case if that fits one unit; a label that fits
    several units is refused. A pattern takes all units that it matches, with regard to case if
    any, else without, and must match one.
    The same index or range twice is an error; an index that two entries reach counts once, with a
    note.

    Args:
        units: how many units there are.
        keep: a string in the selection language, or an iterable of indices and entries; see
            `exporter.selection.spec.parse`.
        remove: likewise; all other units stay.
        labels: one a unit.
        keep_order: the kept units stand in the order given; else ascending.

    Raises:
        UsageError: with the entry and its place.
    """
    every = Selection(units, tuple(range(_whole(units))), None if labels is None else tuple(labels))
    if keep is not None and remove is None:
        named, notes = reached(parse(keep, "keep"), every)
        kept = named if keep_order else sorted(named)
    elif remove is not None and keep is None:
        if keep_order:
            raise UsageError("keep_order has no meaning with remove", "give keep, in that order")
        named, notes = reached(parse(remove, "remove"), every)
        kept = sorted(set(every.kept).difference(named))
    else:
        raise UsageError("give keep or remove, and not both", "the other units follow from it")
    return replace(every, kept=tuple(kept), notes=tuple(notes))


def reached(entries: Iterable[Entry], every: Selection) -> tuple[list[int], list[str]]:
    """The units that the entries name, in their order, and the notes.

    Args:
        entries: see `spec.parse`.
        every: all units, with the labels that entries may name.

    Raises:
        UsageError: an entry that names no unit, or one that another names in the same words.
    """
    names = LabelIndex(every.labels or ())
    places: dict[int | range, str] = {}
    reached: dict[int, None] = {}
    notes: list[str] = []
    readable: list[str] = []
    for entry in entries:
        if isinstance(entry.value, int | range):
            if entry.value in places:
                raise entry.error(f"stands at {places[entry.value]} too", "remove one of the two")
            places[entry.value] = entry.place
        units = _units(entry, every, names)
        again = [unit for unit in units if unit in reached]
        if again:
            notes.append(f"{entry}: {_units_listed(again)} named before, counted once")
        if entry.could_be_label and not set(names.exact.get(entry.text, units)).issuperset(units):
            readable.append(entry.text)
        reached.update(dict.fromkeys(units))
    if readable:
        notes.append(
            f"not read as a label, though there is one: {listed(readable)}; "
            f"write ={readable[0]} for the label"
        )
    return list(reached), notes


def _units_listed(units: Sequence[int]) -> str:
    return f"unit {units[0]} was" if len(units) == 1 else f"units {listed(units)} were"


def _units(entry: Entry, every: Selection, names: LabelIndex) -> Sequence[int]:
    value = entry.value
    if isinstance(value, Name | Glob):
        if every.labels is None:
            raise entry.error(
                "is a label, and there are no labels", "give --labels FILE, or name indices"
            )
        return names.named(entry, value)
    units = range(value, value + 1) if isinstance(value, int) else value
    if units[-1] >= every.units:
        raise entry.error(
            f"there is no unit {units[-1]}",
            f"there are {every.units} units, 0 to {every.units - 1}",
        )
    return units


# --- the checks of a Selection ------------------------------------------------------------------


def _whole(value: object) -> int:
    number = whole(value)
    if number is None:
        raise UsageError(f"{value!r} is not a whole number", "units and indices are whole numbers")
    return number


def _check_kept(units: int, kept: tuple[int, ...]) -> None:
    if units < 1:
        raise UsageError(f"there are {units} units to choose from", "there must be at least one")
    if not kept:
        raise UsageError(f"none of the {units} units would be kept", "keep at least one")
    for unit in (min(kept), max(kept)):
        if not 0 <= unit < units:
            raise UsageError(
                f"there is no unit {unit} to keep", f"there are {units} units, 0 to {units - 1}"
            )
    if len(set(kept)) < len(kept):
        twice = next(unit for unit, count in Counter(kept).items() if count > 1)
        raise UsageError(f"unit {twice} is kept twice", "name each unit once")


def _check_labels(units: int, labels: tuple[str, ...]) -> None:
    if len(labels) != units:
        background = len(labels) + 1 == units
        raise UsageError(
            f"{len(labels)} labels for {units} units",
            "unit 0 may be a background, which needs a label of its own"
            if background
            else "give one label a unit",
        )
    for unit, label in enumerate(labels):
        if not isinstance(label, str):
            raise UsageError(f"the label of unit {unit} is {label!r}", "labels are strings")
    if _UNFIT.search("".join(labels)):
        unit = next(unit for unit, label in enumerate(labels) if _UNFIT.search(label))
        raise UsageError(
            f"the label of unit {unit}, {labels[unit]!r}, does not fit on a line of text",
            "remove line breaks and halves of surrogate pairs",
        )
