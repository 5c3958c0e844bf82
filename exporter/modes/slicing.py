"""The mode `slice`: removed units are cut out of the head.

With `restore_width` the head is cut and the output is padded to its original width. Absolute
probabilities need all units for their sum: the head stays whole, and its output is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Use
from exporter.graph.edits import Edit, Replace, SetAttribute, SetShape, Take
from exporter.graph.operations import TopK
from exporter.modes.activation_tail import (
    apply_tail,
    narrow_shape,
    replace_removed,
    select_units,
    widen,
)
from exporter.modes.merging import check_merge, merge_edits
from exporter.modes.mode import Expected, ModeFunctions
from exporter.modes.restore_width import (
    check_single_output,
    fill_value,
    gather_edits,
    output_edits,
)
from exporter.modes.semantics import PLAIN, Semantics
from exporter.trace.head import Head
from exporter.trace.readers import Ranking
from exporter.trace.unit_axis import Junction, UnitAxis, Width


def resolve_slice(head: Head, semantics: Semantics) -> Semantics:
    """With the value of removed units, if the width is restored."""
    check_merge(head, semantics)
    if semantics.for_quantization:
        raise UsageError(
            "for_quantization does not apply to mode slice, which leaves no extreme values",
            "leave it out, or use --mode mask",
        )
    if semantics.absolute and head.normalized:
        raise ModelError(
            f"head {head.name!r} joins several softmaxes, whose sums a cut changes",
            "leave out --probabilities absolute",
        )
    if semantics.absolute and not head.competes:
        raise UsageError(
            f"the outputs of head {head.name!r} are absolute already: they are not normalized over "
            f"the units ({head.activation})",
            "leave out --probabilities absolute",
        )
    if semantics.absolute or semantics.restore_width:
        check_single_output(head)
    return replace(semantics, floor=fill_value(head) if semantics.restore_width else None)


def slice_edits(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """Take the kept units out of all constants, shapes and stated widths, and merge groups.

    1. The head and the nodes that read its output are cut.
    2. With the original width restored, those nodes are not cut: they get that width.
    3. With absolute probabilities, only those nodes are cut.
    4. Where units are mixed before the output, a Gather takes them, and those nodes are cut.
    """
    cut: tuple[Edit, ...] = ()
    if len(kept) != head.units or tuple(kept) != tuple(range(head.units)):
        if not semantics.absolute:
            chosen: Any = np.asarray(kept)  # once, not for each tensor
            cut = _cut_head(_up_to_output(head) if semantics.restore_width else head, chosen)
        elif not semantics.restore_width:
            readers = _after_output(head)
            cut = (*_cut_constants(readers, kept), *_width_edits(readers, kept))
    rankings = () if semantics.restore_width else head.readers.rankings
    counts = [edit for ranking in rankings for edit in _count_edits(head, ranking, kept)]
    if head.gather:
        return (*cut, *counts, *gather_edits(head, kept))
    after_output = merge_edits if semantics.merge else output_edits
    return (*cut, *counts, *after_output(head, kept, semantics))


def _up_to_output(head: Head) -> Head:
    """The head without the constants and widths of nodes that read its output."""
    after = _after_output(head)
    return replace(
        head,
        constants=tuple(each for each in head.constants if each not in after.constants),
        widths=tuple(each for each in head.widths if each not in after.widths),
    )


def _after_output(head: Head) -> Head:
    """The head with only the constants and widths of nodes that read its output."""
    readers = (*head.readers.rankings, *head.readers.detections)
    detectors = {each.node.name for each in head.readers.detections}
    return replace(
        head,
        constants=tuple(table for reader in readers for table in reader.tables),
        widths=tuple(each for each in head.widths if each.node in detectors),
    )


def _cut_constants(head: Head, kept: Sequence[int]) -> list[Edit]:
    return [
        Take(c.name, c.unit_axis.axis, c.unit_axis.positions(kept), c.uses) for c in head.constants
    ]


def _cut_head(head: Head, kept: Sequence[int]) -> tuple[Edit, ...]:
    for junction in head.junctions:
        _check_parts(junction, kept, can_zero=not (head.gather or head.normalized))
    tensors = [each for each in head.tensors if not (head.gather and each.name == head.output)]
    shapes = [SetShape(tensor.name, narrow_shape(tensor, kept)) for tensor in tensors]
    return (*_cut_constants(head, kept), *shapes, *_width_edits(head, kept))


def _check_parts(junction: Junction, kept: Sequence[int], *, can_zero: bool) -> None:
    """Each part is cut alone: the result must be the same as cutting the joined axis."""
    units, start = junction.whole.units, 0
    parts: list[Array] = []
    for stop in junction.stops:
        part = UnitAxis(0, units[start:stop]).positions(kept)
        if not len(part):
            raise ModelError(
                f"{junction.node} would get an empty part",
                f"keep {_describe_units(units[start:stop])}"
                + (", or use --mode zero" if can_zero else ""),
            )
        parts.append(part + start)
        start = stop
    if not np.array_equal(np.concatenate(parts), junction.whole.positions(kept)):
        raise ModelError(
            f"units cannot be reordered across the parts of {junction.node}",
            "leave out --keep-order, or merge units within one part",
        )


def _describe_units(units: Array) -> str:
    low, high = units.min(), units.max()
    return f"unit {low}" if low == high else f"one of the units {low} to {high}"


def _count_edits(head: Head, ranking: Ranking, kept: Sequence[int]) -> list[Edit]:
    """A top-k that returns more units than are kept returns all of them."""
    width = len(head.tensor(ranking.source).unit_axis.positions(kept))
    stated = ranking.stated
    if ranking.positions and isinstance(ranking.node.operation, TopK):
        count = ranking.node.operation.k or 1
        if count > width:
            raise ModelError(
                f"{ranking.node} returns {count} positions of all units, but only {width} would "
                "remain",
                "keep more units",
            )
    if stated is None or stated.value[0] <= width:
        return []
    if ranking.fixed is not None:
        raise ModelError(
            f"{ranking.node} returns {stated.value[0]} units, but only {width} would remain, and "
            f"{ranking.fixed} needs their number",
            f"keep at least {stated.value[0]} units",
        )
    shapes: list[Edit] = []
    for name, axis in ranking.rank_axes.items():
        shape = list(ranking.shapes[name])
        shape[axis] = width
        shapes.append(SetShape(name, tuple(shape)))
    return [_set_value(stated, [width]), *shapes]


def _width_edits(head: Head, kept: Sequence[int]) -> list[Edit]:
    """Update all widths in the file; one attribute may contain several of them."""
    by_attribute: dict[tuple[str, str | int], list[Width]] = {}
    for width in head.widths:
        by_attribute.setdefault((width.node, width.place), []).append(width)
    edits: list[Edit] = []
    for widths in by_attribute.values():
        value = list(widths[0].value)
        for width in widths:
            axis = head.unit_axis(width.tensor)
            counted = UnitAxis(axis.axis, axis.units[: width.before])
            value[width.entry or 0] = len(counted.positions(kept)) + width.offset
        edits.append(_set_value(widths[0], value))
    return edits


def _set_value(width: Width, value: list[int]) -> Edit:
    """Set the whole attribute or constant that contains a width."""
    single = width.entry is None
    if isinstance(width.place, str):
        return SetAttribute(width.node, width.place, value[0] if single else tuple(value))
    stated = np.asarray(value[0] if single else value, np.int64)
    return Replace(width.constant or "", stated, (Use(width.node, width.place),))


def slice_oracle(
    head: Head,
    kept: Sequence[int],
    z: Array,
    semantics: Semantics = PLAIN,
    present: Sequence[int] | None = None,
    /,
) -> Expected:
    """The activation over the kept units or, for absolute probabilities, over all units."""
    wide = semantics.restore_width
    axis, fill = head.tensor(head.output).unit_axis, semantics.floor or 0.0
    if semantics.absolute:
        values = np.asarray(z, np.float64)
        y = apply_tail(head, values, None)
        if wide:
            return Expected(values, replace_removed(y, axis, kept, None, fill))
        return Expected(values, select_units(y, axis, kept))
    computed = kept if present is None or wide else present
    values = select_units(z, head.tensor(head.z).unit_axis, computed)
    y = apply_tail(head, values, computed)
    if head.normalized:
        y = _normalize_parts(head, y, computed)
    return Expected(values, widen(y, axis, kept, present, fill) if wide else y)


def _normalize_parts(head: Head, values: Array, units: Sequence[int]) -> Array:
    """The probabilities of these units, divided by their sum in each softmax."""
    result, axis = values.copy(), head.tensor(head.output).unit_axis.axis
    for part in head.normalized:
        index: list[slice | Array] = [slice(None)] * values.ndim
        index[axis] = np.flatnonzero(np.isin(units, part))
        shares = values[tuple(index)]
        total = shares.sum(axis=axis, keepdims=True)
        result[tuple(index)] = shares / np.where(total > 0, total, 1.0)
    return result


FUNCTIONS = ModeFunctions(slice_edits, slice_oracle, resolve_slice)
