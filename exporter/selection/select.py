"""The kept units of a head. A Selection is checked when it is created, and never again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any

from exporter.errors import UsageError
from exporter.selection.lookup import LabelIndex, shorten_list
from exporter.selection.selection_file import SelectionFile, difference, is_unproved
from exporter.selection.spec import (
    ExactLabel,
    LabelPattern,
    SelectionEntry,
    all_integers,
    as_integer,
    as_integers,
    parse,
)

_INVALID = re.compile("[\n\r\ud800-\udfff]")  # cannot be written on a line of a UTF-8 file


@dataclass(frozen=True)
class Selection:
    """The units that are kept.

    Attributes:
        units: number of units before the cut.
        kept: indices of the kept units, in their new order.
        labels: one for each unit before the cut, each on one line; "" for a unit without a label.
        notes: remarks for the user, for example about units that two entries name.
        reasons: kept or removed unit -> why, if a selection file says so.
        matches: for each pattern, the units that it selected, in words.

    Raises:
        UsageError: no unit is kept, an index is out of range or given twice, or the number of
            labels is not the number of units.
    """

    units: int
    kept: tuple[int, ...]
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict, hash=False)
    matches: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        # Named by a string: this room is below the report, and is used without it on devices.
        text: str = import_module("exporter.report.notebook").selection_fragment(self)
        return text

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each unit of the original."""
        notebook = import_module("exporter.report.notebook")
        return notebook.data_frame(notebook.selection_rows(self))

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", _integer(self.units))
        kept: Sequence[int] = self.kept
        if kept == range(self.units) and self.units:  # such a range needs no check
            kept = tuple(kept)
        else:
            is_checked = type(kept) is tuple and all_integers(kept)
            kept = kept if is_checked else tuple(map(_integer, kept))
            _check_kept(self.units, kept)
        object.__setattr__(self, "kept", kept)
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
            _check_labels(self.units, self.labels)

    @cached_property
    def removed(self) -> tuple[int, ...]:
        """The indices of the removed units, ascending."""
        kept = set(self.kept)
        return tuple(unit for unit in range(self.units) if unit not in kept)

    @property
    def kept_labels(self) -> tuple[str, ...] | None:
        """The labels of the kept units, in their order."""
        return None if self.labels is None else tuple(self.labels[unit] for unit in self.kept)

    def describe_unit(self, unit: int) -> str:
        """The unit's index and label, for messages."""
        label = self.labels[unit] if self.labels else ""
        return f"unit {unit}, {label!r}," if label else f"unit {unit}"

    @property
    def ascends(self) -> bool:
        """Whether the kept units have ascending indices."""
        return self.kept == tuple(sorted(self.kept))

    @property
    def as_file(self) -> SelectionFile:
        """The content of a selection file with these units."""
        labels = {unit: label for unit, label in enumerate(self.labels or ()) if label}
        return SelectionFile(self.kept, self.units, self.reasons, labels=labels)

    @property
    def keeps_all(self) -> bool:
        """Whether all units are kept in their order."""
        return len(self.kept) == self.units and self.kept == tuple(range(self.units))


Units = str | Iterable[int | str] | Selection


def select(
    *,
    units: int,
    keep: Units | None = None,
    remove: Units | None = None,
    labels: Sequence[str] | None = None,
    keep_order: bool = False,
    hashes: Collection[str] = (),
) -> Selection:
    """The selection that `keep` or `remove` describes; exactly one of the two is given.

    For example `keep="0-3,cat,sea_*"`.

    1. A label matches exactly, or else without regard to case; it must match one unit. With `=`,
       or if it looks like a pattern, it selects all units that have it.
    2. A pattern selects all units that it matches, and a note lists them: with whole words (`*cat*`
       selects "tiger cat", not "catamaran"), or if there are none, within words; with regard to
       case, or else without. `**` matches within words. It must match at least one unit.
    3. The same index or range twice is an error. A unit that several entries name counts once, with
       a note.

    Args:
        units: number of units.
        keep: a string in the selection language, or an iterable of indices and entries; see
            `exporter.selection.spec.parse`. Or a Selection, which gives its reasons too.
        remove: the same; all other units are kept.
        labels: one for each unit.
        keep_order: the kept units get the order of `keep`, otherwise they ascend.
        hashes: SHA-256 of the model, and of the files that it was made from. A selection file of
            another model is refused.

    Raises:
        UsageError: with the entry and its position.
    """
    labels = None if labels is None else tuple(labels)
    indices = None if remove is not None else as_integers(keep)
    if indices is not None:
        with suppress(UsageError):  # raised below, with the position of the index
            return Selection(units, tuple(indices if keep_order else sorted(indices)), labels)
    all_units: Any = range(_integer(units))
    every = Selection(units, all_units, labels)
    reasons: Mapping[int, str] = {}
    notes: list[str] = []
    entries: tuple[SelectionEntry, ...] = ()
    if keep is not None and remove is None:
        entries = parse(keep, "keep", every.labels or ())
        notes = [*_check_files(entries, every, hashes)]
        named, more = find_units(entries, every)
        notes += more
        reasons = _reasons(entries, named)
        kept = named if keep_order else sorted(named)
    elif remove is not None and keep is None:
        if keep_order:
            raise UsageError(
                "keep_order needs keep, not remove", "give keep with the units in order"
            )
        entries = parse(remove, "remove", every.labels or ())
        if kept_entry := next((entry for entry in entries if entry.file), None):
            raise kept_entry.error("this selection file keeps the unit", "give it with keep")
        named, notes = find_units(entries, every)
        kept = sorted(set(every.kept).difference(named))
    else:
        raise UsageError("give keep or remove, and not both", "the other units follow from it")
    return replace(
        every,
        kept=tuple(kept),
        notes=tuple(notes),
        reasons=reasons,
        matches=tuple(_matches(entries, every)),
    )


def _check_files(
    entries: Iterable[SelectionEntry], every: Selection, hashes: Collection[str]
) -> Iterator[str]:
    """A note for each selection file that may belong to another model; refused if it does."""
    first = {id(entry.file): entry for entry in reversed(tuple(entries)) if entry.file}
    for entry in first.values():
        file = entry.file or SelectionFile(())
        if file.units not in {None, every.units}:
            continue  # `find_units` refuses it
        if reason := difference(file, every.labels, hashes):
            raise UsageError(
                f"{entry.position} was written for {file.model or 'another model'}: {reason}",
                "write a selection for this model: exporter select; or give the same --labels",
            )
        if is_unproved(file, every.labels, hashes):
            yield (
                f"{entry.position} was written for another file, {file.model} (SHA-256 "
                f"{file.sha256[:12]}), and no labels show that its {every.units} units are those "
                "of this model"
            )


def _reasons(entries: Iterable[SelectionEntry], named: Iterable[int]) -> Mapping[int, str]:
    """The reasons in selection files; other entries keep more units than these."""
    entries = tuple(entries)
    files = {id(entry.file): entry.file for entry in entries if entry.file}
    reasons = {unit: why for file in files.values() for unit, why in file.reasons.items()}
    chosen = {entry.value for entry in entries if entry.file}
    return add_reason(reasons, (unit for unit in named if unit not in chosen), "named in keep")


def add_reason(reasons: Mapping[int, str], units: Iterable[int], why: str) -> Mapping[int, str]:
    """The reasons, with one for units that are kept in addition; none if there are none."""
    return {**reasons, **dict.fromkeys(units, why)} if reasons else {}


def find_units(entries: Iterable[SelectionEntry], every: Selection) -> tuple[list[int], list[str]]:
    """The units that the entries name, in their order, and notes for the user.

    Args:
        entries: see `spec.parse`.
        every: all units, with their labels.

    Raises:
        UsageError: an entry that names no unit, or an index or range that is given twice.
    """
    index = LabelIndex(every.labels or ())
    positions: dict[int | range, str] = {}
    found: dict[int, None] = {}
    notes: list[str] = []
    as_labels: list[str] = []
    for entry in entries:
        if isinstance(entry.value, int | range):
            if entry.value in positions:
                first = positions[entry.value]
                raise entry.error(f"it is the same as {first}", "remove one of the two")
            positions[entry.value] = entry.position
        units = _units(entry, every, index)
        if again := [unit for unit in units if unit in found]:
            noun = (
                f"unit {again[0]} was" if len(again) == 1 else f"units {shorten_list(again)} were"
            )
            notes.append(f"{entry}: {noun} named before, counted once")
        if _means_other(entry, units):
            as_labels.append(f"{entry.text} (unit {shorten_list(units)})")
        found.update(dict.fromkeys(units))
    if as_labels:
        notes.append(
            f"read as labels, not as indices: {shorten_list(as_labels)}; write 0-0 for the index 0"
        )
    return list(found), notes


def _matches(entries: Iterable[SelectionEntry], every: Selection) -> Iterator[str]:
    """The units that each pattern selects, and how many more it matches within words."""
    labels = every.labels or ()
    index = LabelIndex(labels)
    for entry in entries:
        if isinstance(entry.value, LabelPattern):
            pattern = entry.value.text
            units = index.find(entry, entry.value)
            named = [f"{labels[unit]} ({unit})" for unit in units]
            more = len(index.within_words(pattern)) - len(units)
            wider = pattern.replace("*", "**")
            rest = f"; {wider!r} selects {more} more, within words" if more > 0 else ""
            noun = "unit" if len(units) == 1 else "units"
            yield f"{entry.text!r} selects {len(units)} {noun}: {shorten_list(named)}{rest}."


def _means_other(entry: SelectionEntry, units: Sequence[int]) -> bool:
    """Does a label look like the index, or range, of other units?"""
    other = range(entry.other, entry.other + 1) if isinstance(entry.other, int) else entry.other
    return other is not None and list(other) != list(units)


def _units(entry: SelectionEntry, every: Selection, index: LabelIndex) -> Sequence[int]:
    value = entry.value
    if isinstance(value, ExactLabel | LabelPattern):
        if every.labels is None:
            raise entry.error(
                "it is a label, and there are no labels", "give --labels FILE, or use indices"
            )
        return index.find(entry, value)
    if entry.file and entry.file.units not in {None, every.units}:
        raise entry.error(
            f"the file is for a model with {entry.file.units} units, this one has {every.units}",
            "write a selection for this model: exporter select",
        )
    units = range(value, value + 1) if isinstance(value, int) else value
    if units[-1] >= every.units:
        raise entry.error(
            f"there is no unit {units[-1]}",
            f"there are {every.units} units, 0 to {every.units - 1}",
        )
    return units


# --- the checks of a Selection ------------------------------------------------------------------


def _integer(value: object) -> int:
    number = as_integer(value)
    if number is None:
        raise UsageError(f"{value!r} is not a whole number", "units and indices are whole numbers")
    return number


def _check_kept(units: int, kept: Sequence[int]) -> None:
    if units < 1:
        raise UsageError(f"the number of units is {units}", "it must be at least 1")
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
            "if unit 0 is a background class, give it a label too"
            if background
            else "give one label for each unit",
        )
    for unit, label in enumerate(labels):
        if not isinstance(label, str):
            raise UsageError(f"the label of unit {unit} is {label!r}", "labels are strings")
    if _INVALID.search("".join(labels)):
        unit = next(unit for unit, label in enumerate(labels) if _INVALID.search(label))
        raise UsageError(
            f"the label of unit {unit}, {labels[unit]!r}, cannot be written on one line",
            "remove line breaks and unpaired surrogates",
        )
