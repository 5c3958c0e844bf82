"""The table of one head between old and new unit indices. NumPy only: a device can use it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.errors import ModelError, UsageError

Array = npt.NDArray[Any]
Place = int | tuple[int, ...]
Missing = Literal["drop", "raise", "other"]

OPTIONS = (
    "probabilities",
    "floor",
    "merge",
    "restore_width",
    "gate",
    "ids",
    "restore_ids",
    "emit",
)
_LARGEST = 2**63 - 1

MISSING: tuple[Missing, ...] = ("drop", "raise", "other")


class Relabeled(NamedTuple):
    """Labels for the cut model, and the samples that they belong to.

    Attributes:
        y: new indices, int64.
        rows: the samples that stay, int64, ascending: `x[rows]` goes with `y`.
    """

    y: Array
    rows: Array


@dataclass(frozen=True, kw_only=True)
class HeadRemap:
    """The table of one head.

    Attributes:
        name: the head's name.
        output: the output that shows its units.
        axis: the unit axis of that output, counted from the front.
        part: where on the new axis the units stand, start and stop, where other things share it.
        mode: how removed units that still have a place answer; "slice" where none has.
        activation: the last activation, "linear" where there is none.
        old_units: the number of units of the first original.
        new_units: the number of units of this file.
        kept: the original units that still answer, in the order of their places.
        new_to_old: for each new unit the original one, or all members of a merged one. In a mode
            that keeps the width this is the identity, and `kept` says which units are alive.
        labels: one a new unit.
        options: what changes the meaning: the keys of OPTIONS, None where unused.
            probabilities: "renormalized" or "absolute".
            floor: the finite value that stands for removed units.
            merge: maps the name of a group to its members, original units.
            restore_width: True where the old width was restored outside.
            gate: how a gate chooses, any JSON value.
            restore_ids: True where the outputs that hold indices of units, or class numbers, give
                the first original's.
            ids: names of the outputs that hold indices of units: new ones, as this table has them.
            emit: an output with the first original's indices of the units that rank first:
                {"output": its name, "count": how many; None for the best alone}.

    Raises:
        ModelError: the fields contradict each other.
    """

    name: str
    output: str
    axis: int
    part: tuple[int, int] | None = None
    mode: str
    activation: str
    old_units: int
    new_units: int
    kept: tuple[int, ...]
    new_to_old: tuple[Place, ...]
    labels: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        unknown = ", ".join(sorted(set(self.options) - set(OPTIONS)))
        self._demand(not unknown, f"unknown options: {unknown}")
        self._check_widths()
        self._check_units()
        self._check_options()
        options = {key: self.options.get(key) for key in OPTIONS}
        if options["merge"] is not None:
            options["merge"] = {name: tuple(group) for name, group in options["merge"].items()}
        if options["ids"] is not None:
            options["ids"] = tuple(options["ids"])
        object.__setattr__(self, "options", options)

    def _check_widths(self) -> None:
        self._demand(self.axis >= 0, f"the axis {self.axis} is negative")
        self._demand(0 < self.old_units <= _LARGEST, f"{self.old_units} old units")
        self._demand(
            self.new_units == len(self.new_to_old),
            f"{self.new_units} new units, but new_to_old has {len(self.new_to_old)} entries",
        )
        if self.part is not None:
            start, stop = self.part
            fits = start >= 0 and stop - start >= self.new_units
            self._demand(fits, f"{self.new_units} units do not fit the part [{start}, {stop}]")
        if self.labels is not None:
            count = len(self.labels)
            self._demand(count == self.new_units, f"{count} labels for {self.new_units} units")

    def _check_units(self) -> None:
        standing = [unit for place in self.new_to_old for unit in members(place)]
        self._demand(bool(self.kept), "no unit is kept")
        self._demand(bool(standing), "no unit has a place")
        self._demand(all(map(members, self.new_to_old)), "new_to_old has an entry with no member")
        for where, units in (("kept", self.kept), ("new_to_old", standing)):
            for unit in (min(units), max(units)):
                inside = 0 <= unit < self.old_units
                self._demand(inside, f"{where} names unit {unit}, of {self.old_units}")
            self._demand(len(set(units)) == len(units), f"{where} names a unit twice")
        homeless = set(self.kept).difference(standing)
        self._demand(not homeless, "a kept unit has no place in new_to_old")

    def _check_options(self) -> None:
        get = self.options.get
        known = get("probabilities") in (None, "renormalized", "absolute")
        self._demand(known, f"the option probabilities is {get('probabilities')!r}")
        floor = get("floor")
        finite = isinstance(floor, int | float) and abs(floor) <= sys.float_info.max
        self._demand(floor is None or finite, f"the option floor is {floor!r}")
        for name in ("restore_width", "restore_ids"):
            restored = get(name)
            boolean = restored is None or isinstance(restored, bool)
            self._demand(boolean, f"the option {name} is {restored!r}")
        ids = get("ids")
        named = ids is None or (
            isinstance(ids, list | tuple) and all(isinstance(name, str) for name in ids)
        )
        self._demand(named, f"the option ids is {ids!r}")
        self._demand(_emits(get("emit")), f"the option emit is {get('emit')!r}")
        self._demand(self._merges(), "the option merge does not name the members of merged units")

    def _merges(self) -> bool:
        merge = self.options.get("merge")
        places = {members(place) for place in self.new_to_old}
        return merge is None or (
            isinstance(merge, Mapping)
            and all(isinstance(group, list | tuple) for group in merge.values())
            and all(isinstance(unit, int) for group in merge.values() for unit in group)
            and all(tuple(group) in places for group in merge.values())
        )

    def _demand(self, holds: bool, fact: str) -> None:
        if not holds:
            raise ModelError(f"remap of head {self.name!r}: {fact}")

    def to_original(self, indices: npt.ArrayLike) -> Array:
        """The first original's index of each new index; the lowest member of a merged unit.

        Args:
            indices: new indices, whole numbers of any dtype (detectors give floats), any shape.

        Returns:
            int64, of the same shape.

        Raises:
            UsageError: not whole numbers, or out of range.
        """
        return np.asarray(self._lowest[_whole(indices, self.new_units, "new")])

    def to_new(self, indices: npt.ArrayLike, missing: int = -1) -> Array:
        """The new index of each original index, and `missing` where the unit has no place.

        A unit that a mode such as zero removed, but whose place remains, has a new index.

        Args:
            indices: original indices, whole numbers of any dtype, any shape.
            missing: stands for units without a place.

        Returns:
            int64, of the same shape.

        Raises:
            UsageError: not whole numbers, or out of range.
        """
        wanted = _whole(indices, self.old_units, "original")
        old, new = self._places
        at = np.minimum(np.searchsorted(old, wanted), len(old) - 1)
        return np.where(old[at] == wanted, new[at], np.int64(missing))

    def relabel(self, y: npt.ArrayLike, on_missing: Missing = "drop") -> Relabeled:
        """A dataset's labels in new indices, to train or to judge the cut model with.

        A label is missing if its unit was removed, also where the unit's place remains (zero).
        The members of a merged unit become that unit.

        Args:
            y: original indices, whole numbers of any dtype, samples in front. Not one-hot: take
                `y.argmax(axis=-1)` of such labels.
            on_missing: "drop" leaves out the samples with a missing label, of (samples,) or
                (samples, 1) labels; "raise" refuses them; "other" gives them the index behind the
                last unit, for a model with one unit more.

        Raises:
            UsageError: not whole numbers, or out of range; labels that cannot be dropped one by
                one; with "raise", a missing label.
        """
        if on_missing not in MISSING:
            raise UsageError(
                f"on_missing is {on_missing!r}", f"it is one of {', '.join(map(repr, MISSING))}"
            )
        old = _whole(y, self.old_units, "original")
        new = self.to_new(old)
        gone = (new < 0) | ~self._answers[new]
        if on_missing == "drop" and old.size > len(np.atleast_1d(old)):
            raise UsageError(
                f"labels of shape {old.shape} cannot be dropped one by one",
                'use on_missing="other", and give these positions no weight',
            )
        if on_missing == "raise" and gone.any():
            units = np.unique(old[gone])
            raise UsageError(
                f"{int(gone.sum())} labels name {len(units)} removed units, the first is "
                f"{units[0]}",
                'on_missing="drop" leaves these samples out',
            )
        new = np.where(gone, np.int64(self.new_units), new)
        rows = np.arange(len(np.atleast_1d(old)))
        if on_missing == "drop":
            rows = np.flatnonzero(~np.atleast_1d(gone).any(axis=tuple(range(1, gone.ndim))))
            new = np.atleast_1d(new)[rows]
        return Relabeled(new, rows)

    def expand(self, values: npt.ArrayLike, fill: float = 0.0, axis: int = -1) -> Array:
        """The values at the original's width, with `fill` where a unit has no place any more.

        A merged unit's value stands at its lowest member. Values of units that were removed in
        place (zero, mask) are returned as they are.

        Args:
            values: of the units alone (cut out `part` first), `new_units` long on `axis`.
            fill: must be exact in an integer dtype.
            axis: the unit axis of `values`.

        Returns:
            The dtype of `values`; `old_units` long on `axis`.

        Raises:
            UsageError: another width, or a fill that the dtype cannot hold.
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
                f"the remap of head {self.name!r} carries no labels", "cut the model with labels"
            )
        return self.labels[int(_whole(new_index, self.new_units, "new"))]

    @cached_property
    def _answers(self) -> Array:
        """Which new units still answer: (new_units,) bool."""
        kept = set(self.kept)
        return np.asarray([not kept.isdisjoint(members(p)) for p in self.new_to_old], bool)

    @cached_property
    def _lowest(self) -> Array:
        return originals(self)

    @cached_property
    def _places(self) -> tuple[Array, Array]:
        """Every original unit that has a place, ascending, and the new index of that place."""
        pairs = [(unit, new) for new, p in enumerate(self.new_to_old) for unit in members(p)]
        old, new = np.asarray(sorted(pairs), np.int64).T
        return old, new


def _emits(emit: Any) -> bool:
    if emit is None:
        return True
    if not isinstance(emit, Mapping) or not isinstance(emit.get("output"), str):
        return False
    count = emit.get("count")
    return count is None or (isinstance(count, int) and count > 0)


def members(place: Place) -> tuple[int, ...]:
    """The original units that stand at one place."""
    return place if isinstance(place, tuple) else (place,)


def originals(head: HeadRemap) -> Array:
    """The first original's index of each new unit, int64; of a merged one its lowest member's."""
    return np.asarray([min(members(place)) for place in head.new_to_old], np.int64)


def group_names(head: HeadRemap) -> dict[int, str]:
    """What a merged unit is called: new index -> name of its group."""
    names = {tuple(group): name for name, group in (head.options["merge"] or {}).items()}
    return {new: names[members(p)] for new, p in enumerate(head.new_to_old) if members(p) in names}


def _whole(indices: npt.ArrayLike, limit: int, kind: str) -> Array:
    """The indices as int64, checked: a negative one would silently count from the end."""
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
    """NumPy would cut 0.5 to 0 in an integer array without a word."""
    if dtype.kind not in "iu":
        return
    bounds = np.iinfo(dtype)
    if not bounds.min <= fill <= bounds.max or fill != int(fill):
        raise UsageError(f"the fill {fill} cannot stand among values of {dtype}")
