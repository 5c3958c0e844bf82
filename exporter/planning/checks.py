"""Cuts that are refused before they are planned, and the table of those that a head decides."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.formats.model import Model
from exporter.graph import Graph
from exporter.planning.detectors import check_merge, check_zero
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


def check_weights(graph: Graph, of_heads: Collection[str]) -> None:
    """NotAllowedError if a weight that a cut changes is NaN or infinite.

    Other constants stay as they are: detectors have infinite values in tables of anchors.

    Args:
        graph: of the model.
        of_heads: names of the constants that are cut.
    """
    for name in sorted(of_heads):
        tensor = graph.tensors[name]
        if invalid := tensor.nonfinite:
            size = np.prod([n or 0 for n in tensor.shape or ()], dtype=np.int64)
            raise NotAllowedError(
                f"{invalid} of {size} values of {tensor.name!r} are NaN or infinite",
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
