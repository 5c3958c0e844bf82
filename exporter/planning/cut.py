"""From what the user asked for to a plan: trace the model, select the units, plan the edits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.formats.model import Model, unit_labels
from exporter.graph import Graph
from exporter.graph.edits import Plan
from exporter.graph.operations import Elementwise
from exporter.modes import MODES, Semantics
from exporter.modes.merging import places_of
from exporter.planning.detectors import for_units, refuse_merge, refuse_zero, with_background
from exporter.planning.options import CutOptions, Units, stretch
from exporter.planning.unit_ids import id_edits, ids_told, with_emitted
from exporter.remap import HeadRemap, Origin, Remap, compose
from exporter.remap.head_remap import OldUnits, members
from exporter.selection import Selection, select
from exporter.selection.groups import Groups, grouped
from exporter.selection.labels import read_labels
from exporter.trace import Trace, heads_cut_together, trace, trace_recorded
from exporter.trace.head import Head

__all__ = ["Cut", "CutOptions", "Units", "plan_cut"]


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


def plan_cut(model: Model, choice: CutOptions, original: Origin | None = None) -> Cut:
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
    _refuse_restored(model)
    found = _traced(model, choice)
    heads = heads_cut_together(graph, found, found.head(choice.head))
    if not choice.allow_nonfinite:
        _refuse_nonfinite(graph, {constant.name for head in heads for constant in head.constants})
    if choice.units is not None and (heads[0].unit_range or (0, heads[0].units)) != choice.units:
        raise UsageError(
            f"head {heads[0].name!r} tells itself where its units stand", "leave out --units"
        )
    if choice.mode == "zero":
        refuse_zero(heads[0])
    if choice.merge:
        refuse_merge(heads[0])
    selection, groups = _select(model, heads[0], choice)
    mode = MODES[choice.mode]
    wish = replace(choice.meaning, merge=groups)
    meanings = [mode.resolve(head, wish) for head in heads]
    tables = [_table(*each, selection, choice) for each in zip(heads, meanings, strict=True)]
    tables[0] = with_emitted(graph, heads[0], tables[0], choice)
    remap = _remap(model, tables, original)
    if groups:
        _refuse_dead(model, remap.of(heads[0].name))
    kept = selection.kept
    untouched = selection.keeps_all and not groups and not mode.alters_all
    edits = () if untouched else mode.edits(heads[0], kept, meanings[0])
    if edits:
        others = zip(heads[1:], meanings[1:], strict=True)
        edits = (*edits, *(edit for each, how in others for edit in mode.beside(each, kept, how)))
    edits = (*edits, *id_edits(graph, heads[0], remap.of(heads[0].name), choice))
    warnings = _warnings(heads, selection, choice, tables[0].new_units)
    return Cut(heads, selection, choice.mode, Plan(edits, remap), remap, warnings)


def _refuse_restored(model: Model) -> None:
    """What stands behind the output of an earlier cut shows the head no more."""
    several = "; of several heads cut this one last" if len(model.graph().outputs) > 1 else ""
    for table in model.remap.heads if model.remap else ():
        for option in ("merge", "restore_width", "probabilities", "gate"):
            if said := table.options[option]:
                shown = ", ".join(said) if option == "merge" else said
                raise ModelError(
                    f"head {table.name!r} was cut before with {option} = {shown}: its "
                    "output is put together behind the head",
                    f"cut {model.remap.original.name if model.remap else 'the original'} instead"
                    f"{several}",
                )


def _refuse_nonfinite(graph: Graph, of_heads: Collection[str]) -> None:
    """An infinite bound or mask, which no product reads and no cut touches, is no broken weight."""
    for name, tensor in graph.tensors.items():
        if tensor.read is None or not tensor.dtype.startswith(("float", "bfloat")):
            continue
        values, users = tensor.read(), graph.consumers.get(name, ())
        added = name not in of_heads and all(
            isinstance(user.operation, Elementwise)
            and user.operation.function != "batch_normalization"
            for user, _ in users
        )
        sound = ~np.isnan(values) if added else np.isfinite(values)
        broken = values.size - int(sound.sum())
        if broken:
            raise NotAllowedError(
                f"{broken} of {values.size} values of {tensor.name!r} are NaN or infinite",
                "--allow-nonfinite cuts the model all the same",
            )


def _traced(model: Model, choice: CutOptions) -> Trace:
    """The heads, with the units where the user, or the table of an earlier cut, says they stand."""
    if (units := stretch(choice.units)) is not None:
        found = trace(model.graph(), units)
        if not found.heads:
            start, stop = units
            raise UsageError(
                f"no head has its units at {start}:{stop}: {found.refusals[0]}",
                "`exporter inspect MODEL` shows the heads, and their parts",
            )
        return found
    tables = model.remap.heads if model.remap else ()
    return trace_recorded(model.graph(), ((table.name, table.part) for table in tables))


def _refuse_dead(model: Model, table: HeadRemap) -> None:
    """A sum in which a unit that was removed in place still has a share is nobody's."""
    dead = {unit for place in table.new_to_old for unit in members(place)}.difference(table.kept)
    if dead:
        raise UsageError(
            f"{model.name} holds units that were removed with mode {table.mode}, such as "
            f"{min(dead)}, and units cannot be merged beside them",
            "remove those units too, or cut the model that it was made from",
        )


def _select(model: Model, head: Head, choice: CutOptions) -> tuple[Selection, Groups]:
    given = choice.labels
    labels = read_labels(Path(given)) if isinstance(given, str | Path) else given
    everything = range(head.units) if choice.keep is None and choice.remove is None else None
    selection = select(
        units=head.units,
        keep=choice.keep if everything is None else everything,
        remove=choice.remove,
        labels=unit_labels(model, head) if labels is None else for_units(head, tuple(labels)),
        keep_order=choice.keep_order,
    )
    removed = choice.remove is not None
    if not choice.allow_remove_special:
        selection = with_background(model.graph(), head, selection, removed=removed)
    before = {table.name: table for table in model.remap.heads} if model.remap else {}
    rank = [min(members(p)) for p in before[head.name].new_to_old] if head.name in before else None
    return grouped(selection, choice.merge, removed=removed, rank=rank)


def _remap(model: Model, tables: Sequence[HeadRemap], original: Origin | None) -> Remap:
    this = Origin(model.name, model.sha256)
    later = Remap(original or this, this if original else None, tuple(tables))
    return compose(model.remap, later) if model.remap else later


def _table(head: Head, meaning: Semantics, selection: Selection, choice: CutOptions) -> HeadRemap:
    narrows = choice.narrows
    kept = selection.kept
    places = places_of(kept, meaning) if narrows else tuple(range(head.units))
    part = head.unit_range or ((0, head.units) if choice.units is not None else None)
    return HeadRemap(
        name=head.name,
        output=head.output,
        axis=head.axis,
        part=part and (part[0], part[0] + len(places)),
        mode=choice.mode,
        activation=head.activation,
        old_units=head.units,
        new_units=len(places),
        kept=kept,
        new_to_old=places,
        labels=_labels(selection, places, meaning),
        options={**meaning.options(), **ids_told(head, choice)},
    )


def _labels(
    selection: Selection, places: Sequence[OldUnits], meaning: Semantics
) -> tuple[str, ...] | None:
    """One a place; a group's is its name."""
    labels = selection.labels
    names = {group: name for name, group in meaning.merge.items()}
    return labels and tuple(names[p] if isinstance(p, tuple) else labels[p] for p in places)


def _warnings(
    heads: tuple[Head, ...], selection: Selection, choice: CutOptions, new_units: int
) -> tuple[str, ...]:
    warnings = list(selection.notes)
    if choice.meaning.absolute and not selection.keeps_all:
        warnings.append(_cost(heads[0], selection))
    elif min(len(selection.kept), new_units) == 1 and not MODES[choice.mode].shares:
        for head in heads:
            if head.competes:
                value = "1.0" if head.activation == "softmax" else "0.0"
                warnings.append(f"one unit under {head.activation} always answers {value}")
    return tuple(warnings)


def _cost(head: Head, selection: Selection) -> str:
    """What absolute probabilities cost: the constants of removed units, which have to stay."""
    stay = 0
    for constant in head.constants:
        share = len(constant.unit_axis.removed(selection.kept)) / len(constant.unit_axis.units)
        stay += round(share * prod(constant.shape) * _item_bytes(constant.dtype))
    return (
        f"absolute probabilities need the sum over all {head.units} units: {stay} bytes stay in "
        f"the head that renormalized ones would not need"
    )


def _item_bytes(dtype: str) -> float:
    """Bits are in the name: float32, int4, bfloat16."""
    digits = "".join(filter(str.isdigit, dtype))
    return int(digits) / 8 if digits else 0.0
