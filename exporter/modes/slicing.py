"""The mode `slice`: removed units are cut out of the head.

With the old width restored the head is as narrow, and the output is not. Absolute probabilities
need the whole head for their sum, and are cut behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Use
from exporter.graph.edits import Edit, Replace, SetAttribute, SetShape, Take
from exporter.modes.activation_tail import (
    apply_tail,
    narrow_shape,
    replace_removed,
    select_units,
    widen,
)
from exporter.modes.merging import merge_edits, resolve_merge
from exporter.modes.mode import Expected, ModeFunctions
from exporter.modes.restore_width import check_single_output, fill_value, output_edits
from exporter.modes.semantics import PLAIN, Semantics
from exporter.trace.head import Head
from exporter.trace.readers import Ranking
from exporter.trace.unit_axis import Junction, UnitAxis, Width


def resolve_slice(head: Head, semantics: Semantics) -> Semantics:
    """The fill, where the width is restored; refused where there is nothing to sum over."""
    resolve_merge(head, semantics)
    if semantics.for_quantization:
        raise UsageError(
            "for_quantization has no meaning with mode slice, which leaves nothing that stands out",
            "leave it out, or use --mode mask",
        )
    if semantics.absolute and not head.competes:
        raise UsageError(
            f"the answers of head {head.name!r} have no common denominator ({head.activation}): "
            "they are absolute already",
            "leave out --probabilities absolute",
        )
    if semantics.absolute or semantics.restore_width:
        check_single_output(head)
    return replace(semantics, floor=fill_value(head) if semantics.restore_width else None)


def slice_edits(
    head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
) -> tuple[Edit, ...]:
    """Take the kept units out of everything that has a position for each unit, and merge groups."""
    inside: tuple[Edit, ...] = ()
    if tuple(kept) == tuple(range(head.units)):
        pass
    elif not semantics.absolute:
        inside = _narrow(_within(head) if semantics.restore_width else head, kept)
    elif not semantics.restore_width:
        inside = _outside(head, kept)
    ranked = () if semantics.restore_width else head.readers.rankings
    ranks = [edit for ranking in ranked for edit in _rank_edits(head, ranking, kept)]
    behind = merge_edits if semantics.merge else output_edits
    return (*inside, *ranks, *behind(head, kept, semantics))


def _within(head: Head) -> Head:
    """The head without what stands behind its output: that goes on to see the old width."""
    behind = _behind(head)
    constants, widths = ({id(each) for each in of} for of in (behind.constants, behind.widths))
    return replace(
        head,
        constants=tuple(each for each in head.constants if id(each) not in constants),
        widths=tuple(each for each in head.widths if id(each) not in widths),
    )


def _behind(head: Head) -> Head:
    """The head with nothing but what stands behind its output."""
    nodes = {each.node.name for each in head.readers.detections}
    return replace(
        head,
        constants=head.readers.tables,
        widths=tuple(each for each in head.widths if each.node in nodes),
    )


def _outside(head: Head, kept: Sequence[int]) -> tuple[Edit, ...]:
    """What sees the kept units alone, though all of them are computed."""
    behind = _behind(head)
    return (*_takes(behind, kept), *_width_edits(behind, kept))


def _takes(head: Head, kept: Sequence[int]) -> list[Edit]:
    return [
        Take(c.name, c.unit_axis.axis, c.unit_axis.positions(kept), c.uses) for c in head.constants
    ]


def _narrow(head: Head, kept: Sequence[int]) -> tuple[Edit, ...]:
    shapes = [SetShape(tensor.name, narrow_shape(tensor, kept)) for tensor in head.tensors]
    for junction in head.junctions:
        _check_parts(junction, kept)
    return (*_takes(head, kept), *shapes, *_width_edits(head, kept))


def _check_parts(junction: Junction, kept: Sequence[int]) -> None:
    """Each part is cut on its own, which must come to the same as a cut of the whole."""
    units, start = junction.whole.units, 0
    parts: list[Array] = []
    for stop in junction.stops:
        part = UnitAxis(0, units[start:stop]).positions(kept)
        if not len(part):
            raise ModelError(
                f"{junction.node} would be left with a part that has no position",
                f"keep {_named(units[start:stop])}, or use --mode zero",
            )
        parts.append(part + start)
        start = stop
    if not np.array_equal(np.concatenate(parts), junction.whole.positions(kept)):
        raise ModelError(
            f"units cannot change present across the parts of {junction.node}",
            "leave out --keep-order, or merge units that are neighbors",
        )


def _named(units: Array) -> str:
    low, high = units.min(), units.max()
    return f"unit {low}" if low == high else f"one of the units {low} to {high}"


def _rank_edits(head: Head, ranking: Ranking, kept: Sequence[int]) -> list[Edit]:
    """Of fewer units than it returns, a top-k returns all."""
    width = len(head.tensor(ranking.source).unit_axis.positions(kept))
    stated = ranking.stated
    if stated is None or stated.value[0] <= width:
        return []
    if ranking.fixed is not None:
        raise ModelError(
            f"{ranking.node} returns {stated.value[0]} units, of which {width} would be left, and "
            f"{ranking.fixed} counts on their number",
            f"keep at least {stated.value[0]} units",
        )
    shapes: list[Edit] = []
    for name, axis in ranking.rank_axes.items():
        shape = list(ranking.shapes[name])
        shape[axis] = width
        shapes.append(SetShape(name, tuple(shape)))
    return [_state(stated, [width]), *shapes]


def _width_edits(head: Head, kept: Sequence[int]) -> list[Edit]:
    """Every number in the file that states a width; several may stand in one attribute."""
    present: dict[tuple[str, str | int], list[Width]] = {}
    for width in head.widths:
        present.setdefault((width.node, width.place), []).append(width)
    edits: list[Edit] = []
    for widths in present.values():
        value = list(widths[0].value)
        for width in widths:
            labels = head.tensor(width.tensor).unit_axis
            value[width.entry or 0] = len(labels.positions(kept)) + width.offset
        edits.append(_state(widths[0], value))
    return edits


def _state(width: Width, value: list[int]) -> Edit:
    """The whole attribute or constant in which a width stands, with other numbers."""
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
    """The activation over the kept units alone, or over all; then what the output shows of it."""
    wide = semantics.restore_width
    shown, fill = head.tensor(head.output).unit_axis, semantics.floor or 0.0
    if semantics.absolute:
        values = np.asarray(z, np.float64)
        answer = apply_tail(head, values, None)
        if wide:
            return Expected(values, replace_removed(answer, shown, kept, None, fill))
        return Expected(values, select_units(answer, shown, kept))
    left = kept if present is None or wide else present
    values = select_units(z, head.tensor(head.z).unit_axis, left)
    answer = apply_tail(head, values, left)
    return Expected(values, widen(answer, shown, kept, present, fill) if wide else answer)


FUNCTIONS = ModeFunctions(slice_edits, slice_oracle, resolve_slice)
