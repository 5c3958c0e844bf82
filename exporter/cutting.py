"""From what the user asked for to a plan: trace the model, select the units, plan the edits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.graph import Graph
from exporter.head import Head
from exporter.models.model import Model, unit_labels
from exporter.modes import MODES
from exporter.plan import Plan
from exporter.remap import HeadRemap, Origin, Remap, compose
from exporter.selection import Selection, select
from exporter.selection.labels import read_labels
from exporter.trace import Trace, trace

Units = str | Iterable[int | str]


@dataclass(frozen=True)
class Choice:
    """What to keep, and how the rest goes.

    Attributes:
        keep, remove: a SPEC, or indices and labels; exactly one of the two is given.
        labels: a label file, or one label a unit; None takes those that the model carries.
        keep_order: the new order is the one given, not ascending.
        head: name of the head, where the model has several.
        mode: key of MODES.
        allow_nonfinite: cut a model with NaN or infinite weights.

    Raises:
        UsageError: no such mode, neither or both of keep and remove, something that is neither a
            SPEC nor a sequence, or an order for a mode in which units keep their places.
    """

    keep: Units | None = None
    remove: Units | None = None
    labels: str | Path | Sequence[str] | None = None
    keep_order: bool = False
    head: str | None = None
    mode: str = "slice"
    allow_nonfinite: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"there is no mode {self.mode!r}", f"modes: {', '.join(MODES)}")
        if (self.keep is None) == (self.remove is None):
            raise UsageError("give keep or remove, and not both", "the other units follow from it")
        if self.keep_order and not MODES[self.mode].narrows:
            raise UsageError(
                f"keep_order has no meaning with mode {self.mode}, where units keep their places",
                "leave it out",
            )
        for name in ("keep", "remove", "labels"):
            object.__setattr__(self, name, _lasting(name, getattr(self, name)))


def _lasting(name: str, given: Any) -> Any:
    """An iterator would be used up by the first of several formats."""
    if given is None or isinstance(given, str | Path):
        return given
    try:
        return tuple(given)
    except TypeError as error:
        raise UsageError(f"{name} is {given!r}", "give a string or a list") from error


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut that is ready to be applied.

    Attributes:
        heads: the head that was asked for, then those of other outputs that show the same units.
        plan: without edits where everything is kept.
        remap: what the result carries.
        warnings: what the user should know, one sentence each.
    """

    heads: tuple[Head, ...]
    selection: Selection
    mode: str
    plan: Plan
    remap: Remap
    warnings: tuple[str, ...]


def plan_cut(model: Model, choice: Choice, original: Origin | None = None) -> Cut:
    """Trace a model and plan a cut. Nothing is changed or written.

    Args:
        model: of any kind.
        choice: what to keep.
        original: the model that this one was converted from, if it was.

    Raises:
        UsageError: the selection does not fit, or names no head.
        ModelError: no head, or the mode cannot be had on it.
        NotAllowedError: weights that are not finite.
    """
    graph = model.graph()
    if not choice.allow_nonfinite:
        _refuse_nonfinite(graph)
    found = trace(graph)
    heads = _same_units(found, found.head(choice.head))
    selection = _select(model, heads[0], choice)
    remap = _remap(model, heads, (selection, choice.mode), original)
    edits = () if selection.keeps_all else MODES[choice.mode].edits(heads[0], selection.kept)
    warnings = _warnings(heads, selection, choice.mode)
    return Cut(heads, selection, choice.mode, Plan(edits, remap), remap, warnings)


def _refuse_nonfinite(graph: Graph) -> None:
    for tensor in graph.tensors.values():
        if tensor.read is None or not tensor.dtype.startswith(("float", "bfloat")):
            continue
        values = tensor.read()
        broken = values.size - int(np.isfinite(values).sum())
        if broken:
            raise NotAllowedError(
                f"{broken} of {values.size} values of {tensor.name!r} are NaN or infinite",
                "--allow-nonfinite cuts the model all the same",
            )


def _same_units(found: Trace, head: Head) -> tuple[Head, ...]:
    """The head, and the heads of the outputs that narrow with it."""
    return (head, *(_beside(found, head, output) for output in head.other_outputs))


def _beside(found: Trace, head: Head, output: str) -> Head:
    """The head of another output that narrows with a head: its units lie on the same axis."""
    axis = head.tensor(output).labels.axis
    for other in found.heads:
        if (other.output, other.axis) == (output, axis):
            return other
    refusal = next((str(r) for r in found.refusals if r.output == output), "")
    reason = refusal or f"output {output!r} has no head on axis {axis}"
    raise ModelError(f"head {head.name!r} narrows another output too, but {reason}")


def _select(model: Model, head: Head, choice: Choice) -> Selection:
    given = choice.labels
    labels = read_labels(Path(given)) if isinstance(given, str | Path) else given
    return select(
        units=head.units,
        keep=choice.keep,
        remove=choice.remove,
        labels=tuple(labels) if labels is not None else unit_labels(model, head),
        keep_order=choice.keep_order,
    )


def _remap(
    model: Model,
    heads: tuple[Head, ...],
    chosen: tuple[Selection, str],
    original: Origin | None,
) -> Remap:
    this = Origin(model.name, model.sha256)
    tables = tuple(_table(head, *chosen) for head in heads)
    later = Remap(original or this, this if original else None, tables)
    return compose(model.remap, later) if model.remap else later


def _table(head: Head, selection: Selection, mode: str) -> HeadRemap:
    narrows = MODES[mode].narrows
    labels = selection.kept_labels if narrows else selection.labels
    kept = selection.kept
    places = kept if narrows else tuple(range(head.units))
    part = head.part
    ids = tuple(output for ranking in head.rankings for output in ranking.outputs)
    return HeadRemap(
        name=head.name,
        output=head.output,
        axis=head.axis,
        part=part and (part[0], part[0] + len(places)),
        mode=mode,
        activation=head.activation,
        old_units=head.units,
        new_units=len(places),
        kept=kept,
        new_to_old=places,
        labels=labels,
        options={"ids": ids or None},
    )


def _warnings(heads: tuple[Head, ...], selection: Selection, mode: str) -> tuple[str, ...]:
    warnings = list(selection.notes)
    if len(selection.kept) == 1 and MODES[mode].narrows:
        for head in heads:
            if head.competes:
                value = "1.0" if head.activation == "softmax" else "0.0"
                warnings.append(f"one unit under {head.activation} always answers {value}")
    return tuple(warnings)
