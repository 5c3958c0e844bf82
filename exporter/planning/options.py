"""The options of a cut: which units are kept, and how the others are removed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.modes import MODES, Semantics
from exporter.modes.semantics import INPUT, INPUT_FLOAT
from exporter.planning.option import ADVANCED, option
from exporter.selection import Selection, Units
from exporter.selection.conditions import parse_condition
from exporter.storage.urls import with_local_references

Labels = str | Path | Sequence[str]

_CUTS = ("prune", "run", "inspect")  # inspect shows a forecast
OF_ONE_HEAD = (
    "head",
    "units",
    "group",
    "merge",
    "protect",
)  # they are not used together with `cuts`

_selection = partial(option, section="Selection", commands=(*_CUTS, "trim"))
_result = partial(option, section="Outputs of the pruned model", commands=_CUTS)


@dataclass(frozen=True)
class CutOptions:
    """Which units are kept, and how the others are removed.

    Raises:
        UsageError: an unknown value, options that exclude each other, or none of keep, remove and
            cuts (allowed with merge, gate or drop_outputs: then all other units are kept).
    """

    keep: Units | None = _selection(
        None, "Units to keep: 3,5-9,owl,'mac*',@file,=literal.", metavar="SPEC"
    )
    remove: Units | None = _selection(None, "Units to remove; all others are kept.", metavar="SPEC")
    cuts: Mapping[str, Units] = _selection(
        {},
        "Units to keep in one of several heads, which are cut together.",
        flag="--cut",
        parse="cut",
        metavar="HEAD=SPEC",
    )
    labels: str | Path | Sequence[str] | None = _selection(
        None,
        "Label file: .csv, .json, or one label on each line. Default: the labels in the model.",
        parse="path",
    )
    keep_order: bool = _selection(False, "Keep the given order instead of ascending order.")
    head: str | None = _selection(
        None, "Name of the head to cut, if the model has several.", metavar="NAME"
    )
    units: str | tuple[int, int] | None = _selection(
        None,
        "Range of the classes on the output axis, if boxes share it (for example 5:85).",
        metavar="A:B",
        section=ADVANCED,
    )
    allow_nonfinite: bool = _selection(
        False, "Cut a model that has NaN or infinite weights.", section=ADVANCED
    )
    allow_gather: bool = _selection(
        False,
        "If an operation mixes the units of an output (an ensemble, for example), take the kept "
        "ones from the output with a Gather: exact, but the file does not get smaller. --head "
        "NAME:AXIS chooses the axis.",
        section=ADVANCED,
    )
    drop_outputs: tuple[str, ...] = _selection(
        (),
        "Remove an output, and every operation and constant that only it needs.",
        flag="--drop-output",
        parse="name",
        metavar="NAME",
    )
    group: int | None = _selection(
        None,
        "Units of each group, such as 3 for x, y, z: indices and labels name groups, which are "
        "kept as a whole.",
        minimum=2,
    )
    group_blocks: bool = _selection(
        False,
        "With --group: there is a block for each unit of a group (all x, then all y), instead of "
        "the units of a group next to each other.",
        section=ADVANCED,
    )
    protect: Units | None = _selection(
        None,
        "Units that are kept too, next to those of --keep. To remove one of them is an error.",
        metavar="SPEC",
    )
    allow_remove_special: bool = _selection(
        False,
        "Remove special units too: a background, the blank of a text recognizer, special tokens.",
        section=ADVANCED,
    )
    vocabulary: str = _selection(
        "output",
        "Sides of a language model that are cut.",
        choices={
            "output": "the head",
            "both": "the head, and the table of token embeddings at the input; the files of a "
            "tokenizer next to the model follow",
        },
    )
    keep_ids: bool = _selection(
        False,
        "With --vocabulary both: token ids stay as they are, by a table at the input and an output "
        "of the original width.",
    )
    unknown_id: int | None = _selection(
        None,
        "With --keep-ids: the token that removed ids count as. Default: the unknown token, by its "
        "label or the tokenizer; without one, a removed id is out of range.",
        minimum=0,
        metavar="ID",
        section=ADVANCED,
    )
    mode: str = _result(
        "slice",
        "How units are removed.",
        choices={name: mode.summary for name, mode in MODES.items()},
    )
    probabilities: str = _result(
        "renormalized",
        "Probabilities of the kept units.",
        choices={"renormalized": "they add up to 1", "absolute": "they keep their original values"},
    )
    merge: Mapping[str, Units] = _result(
        {},
        "Merge units into one; its probability is the sum of theirs.",
        parse="group",
        metavar="NAME=SPEC",
    )
    gate: str | None = _result(
        None,
        "Choose units while the model runs, by an extra input (input, input:float), or by a "
        'condition: "[probability|logit|abs] (>|>=|<|<=) NUMBER" or "top:K".',
        metavar="input|COND",
    )
    restore_width: bool = _result(
        False, "Prune the head, then pad the output to its original width."
    )
    for_quantization: bool = _result(
        False, "Mask with a value that is safe to quantize.", section=ADVANCED
    )
    restore_ids: bool = _result(
        False,
        "Outputs with class indices, as of detectors, return the original indices.",
        section=ADVANCED,
    )
    new_ids: bool = _result(
        False,
        "ArgMax and TopK outputs return new indices instead of the original ones.",
        section=ADVANCED,
    )
    emit: str | None = _result(
        None,
        "Add an int32 output with the original index of the best unit (ids), or of the best K "
        "(ids:K).",
        metavar="ids|ids:K",
        section=ADVANCED,
    )

    @property
    def semantics(self) -> Semantics:
        """The options that change the meaning of the output, before a mode resolves them."""
        return Semantics(
            self.probabilities, self.restore_width, self.for_quantization, gate=self.gate
        )

    @property
    def narrows(self) -> bool:
        """Will the output have one position for each kept unit, instead of one for each unit?"""
        return MODES[self.mode].narrows and not self.restore_width

    @property
    def cuts_input(self) -> bool:
        """Is the table of token embeddings cut with the head?"""
        return self.vocabulary == "both"

    @property
    def selects_nothing(self) -> bool:
        """Are outputs removed, and no units?"""
        return not (self.cuts or self.merge) and (self.keep, self.remove, self.gate) == (None,) * 3

    def __post_init__(self) -> None:
        specs = ("keep", "remove", "protect", "cuts", "merge")
        _set(self, **{name: with_local_references(getattr(self, name)) for name in specs})
        if self.gate is not None:
            self._set_gate_mode()
        if self.mode not in MODES:
            raise UsageError(f"there is no mode {self.mode!r}", f"modes: {', '.join(MODES)}")
        dropped = (self.drop_outputs,) if isinstance(self.drop_outputs, str) else self.drop_outputs
        _set(self, drop_outputs=tuple(dict.fromkeys(dropped)))
        is_optional = self.merge or self.gate is not None or self.drop_outputs
        given = sum(each is not None for each in (self.keep, self.remove, self.cuts or None))
        if given > 1:
            raise UsageError(
                "give keep, remove or cuts, and only one of them", "the other units follow from it"
            )
        if not given and not is_optional:
            raise UsageError(
                "no units are chosen", "give keep or remove, such as keep=[0, 2] or --keep 0,2"
            )
        _set(self, keep_order=self.keep_order or _has_order(self.keep))
        if self.cuts:
            self._check_cuts()
        self._check_vocabulary()
        self._check_group()
        if not self.narrows:
            self._refuse_without_new_indices()
        if self.emit is not None:
            parse_emit(self.emit)
        if self.new_ids and self.restore_ids:
            raise UsageError("new_ids and restore_ids exclude each other", "leave one out")
        _ = self.semantics  # checks `probabilities`
        for field in ("merge", "cuts"):
            specs = getattr(self, field).items()
            _set(self, **{field: {n: _as_tuple(f"{field} {n}", spec) for n, spec in specs}})
        _set(self, units=parse_range(self.units))
        _set(
            self,
            **{n: _as_tuple(n, getattr(self, n)) for n in ("keep", "remove", "protect", "labels")},
        )

    def _set_gate_mode(self) -> None:
        if self.mode not in {"slice", "gate"}:
            raise UsageError(f"the mode {self.mode} takes no gate", "leave out --mode")
        if self.gate not in {INPUT, INPUT_FLOAT}:
            parse_condition(self.gate or "")
        _set(self, mode="gate")

    def _check_cuts(self) -> None:
        for name in OF_ONE_HEAD:
            if getattr(self, name):
                raise UsageError(
                    f"--{name} belongs to one head, and --cut names the heads itself",
                    "leave one of the two out, or cut this head in a separate call",
                )
        if self.gate in {INPUT, INPUT_FLOAT}:
            raise UsageError(
                "a gate by an input has one input, for one head",
                "use a condition, or cut one head after the other",
            )

    def _check_vocabulary(self) -> None:
        if self.vocabulary not in {"output", "both"}:
            raise UsageError(f"there is no vocabulary {self.vocabulary!r}", "it is output or both")
        if self.keep_ids and not self.cuts_input:
            raise UsageError("keep_ids needs vocabulary both", "add --vocabulary both")
        if self.unknown_id is not None and not self.keep_ids:
            raise UsageError("unknown_id needs keep_ids", "add --keep-ids")
        if not self.cuts_input:
            return
        for name in ("cuts", "units", "merge", "gate", "restore_ids", "new_ids"):
            if getattr(self, name):
                raise UsageError(
                    f"{name} does not apply to a vocabulary that is cut on both sides",
                    "leave one of the two out",
                )
        if self.mode != "slice" or self.semantics.absolute:
            shown = self.mode if self.mode != "slice" else "absolute probabilities"
            raise UsageError(
                f"a vocabulary that is cut on both sides has no removed tokens left for {shown}",
                "leave one of the two out",
            )
        if self.restore_width and not self.keep_ids:
            raise UsageError(
                "restore_width restores the ids of the output only", "use --keep-ids for both sides"
            )
        if self.keep_ids:
            _set(self, restore_width=True)

    def _check_group(self) -> None:
        if self.group is None:
            if self.group_blocks:
                raise UsageError("group_blocks needs group", "add --group")
            return
        if self.group < 1:
            raise UsageError(f"group is {self.group}", "give the number of units in a group")
        for name in ("merge", "protect"):
            if getattr(self, name):
                raise UsageError(
                    f"{name} names units, and with group all names are those of groups",
                    "leave one of the two out",
                )

    def of_head(self, head: str, keep: Units | None, labels: Labels | None) -> CutOptions:
        """The options of the cut of one head, with its selection and its labels."""
        return replace(self, head=head, keep=keep, labels=labels, cuts={})

    def _refuse_without_new_indices(self) -> None:
        why = "restore_width" if self.restore_width else f"mode {self.mode}"
        for name in ("keep_order", "merge", "new_ids"):
            if getattr(self, name):
                raise UsageError(
                    f"{name} has no meaning with {why}, where units keep their indices",
                    "leave one of the two out",
                )


def _set(record: Any, **values: Any) -> None:
    """Set fields of a frozen record while it is made."""
    for name, value in values.items():
        object.__setattr__(record, name, value)


def _has_order(keep: Units | None) -> bool:
    """Is it a selection whose units do not ascend?"""
    return isinstance(keep, Selection) and not keep.ascends


def _as_tuple(name: str, value: Any) -> Any:
    """A tuple instead of an iterator, which the first of several formats would exhaust."""
    if value is None or isinstance(value, str | Path | Selection):
        return value
    try:
        return tuple(value)
    except TypeError as error:
        raise UsageError(f"{name} is {value!r}", "give a string or a list") from error


def parse_range(value: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """The first position of a range, and the position after its last."""
    if value is None:
        return None
    try:
        numbers = value.split(":") if isinstance(value, str) else value
        start, stop = (int(number) for number in numbers)
    except (TypeError, ValueError):
        start = stop = 0
    if not 0 <= start < stop:
        raise UsageError(
            f"units is {value!r}, which is not a range",
            "give the first position and the position after the last, such as 5:85",
        )
    return start, stop


def parse_emit(emit: str) -> int | None:
    """The K of "ids:K"; None for "ids", which adds no axis to the output.

    Raises:
        UsageError: neither of the two.
    """
    found = re.fullmatch(r"ids(?::([1-9][0-9]*))?", emit)
    if found is None:
        raise UsageError(
            f"there is no output {emit!r} to emit",
            "use ids for the best unit, or ids:K for the best K (for example ids:3)",
        )
    return None if found[1] is None else int(found[1])
