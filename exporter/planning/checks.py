"""Cuts that are refused before they are planned, and the table of those that a head decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.formats.model import Model
from exporter.graph import Array, Graph, Tensor
from exporter.graph.edits import Edit, Take
from exporter.planning.detectors import check_merge, check_zero
from exporter.planning.gathering import check_gathered
from exporter.planning.options import CutOptions
from exporter.planning.unit_ids import check_new_ids
from exporter.remap import HeadRemap
from exporter.remap.head_remap import members
from exporter.trace.head import Head


class HeadCheck(NamedTuple):
    """A check of the head, if the options ask for something that not every head allows."""

    asked: Callable[[CutOptions], bool]
    check: Callable[[Head], None]


HEAD_CHECKS = (
    HeadCheck(lambda options: options.mode == "zero", check_zero),
    HeadCheck(lambda options: bool(options.merge), check_merge),
    HeadCheck(lambda options: options.new_ids, check_new_ids),
)


def check_head(head: Head, options: CutOptions) -> None:
    """Apply HEAD_CHECKS (raises ModelError or UsageError)."""
    check_gathered(head, options)
    for row in HEAD_CHECKS:
        if row.asked(options):
            row.check(head)


def check_not_restored(model: Model) -> None:
    """ModelError if an earlier cut added operations after the head, which its output then hides."""
    several = "; of several heads cut this one last" if len(model.graph().outputs) > 1 else ""
    for table in model.remap.heads if model.remap else ():
        for option in ("merge", "restore_width", "probabilities", "gate"):
            if value := table.options[option]:
                shown = ", ".join(value) if option == "merge" else value
                raise ModelError(
                    f"head {table.name!r} was cut before with {option} = {shown}: its output is "
                    "computed by operations after the head",
                    f"cut {model.remap.original.name if model.remap else 'the original'} instead"
                    f"{several}",
                )


def check_weights(graph: Graph, of_heads: Collection[str], edits: Sequence[Edit]) -> None:
    """NotAllowedError if a weight of a head that the result contains is NaN or infinite.

    1. A constant of which only some positions are taken is read at these positions: no value of the
       result depends on the others.
    2. Any other constant is read completely: a removed unit that stays in the file is computed, and
       0 times NaN is NaN.
    3. Constants outside of the head are not read: detectors have infinite values in tables of
       anchors.

    Args:
        graph: of the model.
        of_heads: names of the constants that are cut.
        edits: of the cut.
    """
    takes: dict[str, list[Take]] = {}
    for edit in edits:
        if isinstance(edit, Take):
            takes.setdefault(edit.constant, []).append(edit)
    for name in sorted(of_heads):
        tensor = graph.tensors[name]
        kept = {(take.axis, take.positions.tobytes()): take for take in takes.get(name, ())}
        for take in kept.values():
            _check_positions(tensor, take.axis, take.positions)
        if not kept:
            _check_positions(tensor, 0, None)


def _check_positions(tensor: Tensor, axis: int, positions: Array | None) -> None:
    """Raise NotAllowedError if values at some positions, or at all, are NaN or infinite."""
    lengths = [n or 0 for n in tensor.shape or ()]
    everywhere = np.arange(lengths[axis])
    if invalid := tensor.nonfinite(axis, everywhere if positions is None else positions):
        lengths[axis] = len(everywhere if positions is None else positions)
        kept = "" if positions is None else " kept"
        raise NotAllowedError(
            f"{invalid} of {prod(lengths)}{kept} values of {tensor.name!r} are NaN or infinite",
            "--allow-nonfinite cuts the model anyway",
        )


def check_merged_units(model: Model, table: HeadRemap) -> None:
    """UsageError if units are merged next to units that an earlier cut removed in place.

    Those still hold probability, so that merged sums would not add up.
    """
    if not table.options["merge"]:
        return
    removed = {unit for units in table.new_to_old for unit in members(units)}.difference(table.kept)
    if removed:
        raise UsageError(
            f"{model.name} contains units that were removed with mode {table.mode}, such as "
            f"{min(removed)}, and other units cannot be merged next to them",
            "remove those units too, or cut the model from which it was made",
        )
