"""What the user wants kept, and how the rest goes: one record, checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.modes import MODES, Semantics
from exporter.modes.semantics import INPUT, INPUT_FLOAT
from exporter.selection.conditions import parse_condition

Units = str | Iterable[int | str]


@dataclass(frozen=True)
class CutOptions:
    """What to keep, and how the rest goes.

    Attributes:
        keep, remove: a SPEC, or indices and labels; exactly one of the two is given.
        labels: a label file, or one label a unit; None takes those that the model carries.
        keep_order: the new order is the one given, not ascending.
        head: name of the head, where the model has several.
        mode: key of MODES.
        units: where on its axis the units stand, "A:B" or the two numbers, where other things share
            the axis and nothing tells them apart.
        restore_ids: outputs that hold class numbers give those of the first original.
        new_ids: outputs of an argmax or a top-k give the indices that units have after the cut;
            otherwise they give those of the first original.
        emit: "ids" for one more output, with the first original's index of the unit that ranks
            first, or "ids:K" for those of the first K; int32, all other outputs stay as they are.
        probabilities, restore_width, for_quantization: see `Semantics`.
        merge: name of a group -> its members, in the words of keep; they become one unit, and stay
            whether keep names them or not. With merge alone all other units stay too.
        allow_nonfinite: cut a model with NaN or infinite weights.
        allow_remove_special: remove units such as a detector's background.
        gate: how units are chosen while the model runs: "input", "input:float", or a condition (see
            `exporter.selection.conditions`). It makes the mode "gate"; without keep and remove,
            every unit may be on.

    Raises:
        UsageError: no such mode, neither or both of keep and remove, something that is neither a
            SPEC nor a sequence, or an order or groups for a mode in which units keep their places.
    """

    keep: Units | None = None
    remove: Units | None = None
    labels: str | Path | Sequence[str] | None = None
    keep_order: bool = False
    head: str | None = None
    mode: str = "slice"
    units: str | tuple[int, int] | None = None
    restore_ids: bool = False
    new_ids: bool = False
    emit: str | None = None
    probabilities: str = "renormalized"
    restore_width: bool = False
    for_quantization: bool = False
    merge: Mapping[str, Units] = field(default_factory=dict)
    allow_nonfinite: bool = False
    allow_remove_special: bool = False
    gate: str | None = None

    @property
    def meaning(self) -> Semantics:
        """What the options say of the answers, as it was asked for."""
        return Semantics(
            self.probabilities, self.restore_width, self.for_quantization, gate=self.gate
        )

    @property
    def narrows(self) -> bool:
        """Will the output have one position a kept unit instead of one a unit?"""
        return MODES[self.mode].narrows and not self.restore_width

    def _meaningless(self, option: str, hint: str) -> UsageError:
        why = "restore_width" if self.restore_width else f"mode {self.mode}"
        return UsageError(
            f"{option} has no meaning with {why}, where units keep their places", hint
        )

    def __post_init__(self) -> None:
        if self.gate is not None:
            self._gate()
        if self.mode not in MODES:
            raise UsageError(f"there is no mode {self.mode!r}", f"modes: {', '.join(MODES)}")
        asked = self.merge or self.gate is not None
        neither = self.keep is None and self.remove is None and not asked
        if neither or (self.keep is not None and self.remove is not None):
            raise UsageError("give keep or remove, and not both", "the other units follow from it")
        if self.keep_order and not self.narrows:
            raise self._meaningless("keep_order", "leave it out")
        if self.merge and not self.narrows:
            raise self._meaningless("merge", "leave one of the two out")
        if self.emit is not None:
            ranks_asked(self.emit)
        if self.new_ids and self.restore_ids:
            raise UsageError("new_ids and restore_ids contradict each other", "leave one out")
        if self.new_ids and not self.narrows:
            raise self._meaningless("new_ids", "leave it out")
        object.__setattr__(self, "units", stretch(self.units))
        _ = self.meaning  # which refuses what it does not know
        merge = {name: _lasting(f"merge {name}", spec) for name, spec in self.merge.items()}
        object.__setattr__(self, "merge", merge)
        for name in ("keep", "remove", "labels"):
            object.__setattr__(self, name, _lasting(name, getattr(self, name)))

    def _gate(self) -> None:
        """A gate makes the mode."""
        if self.mode not in {"slice", "gate"}:
            raise UsageError(f"the mode {self.mode} takes no gate", "leave out --mode")
        if self.gate not in {INPUT, INPUT_FLOAT}:
            parse_condition(self.gate or "")
        object.__setattr__(self, "mode", "gate")


def _lasting(name: str, given: Any) -> Any:
    """An iterator would be used up by the first of several formats."""
    if given is None or isinstance(given, str | Path):
        return given
    try:
        return tuple(given)
    except TypeError as error:
        raise UsageError(f"{name} is {given!r}", "give a string or a list") from error


def stretch(given: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """First position, and the one behind the last."""
    if given is None:
        return None
    try:
        numbers = given.split(":") if isinstance(given, str) else given
        start, stop = (int(number) for number in numbers)
    except (TypeError, ValueError):
        start = stop = 0
    if not 0 <= start < stop:
        raise UsageError(
            f"units are {given!r}, which is no stretch of an axis",
            "give the first position and the one behind the last, such as 5:85",
        )
    return start, stop


def ranks_asked(emit: str) -> int | None:
    """How many ids an `emit` asks for: None for the best alone, without an axis of its own.

    Raises:
        UsageError: it is neither "ids" nor "ids:K".
    """
    found = re.fullmatch(r"ids(?::([1-9][0-9]*))?", emit)
    if found is None:
        raise UsageError(
            f"there is no output {emit!r} to emit",
            "give ids for the best unit, or ids:K for the best K, as in ids:3",
        )
    return None if found[1] is None else int(found[1])
