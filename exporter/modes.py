"""The modes: how units are removed (a plan), and what the result must answer (an oracle).

An oracle maps the original's z to the z and y that the pruned model must have; codes count as the
real values that they stand for. It is computed in NumPy, in float64, from nothing but z; the
planner and the oracle of a mode share no code but the places of the units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.activations import ACTIVATIONS, REDUCTIONS
from exporter.errors import ModelError
from exporter.graph import Array, Node, Shape, Use
from exporter.head import Head, Junction, LabelledTensor, Ranking, UnitAxis, Width
from exporter.operations import (
    Activation,
    Concat,
    Elementwise,
    Expand,
    FromShape,
    Linear,
    Pool,
    Reduce,
    Reshape,
    Slice,
    Split,
    Top,
    Transpose,
)
from exporter.plan import Edit, Fill, Replace, SetAttribute, SetShape, Take


@dataclass(frozen=True, eq=False)
class Expected:
    """What a pruned model must answer, in float64; shapes as the model returns them."""

    z: Array
    y: Array


@dataclass(frozen=True)
class Mode:
    """One way to remove units.

    Attributes:
        summary: one line for people.
        edits: head and kept units -> what to change in the file.
        oracle: head, kept units and the original's z -> the z and y of the result.
        narrows: the output has one position a kept unit instead of one a unit.
    """

    summary: str
    edits: Callable[[Head, Sequence[int]], tuple[Edit, ...]]
    oracle: Callable[[Head, Sequence[int], Array], Expected]
    narrows: bool


# --- slice --------------------------------------------------------------------------------------


def _slice_edits(head: Head, kept: Sequence[int]) -> tuple[Edit, ...]:
    takes = [Take(c.name, c.labels.axis, c.labels.positions(kept), c.uses) for c in head.constants]
    shapes = [SetShape(tensor.name, _narrowed(tensor, kept)) for tensor in head.tensors]
    for junction in head.junctions:
        _check_parts(junction, kept)
    ranks = [edit for ranking in head.rankings for edit in _rank_edits(head, ranking, kept)]
    return (*takes, *shapes, *_width_edits(head, kept), *ranks)


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
            f"units cannot change places across the parts of {junction.node}",
            "leave out --keep-order",
        )


def _named(units: Array) -> str:
    low, high = units.min(), units.max()
    return f"unit {low}" if low == high else f"one of the units {low} to {high}"


def _rank_edits(head: Head, ranking: Ranking, kept: Sequence[int]) -> list[Edit]:
    """Of fewer units than it returns, a top-k returns all."""
    width = len(head.tensor(ranking.source).labels.positions(kept))
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
    for name, axis in ranking.lengths.items():
        shape = list(ranking.shapes[name])
        shape[axis] = width
        shapes.append(SetShape(name, tuple(shape)))
    return [_state(stated, [width]), *shapes]


def _width_edits(head: Head, kept: Sequence[int]) -> list[Edit]:
    """Every number in the file that states a width; several may stand in one attribute."""
    places: dict[tuple[str, str | int], list[Width]] = {}
    for width in head.widths:
        places.setdefault((width.node, width.place), []).append(width)
    edits: list[Edit] = []
    for widths in places.values():
        value = list(widths[0].value)
        for width in widths:
            labels = head.tensor(width.tensor).labels
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


def _narrowed(tensor: LabelledTensor, kept: Sequence[int]) -> Shape:
    shape = list(tensor.shape)
    shape[tensor.labels.axis] = len(tensor.labels.positions(kept))
    return tuple(shape)


def _slice_oracle(head: Head, kept: Sequence[int], z: Array) -> Expected:
    labels = head.tensor(head.z).labels
    narrow = np.take(np.asarray(z, np.float64), labels.positions(kept), axis=labels.axis)
    return Expected(narrow, _run_tail(head, narrow, kept))


# --- zero ---------------------------------------------------------------------------------------


def _zero_edits(head: Head, kept: Sequence[int]) -> tuple[Edit, ...]:
    for node in head.body:
        if not _keeps_zero(node):
            raise ModelError(
                f"{node} does not map 0 to 0, so that a removed unit's value would not be 0",
                "use --mode slice",
            )
        for slot in _added(node):
            if not _is_labelled(head, node, slot):
                raise ModelError(
                    f"{node} adds the same {node.inputs[slot]!r} to all units, so that a removed "
                    "unit's value would not be 0",
                    "use --mode slice",
                )
    inside = {node.name for node in head.body}
    return tuple(
        Fill(c.name, c.labels.axis, c.labels.removed(kept), c.zero, uses)
        for c in head.constants
        if c.zero is not None
        and (uses := tuple(use for use in c.uses if use.node in inside))
        and len(c.labels.removed(kept))
    )


def _keeps_zero(node: Node) -> bool:
    match node.operation:
        case Elementwise(keeps_zero=keeps) | Expand(keeps_zero=keeps):
            return keeps
        case Activation(function="clip", parameters=parameters):
            bounds = dict(parameters)
            return bounds.get("min", -np.inf) <= 0.0 <= bounds.get("max", np.inf)
        case Activation(function=function):
            return ACTIVATIONS[function].keeps_zero
        case Reduce(function=function):
            return REDUCTIONS[function].keeps_zero
        case operation:
            zeros = isinstance(operation, FromShape) and operation.value == 0.0
            return zeros or isinstance(operation, _MOVING)


_MOVING = Linear | Reshape | Transpose | Pool | Concat | Split | Slice | Top


def _added(node: Node) -> tuple[int, ...]:
    """The slots of what is added to the node's values."""
    match node.operation:
        case Elementwise(offsets=offsets):
            return offsets
        case Linear(bias=int(bias)):
            return (bias,)
        case _:
            return ()


def _is_labelled(head: Head, node: Node, slot: int) -> bool:
    use = Use(node.name, slot)
    return any(use in constant.uses for constant in head.constants) or any(
        tensor.name == node.inputs[slot] for tensor in head.tensors
    )


def _zero_oracle(head: Head, kept: Sequence[int], z: Array) -> Expected:
    labels = head.tensor(head.z).labels
    full = np.array(z, np.float64)
    index: list[slice | Array] = [slice(None)] * full.ndim
    index[labels.axis] = labels.removed(kept)
    full[tuple(index)] = 0.0
    return Expected(full, _run_tail(head, full, None))


# --- from z to y --------------------------------------------------------------------------------


def _run_tail(head: Head, z: Array, kept: Sequence[int] | None) -> Array:
    """The tail in NumPy; `kept` where the tail is narrower than the original's."""
    values = z
    for node in head.tail:
        result = head.tensor(node.outputs[0])
        shape = result.shape if kept is None else _narrowed(result, kept)
        match node.operation:
            case Activation(function=function, axis=axis, parameters=parameters):
                compute = ACTIVATIONS[function].compute
                values = compute(values, axis if axis is not None else -1, dict(parameters))
            case Reshape():
                values = values.reshape([-1 if n is None else n for n in shape])
            case Transpose(permutation=permutation):
                values = values.transpose(permutation)
            case Reduce(axes=axes, keepdims=keepdims, function=function):
                values = REDUCTIONS[function].compute(values, axes, keepdims)
        if result.quantization is not None and result.quantization.scale.size == 1:
            values = result.quantization.nearest(values)
    return values


MODES: Mapping[str, Mode] = {
    "slice": Mode(
        "cut the removed units out of the head; the output becomes narrower",
        _slice_edits,
        _slice_oracle,
        narrows=True,
    ),
    "zero": Mode(
        "set the logits of removed units to exactly 0; the output keeps its width",
        _zero_edits,
        _zero_oracle,
        narrows=False,
    ),
}
