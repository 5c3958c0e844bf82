"""The table of one head between old and new unit indices. NumPy only: a device can use it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.errors import ModelError, UsageError

Array = npt.NDArray[Any]
OldUnits = int | tuple[int, ...]  # the old unit of one new unit, or all members of a merged one
OnMissing = Literal["drop", "raise", "other"]

ON_MISSING: tuple[OnMissing, ...] = ("drop", "raise", "other")
_LARGEST = 2**63 - 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _is_groups(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(group, list | tuple) and all(isinstance(unit, int) for unit in group)
        for group in value.values()
    )


def _is_emit(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("output"), str):
        return False
    count = value.get("count")
    return count is None or (isinstance(count, int) and count > 0)


def _is_vocabulary(value: Any) -> bool:
    if not isinstance(value, Mapping) or not _is_names(value.get("inputs")):
        return False
    unknown = value.get("unknown")
    return _is_bool(value.get("keep_ids")) and (unknown is None or isinstance(unknown, int))


OPTIONS: Mapping[str, Callable[[Any], bool]] = {  # option -> is this a valid value?
    "probabilities": lambda value: value in ("renormalized", "absolute"),
    "floor": _is_number,
    "merge": _is_groups,
    "restore_width": _is_bool,
    "gate": lambda _: True,
    "ids": _is_names,
    "restore_ids": _is_bool,
    "emit": _is_emit,
    "labels_given": _is_bool,
    "drop_outputs": _is_names,
    "vocabulary": _is_vocabulary,
    "gather": _is_bool,
}


class RelabeledSamples(NamedTuple):
    """Labels for the pruned model, and the samples that they belong to.

    Attributes:
        y: new indices, int64.
        rows: the samples to use, int64, ascending: `x[rows]` belongs to `y`.
    """

    y: Array
    rows: Array


@dataclass(frozen=True, kw_only=True)
class HeadRemap:
    """The table of one head.

    Attributes:
        name: the head's name.
        output: the output that shows its units.
        axis: the unit axis of that output, not negative.
        part: the range of the units on the new axis, start and stop; None if all of it are units.
        mode: how units were removed; decides the values of removed units that have a position.
        activation: the last activation, "linear" if there is none.
        logits: the tensor of this file with the values before that activation, to verify it by;
            None if the output itself has them, or if nobody recorded it (converted files, and files
            written before this key existed).
        old_units: the number of units of the first original.
        new_units: the number of units of this file.
        kept: the kept units, as indices of the first original, in the order of their positions.
        new_to_old: for each new unit the original one, or all members of a merged one. A mode that
            keeps the width has all units here, and `kept` says which of them are kept.
        labels: one for each new unit.
        options: options that change the meaning, by the keys of OPTIONS; None if not used.
            probabilities: "renormalized" or "absolute".
            floor: the finite value of removed units.
            merge: name of a group -> its members, original units.
            restore_width: True if the output was padded to its original width.
            gate: how a gate chooses units, any JSON value.
            restore_ids: True if the outputs with unit or class indices return those of the first
                original.
            ids: names of the outputs that return new unit indices.
            emit: an output with the first original's indices of the units that rank first:
                {"output": its name, "count": how many; None for the best one without an axis}.
            drop_outputs: names of the outputs that the cut removed from the model.
            vocabulary: the units are tokens, and the table of token embeddings was cut too:
                {"inputs": names of the inputs with token ids, "keep_ids": True if they still take
                the first original's ids, "unknown": the original id of the token that removed ids
                count as, if there is one}.
            gather: True if the units were taken from the output, which an operation before it
                mixes: no weight was removed.
            labels_given: True if the user gave the labels; otherwise they come from the model.

    Raises:
        ModelError: the fields contradict each other.
    """

    name: str
    output: str
    axis: int
    part: tuple[int, int] | None = None
    mode: str
    activation: str
    logits: str | None = None
    old_units: int
    new_units: int
    kept: tuple[int, ...]
    new_to_old: tuple[OldUnits, ...]
    labels: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        self._check_widths()
        self._check_units()
        self._check_options()
        options = {key: self.options.get(key) for key in OPTIONS}
        if options["merge"] is not None:
            options["merge"] = {name: tuple(group) for name, group in options["merge"].items()}
        for key in ("ids", "drop_outputs"):
            options[key] = tuple(options[key] or ()) or None
        if options["vocabulary"] is not None:
            inputs = tuple(options["vocabulary"]["inputs"])
            options["vocabulary"] = {**options["vocabulary"], "inputs": inputs}
        object.__setattr__(self, "options", options)

    def _check_widths(self) -> None:
        self._check(self.axis >= 0, f"the axis {self.axis} is negative")
        self._check(0 < self.old_units <= _LARGEST, f"{self.old_units} old units")
        self._check(
            self.new_units == len(self.new_to_old),
            f"{self.new_units} new units, but new_to_old has {len(self.new_to_old)} entries",
        )
        if self.part is not None:
            start, stop = self.part
            fits = start >= 0 and stop - start >= self.new_units
            self._check(fits, f"{self.new_units} units do not fit the part [{start}, {stop}]")
        if self.labels is not None:
            count = len(self.labels)
            self._check(count == self.new_units, f"{count} labels for {self.new_units} units")

    def _check_units(self) -> None:
        self._check(bool(self.kept), "no unit is kept")
        present: Any = self.new_to_old
        if tuple in set(map(type, present)):
            self._check(all(map(members, present)), "new_to_old has an entry with no member")
            present = [unit for units in present for unit in members(units)]
        self._check(bool(present), "no unit has a position")
        named = {"new_to_old": present} if present != self.kept else {}
        for where, units in {"kept": self.kept, **named}.items():
            for unit in (min(units), max(units)):
                inside = 0 <= unit < self.old_units
                self._check(inside, f"{where} names unit {unit}, of {self.old_units}")
            self._check(len(set(units)) == len(units), f"{where} names a unit twice")
        inside = not named or set(self.kept).issubset(present)
        self._check(inside, "a kept unit is not in new_to_old")

    def _check_options(self) -> None:
        unknown = ", ".join(sorted(set(self.options) - set(OPTIONS)))
        self._check(not unknown, f"unknown options: {unknown}")
        for name, value in self.options.items():
            valid = value is None or OPTIONS[name](value)
            self._check(valid, f"the option {name} is {value!r}")
        groups = set(map(tuple, (self.options.get("merge") or {}).values()))
        merged = not groups or groups <= set(map(members, self.new_to_old))
        self._check(merged, "the option merge does not name the members of merged units")
        has_floor = self.options.get("floor") is not None or bool(self.options.get("restore_width"))
        self._check(self.mode != "mask" or has_floor, "mode mask without a floor for removed units")

    def _check(self, holds: bool, fact: str) -> None:
        if not holds:
            raise ModelError(f"remap of head {self.name!r}: {fact}")

    def to_original(self, indices: npt.ArrayLike) -> Array:
        """The first original's index of each new index; the lowest member of a merged unit.

        Args:
            indices: new indices, whole numbers of any dtype (detectors return floats), any shape.

        Returns:
            int64, of the same shape.

        Raises:
            UsageError: not whole numbers, or out of range.
        """
        return np.asarray(self._lowest[_whole(indices, self.new_units, "new")])

    def to_new(self, indices: npt.ArrayLike, missing: int = -1) -> Array:
        """The new index of each original index, and `missing` for units without a position.

        A removed unit has a new index if its position was kept, as in mode zero.

        Args:
            indices: original indices, whole numbers of any dtype, any shape.
            missing: the result for units without a position.

        Returns:
            int64, of the same shape.

        Raises:
            UsageError: not whole numbers, or out of range.
        """
        wanted = _whole(indices, self.old_units, "original")
        old, new = self._old_and_new
        at = np.minimum(np.searchsorted(old, wanted), len(old) - 1)
        return np.where(old[at] == wanted, new[at], np.int64(missing))

    def relabel(self, y: npt.ArrayLike, on_missing: OnMissing = "drop") -> RelabeledSamples:
        """A dataset's labels in new indices, to train or evaluate the pruned model with.

        A label is missing if its unit was removed, even if the unit's position was kept (zero).
        The members of a merged unit become that unit.

        Args:
            y: original indices, whole numbers of any dtype, samples first. For one-hot labels, use
                `y.argmax(axis=-1)`.
            on_missing: "drop" leaves out the samples with a missing label, of (samples,) or
                (samples, 1) labels; "raise" refuses them; "other" gives them the index after the
                last unit, for a model with one more unit.

        Raises:
            UsageError: not whole numbers, or out of range; labels that cannot be dropped one by
                one; with "raise", a missing label.
        """
        if on_missing not in ON_MISSING:
            raise UsageError(
                f"on_missing is {on_missing!r}", f"it is one of {', '.join(map(repr, ON_MISSING))}"
            )
        old = _whole(y, self.old_units, "original")
        new = self.to_new(old)
        is_missing = (new < 0) | ~self._is_kept[new]
        if on_missing == "drop" and old.size > len(np.atleast_1d(old)):
            raise UsageError(
                f"labels of shape {old.shape} cannot be dropped one by one",
                'use on_missing="other", and give these positions no weight',
            )
        if on_missing == "raise" and is_missing.any():
            units = np.unique(old[is_missing])
            raise UsageError(
                f"{int(is_missing.sum())} labels name {len(units)} removed units, the first is "
                f"{units[0]}",
                'on_missing="drop" leaves these samples out',
            )
        new = np.where(is_missing, np.int64(self.new_units), new)
        rows = np.arange(len(np.atleast_1d(old)))
        if on_missing == "drop":
            present = ~np.atleast_1d(is_missing).any(axis=tuple(range(1, is_missing.ndim)))
            rows = np.flatnonzero(present)
            new = np.atleast_1d(new)[rows]
        return RelabeledSamples(new, rows)

    def expand(self, values: npt.ArrayLike, fill: float = 0.0, axis: int = -1) -> Array:
        """The values at the original's width, with `fill` for units without a position.

        The value of a merged unit goes to its lowest member. Values of removed units that have a
        position (zero, mask) are returned unchanged.

        Args:
            values: of the units alone (cut out `part` first), `new_units` long on `axis`.
            fill: must be exact in an integer dtype.
            axis: the unit axis of `values`.

        Returns:
            The dtype of `values`; `old_units` long on `axis`.

        Raises:
            UsageError: another width, or a fill that the dtype cannot represent.
        """
        narrow = np.asarray(values)
        if not -narrow.ndim <= axis < narrow.ndim or narrow.shape[axis] != self.new_units:
            raise UsageError(
                f"values of shape {narrow.shape} have no {self.new_units} units on axis {axis}",
                "give the values of the units alone, and their axis",
            )
        _check_fill(fill, narrow.dtype)
        shape = list(narrow.shape)
        shape[axis] = self.old_units
        wide = np.full(shape, fill, narrow.dtype)
        index: list[slice | Array] = [slice(None)] * narrow.ndim
        index[axis] = self._lowest
        wide[tuple(index)] = narrow
        return wide

    def label(self, new_index: int) -> str:
        """The label of a new unit; UsageError if out of range or if the table has no labels."""
        if self.labels is None:
            raise UsageError(
                f"the remap of head {self.name!r} has no labels",
                "give labels when you cut the model",
            )
        return self.labels[int(_whole(new_index, self.new_units, "new"))]

    @cached_property
    def _is_kept(self) -> Array:
        """Which new units are kept, or have a kept member: (new_units,) bool."""
        kept = set(self.kept)
        return np.asarray([not kept.isdisjoint(members(old)) for old in self.new_to_old], bool)

    @cached_property
    def _lowest(self) -> Array:
        return originals(self)

    @cached_property
    def _old_and_new(self) -> tuple[Array, Array]:
        """All original units that have a position, ascending, and their new indices."""
        pairs = [(old, new) for new, units in enumerate(self.new_to_old) for old in members(units)]
        old, new = np.asarray(sorted(pairs), np.int64).T
        return old, new


def members(units: OldUnits) -> tuple[int, ...]:
    """The original units of one new unit."""
    return units if isinstance(units, tuple) else (units,)


def originals(head: HeadRemap) -> Array:
    """The first original's index of each new unit, int64; the lowest member of a merged unit."""
    return np.asarray([min(members(units)) for units in head.new_to_old], np.int64)


def group_names(head: HeadRemap) -> dict[int, str]:
    """New index -> name of the group, for the merged units."""
    names = {tuple(group): name for name, group in (head.options["merge"] or {}).items()}
    merged = enumerate(map(members, head.new_to_old))
    return {new: names[units] for new, units in merged if units in names}


def _whole(indices: npt.ArrayLike, limit: int, kind: str) -> Array:
    """The indices as int64, checked: NumPy would count negative ones from the end."""
    try:
        array = np.asarray(indices)
    except ValueError:  # ragged lists
        array = np.asarray(None)
    if array.dtype.kind not in "iuf" or not np.array_equal(array, np.trunc(array)):
        raise UsageError(f"the {kind} indices are not an array of whole numbers")
    if array.size:
        low, high = array.min().item(), array.max().item()
        if not 0 <= low <= high < limit:
            raise UsageError(
                f"{kind} indices from {low} to {high} are out of range",
                f"there are {limit} units, 0 to {limit - 1}",
            )
    return array.astype(np.int64)


def _check_fill(fill: float, dtype: np.dtype[Any]) -> None:
    """Refuse a fill that NumPy would round without an error, such as 0.5 among integers."""
    if dtype.kind not in "iu":
        return
    bounds = np.iinfo(dtype)
    if not bounds.min <= fill <= bounds.max or fill != int(fill):
        raise UsageError(f"{dtype} cannot represent the fill {fill}")
