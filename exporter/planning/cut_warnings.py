"""The warnings that a planned cut gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from exporter.formats.model import Model
from exporter.modes import MODES
from exporter.modes.mask_value import contains_probabilities, divides_by_a_norm
from exporter.planning.gathering import gather_note
from exporter.planning.options import CutOptions, parse_range
from exporter.selection import Selection
from exporter.trace import (
    trace,
)
from exporter.trace.head import Head

_OF_ONE_UNIT = {"softmax": "1.0", "log_softmax": "0.0"}  # what an activation over it returns


def cut_warnings(
    heads: Sequence[Head], selection: Selection, options: CutOptions, new_units: int
) -> Iterator[str]:
    """The warnings about one selection.

    Args:
        heads: the head, then those of other outputs that show the same units.
        new_units: how many units the new head has, with merged ones.
    """
    yield from selection.notes
    if heads[0].gather and not selection.keeps_all:
        yield gather_note(heads[0])
    if options.semantics.absolute and not selection.keeps_all:
        yield _cost_of_absolute(heads[0], selection)
    elif min(len(selection.kept), new_units) == 1 and not MODES[options.mode].keeps_share:
        for head in heads:
            if head.competes:
                is_share = divides_by_a_norm(head) and contains_probabilities(head, head.z)
                value = "1.0" if is_share else _OF_ONE_UNIT.get(head.activation, "1.0, -1.0 or NaN")
                yield f"{head.activation} over one unit always returns {value}"
    if MODES[options.mode].keeps_share:
        return
    for part in heads[0].normalized:
        kept = set(part).intersection(selection.kept)
        if len(kept) == 1:
            only = selection.describe_unit(kept.pop())
            yield f"{only} is the only one of its softmax, which always returns 1.0 for it"


def untouched_classes(model: Model, head: Head, options: CutOptions) -> Iterator[str]:
    """A warning if --units names a range of an axis that seems to have classes only."""
    units = parse_range(options.units)
    heads = trace(model.graph()).heads if units else ()
    every = next((each for each in heads if each.output == head.output), None)
    if units is None or every is None or every.axis != head.axis or every.unit_range:
        return
    left = every.units - (units[1] - units[0])
    if left:
        yield (
            f"--units {units[0]}:{units[1]} leaves {left} of the {every.units} positions of "
            f"{head.output!r} as they are, and the model does not show that these are no classes"
        )


def _cost_of_absolute(head: Head, selection: Selection) -> str:
    """Absolute probabilities need the constants of removed units."""
    size = 0
    for constant in head.constants:
        share = len(constant.unit_axis.removed(selection.kept)) / len(constant.unit_axis.units)
        size += round(share * prod(constant.shape) * _item_bytes(constant.dtype))
    return (
        f"absolute probabilities need the sum over all {head.units} units: {size} bytes stay in "
        "the head that renormalized ones would not need"
    )


def _item_bytes(dtype: str) -> float:
    """The name of a dtype contains its bits: float32, int4, bfloat16."""
    digits = "".join(filter(str.isdigit, dtype))
    return int(digits) / 8 if digits else 0.0
