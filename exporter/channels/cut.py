"""The edits that remove channels of several groups at once.

A tensor or constant may have channels of several groups on one axis (a concatenation): a position
stays if the unit of every group that it belongs to stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from exporter.channels.groups import ChannelGroup
from exporter.graph import Array, Graph, Use
from exporter.graph.edits import Edit, Replace, SetAttribute, SetShape, Take
from exporter.trace.unit_axis import UnitAxis, Width

Kept = Mapping[str, Array]  # name of a group -> the units that stay, ascending; others stay whole


class Narrowed:
    """What stays of every axis.

    Args:
        kept: units by group.
    """

    def __init__(self, graph: Graph, groups: Iterable[ChannelGroup], kept: Kept) -> None:
        self._graph = graph
        self._groups = [(group, kept[group.name]) for group in groups if group.name in kept]
        self._tensors: dict[tuple[str, int], Array] = {}  # (tensor, axis) -> which positions stay
        self._constants: dict[tuple[str, int, Use], Array] = {}
        for group, units in self._groups:
            for tensor in group.tensors:
                key = tensor.name, tensor.unit_axis.axis
                _and(self._tensors, key, stays(tensor.unit_axis, units))
            for constant in group.constants:
                for use in constant.uses:
                    place = constant.name, constant.unit_axis.axis, use
                    _and(self._constants, place, stays(constant.unit_axis, units))

    def positions(self, constant: str, axis: int, use: Use) -> Array | None:
        """The positions that stay on an axis of a constant; None if all do."""
        mask = self._constants.get((constant, axis, use))
        return None if mask is None or mask.all() else np.flatnonzero(mask)

    def take(self, constant: str, use: Use, values: Array) -> Array:
        """The values of a constant that stay where it is read."""
        for axis in range(values.ndim):
            positions = self.positions(constant, axis, use)
            if positions is not None:
                values = np.take(values, positions, axis)
        return values

    def edits(self) -> tuple[Edit, ...]:
        """The edits in an order that a format applies; none if nothing is removed."""
        return (*self._takes(), *self._shapes(), *self._widths(), *self._counts())

    def _takes(self) -> list[Edit]:
        alike: dict[tuple[str, int, bytes], list[Use]] = {}
        for (constant, axis, use), mask in self._constants.items():
            if not mask.all():
                alike.setdefault((constant, axis, mask.tobytes()), []).append(use)
        return [
            Take(constant, axis, np.flatnonzero(np.frombuffer(mask, bool)), tuple(uses))
            for (constant, axis, mask), uses in alike.items()
        ]

    def _shapes(self) -> list[Edit]:
        shapes: dict[str, list[int | None]] = {}
        for (tensor, axis), mask in self._tensors.items():
            if not mask.all():
                shape = shapes.setdefault(tensor, list(self._graph.shape(tensor)))
                shape[axis] = int(mask.sum())
        return [SetShape(tensor, tuple(shape)) for tensor, shape in shapes.items()]

    def _widths(self) -> list[Edit]:
        """The numbers in the file that state a width; one attribute may contain several."""
        found: dict[tuple[str, str | int], tuple[Width, list[int]]] = {}
        for group, _ in self._groups:
            for width in group.widths:
                if (length := self._length(group, width.tensor)) is not None:
                    key = width.node, width.place
                    value = found.setdefault(key, (width, list(width.value)))[1]
                    value[width.entry or 0] = length + width.offset
        return [_set_value(width, value) for width, value in found.values()]

    def _counts(self) -> list[Edit]:
        found: dict[tuple[str, str], int] = {}
        for group, _ in self._groups:
            for count in group.counts:
                if (length := self._length(group, count.tensor)) is not None:
                    found[count.node, count.attribute] = length // count.channels
        return [SetAttribute(node, name, value) for (node, name), value in found.items()]

    def _length(self, group: ChannelGroup, tensor: str) -> int | None:
        """The new length of a tensor's channel axis; None if it is not narrower."""
        axis = next(each.unit_axis.axis for each in group.tensors if each.name == tensor)
        mask = self._tensors[tensor, axis]
        return None if mask.all() else int(mask.sum())


def stays(unit_axis: UnitAxis, kept: Sequence[int] | Array) -> Array:
    """For each position of an axis, whether it stays: (positions,) bool."""
    return (unit_axis.units < 0) | np.isin(unit_axis.units, kept)


def _and(
    masks: dict[tuple[str, int], Array] | dict[tuple[str, int, Use], Array],
    key: object,
    mask: Array,
) -> None:
    known = masks.get(key)  # type: ignore[call-overload]
    masks[key] = mask if known is None else known & mask  # type: ignore[index]


def _set_value(width: Width, value: list[int]) -> Edit:
    """Set the whole attribute or constant that contains a width."""
    stated = value[0] if width.entry is None else tuple(value)
    if isinstance(width.place, str):
        return SetAttribute(width.node, width.place, stated)
    return Replace(
        width.constant or "", np.asarray(stated, np.int64), (Use(width.node, width.place),)
    )
