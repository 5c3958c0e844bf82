"""Training on after units were zeroed: the constraint is put on the weights that make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.formats.keras.model import KerasModel
from exporter.graph import Array
from exporter.layers import ZeroedUnits
from exporter.layers.zeroed_units import averages_of
from exporter.remap import HeadRemap, Remap
from exporter.remap.head_remap import members
from exporter.trace import Trace, trace
from exporter.trace.head import Head, UnitConstant


def freeze_pruned(model: Any, remap: Remap | None = None) -> None:
    """Keep the units that `mode="zero"` removed at 0 while the model is trained on.

    The constraint `ZeroedUnits` is put, in place, on every trained weight that makes these units:
    on the variables, and on the layers' settings (`kernel_constraint` and the like), so that it is
    saved. A constraint that is there already goes on to hold. A running average of the weights
    (`use_ema`) is put to 0 there at once.

    Args:
        model: a built Functional or Sequential `keras.Model`.
        remap: how it was cut; None takes the model's own (`exporter.prune` gives it one), or else
            the units whose weights are all 0.

    Raises:
        UsageError: no unit of the model is zeroed.
        ModelError: a head of the remap that the model does not have, or a weight in a layer that
            has no setting for its constraint.
    """
    opened = KerasModel(model, remap=remap or getattr(model, "remap", None))
    found = trace(opened.graph())
    zeroed = [rows for head, alive in _heads(opened, found) for rows in _rows(opened, head, alive)]
    if not zeroed:
        raise UsageError(
            "no unit of the model is zeroed",
            'cut it first: exporter.prune(model, ..., mode="zero")',
        )
    settings = [_setting(rows) for rows in zeroed]
    optimizer = getattr(model, "optimizer", None)
    for rows, setting in zip(zeroed, settings, strict=True):
        constraint = ZeroedUnits(rows.positions.tolist(), rows.axis, rows.variable.constraint)
        rows.variable.constraint = constraint
        setattr(rows.layer, setting, constraint)
        for values in (rows.variable, *averages_of(optimizer, rows.variable)):
            values.assign(constraint.zeroed(values))
    model.train_function = None  # the next call of fit compiles one that asks the constraints


class _Rows(NamedTuple):
    """The positions of a variable that make removed units, and the layer that it is in."""

    layer: Any
    variable: Any
    axis: int
    positions: Array


def _heads(opened: KerasModel, found: Trace) -> Iterator[tuple[Head, Sequence[int]]]:
    """The heads with units that were removed in place, and those that were not removed."""
    if opened.remap is None:
        for head in found.heads:
            alive = _alive(opened, head)
            if 0 < len(alive) < head.units:
                yield head, alive
        return
    for table in opened.remap.heads:
        if table.mode == "zero" and len(table.kept) < table.new_units:
            head = found.head(table.name)
            yield head, _kept_places(table, head)


def _kept_places(table: HeadRemap, head: Head) -> tuple[int, ...]:
    if table.new_units != head.units:
        raise ModelError(
            f"the remap tells of {table.new_units} units, and head {head.name!r} has {head.units}",
            "give the remap of this model",
        )
    kept = set(table.kept)
    return tuple(i for i, place in enumerate(table.new_to_old) if kept & set(members(place)))


def _alive(opened: KerasModel, head: Head) -> Sequence[int]:
    """The units with a weight that is not 0."""
    alive = set[int]()
    for constant in _filled(head):
        _, variable = opened.picture.weights[constant.name]
        values = np.moveaxis(keras.ops.convert_to_numpy(variable), constant.unit_axis.axis, 0)
        used = values.reshape(len(values), -1).any(axis=1)
        alive.update(constant.unit_axis.units[used & (constant.unit_axis.units >= 0)].tolist())
    return sorted(alive)


def _filled(head: Head) -> Iterator[UnitConstant]:
    """What is 0 where a unit was removed: not scales and variances."""
    inside = {node.name for node in head.body}
    for constant in head.constants:
        if constant.zero is not None and any(use.node in inside for use in constant.uses):
            yield constant


def _rows(opened: KerasModel, head: Head, alive: Sequence[int]) -> Iterator[_Rows]:
    for constant in _filled(head):
        layer, variable = opened.picture.weights[constant.name]
        owner = _owner(layer, variable)
        if owner is not None:
            labels = constant.unit_axis
            yield _Rows(owner, variable, labels.axis, labels.removed(alive))


def _owner(layer: Any, variable: Any) -> Any:
    """The layer, or one inside of it, that trains the variable; None where nobody does."""
    for each in layer._flatten_layers():  # noqa: SLF001 - Keras has no public way to inner layers
        if any(variable is own for own in each._trainable_variables):  # noqa: SLF001 - likewise
            return each
    return None


def _setting(rows: _Rows) -> str:
    """The name of the layer's setting for a constraint on the variable."""
    layer, name = rows.layer, str(rows.variable.name)
    for setting in (f"{name}_constraint", f"{name.removesuffix('_kernel')}_constraint"):
        if hasattr(layer, setting):
            return setting
    raise ModelError(
        f"{type(layer).__name__} {layer.name!r} has no setting for a constraint on {name!r}",
        "put exporter.ZeroedUnits on that variable yourself, whenever the model is built",
    )
