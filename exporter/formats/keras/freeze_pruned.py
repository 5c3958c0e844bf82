"""Keep zeroed units at 0 while a model is trained: put a constraint on their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.formats.keras.calls import all_layers
from exporter.formats.keras.model import KerasModel
from exporter.graph import Array
from exporter.layers import ZeroedUnits
from exporter.layers.zeroed_units import averages_of
from exporter.remap import HeadRemap, Remap
from exporter.remap.head_remap import members
from exporter.trace import Trace, trace
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitConstant


def freeze_pruned(model: Any, remap: Remap | None = None) -> None:
    """Keep the units that `mode="zero"` removed at 0 during further training.

    Example:
        pruned = exporter.prune(model, keep="cat,dog", mode="zero")
        exporter.freeze_pruned(pruned)
        pruned.fit(...)

    Changes the model: every trained weight of these units gets the constraint `ZeroedUnits`, both
    the variable and the setting of its layer (`kernel_constraint` and similar), so that it is saved
    with the model. An existing constraint stays in effect. Running averages of the weights
    (`use_ema`) are set to 0 for these units.

    Args:
        model: a built Functional or Sequential `keras.Model`.
        remap: of the pruning; None uses the model's own (`exporter.prune` sets it), or else the
            units whose weights are all 0.

    Raises:
        UsageError: no unit of the model is zeroed.
        ModelError: the remap names a head that the model does not have, or a layer has no setting
            for the constraint of one of its weights.
    """
    opened = KerasModel(model, remap=remap or getattr(model, "remap", None))
    heads = list(_heads(opened, trace(opened.graph())))
    zeroed = [part for head, kept in heads for part in _zeroed_parts(opened, head, kept)]
    if not zeroed:
        raise UsageError(
            "no unit of the model is zeroed",
            'prune it first: exporter.prune(model, ..., mode="zero")',
        )
    settings = [_constraint_setting(part) for part in zeroed]
    optimizer = getattr(model, "optimizer", None)
    for part, setting in zip(zeroed, settings, strict=True):
        constraint = ZeroedUnits(part.positions.tolist(), part.axis, part.variable.constraint)
        part.variable.constraint = constraint
        setattr(part.layer, setting, constraint)
        for values in (part.variable, *averages_of(optimizer, part.variable)):
            values.assign(constraint.zeroed(values))
    model.train_function = None  # the compiled one does not apply the new constraints


class _ZeroedPart(NamedTuple):
    """The positions of removed units in a variable, and the layer that trains the variable."""

    layer: Any
    variable: Any
    axis: int
    positions: Array


def _heads(opened: KerasModel, found: Trace) -> Iterator[tuple[Head, Sequence[int]]]:
    """The heads with zeroed units, and their kept units."""
    if opened.remap is None:
        for head in found.heads:
            kept = _nonzero_units(opened, head)
            if 0 < len(kept) < head.units:
                yield head, kept
        return
    for table in opened.remap.heads:
        if table.mode == "zero" and len(table.kept) < table.new_units:
            head = found.head(table.name)
            yield head, _kept_units(table, head)


def _kept_units(table: HeadRemap, head: Head) -> tuple[int, ...]:
    if table.new_units != head.units:
        raise ModelError(
            f"the remap has {table.new_units} units, and head {head.name!r} has {head.units}",
            "pass the remap of this model",
        )
    kept = set(table.kept)
    return tuple(i for i, unit in enumerate(table.new_to_old) if kept & set(members(unit)))


def _nonzero_units(opened: KerasModel, head: Head) -> Sequence[int]:
    """The units with a weight other than 0."""
    nonzero = set[int]()
    for constant in _zeroed_constants(head):
        _, variable = opened.drawing.weights[constant.name]
        values = np.moveaxis(keras.ops.convert_to_numpy(variable), constant.unit_axis.axis, 0)
        used = values.reshape(len(values), -1).any(axis=1)
        nonzero.update(constant.unit_axis.units[used & (constant.unit_axis.units >= 0)].tolist())
    return sorted(nonzero)


def _zeroed_constants(head: Head) -> Iterator[UnitConstant]:
    """The constants that mode zero sets to 0; scales and variances are not among them."""
    inside = {node.name for node in head.body}
    for constant in head.constants:
        if constant.zero is not None and any(use.node in inside for use in constant.uses):
            yield constant


def _zeroed_parts(opened: KerasModel, head: Head, kept: Sequence[int]) -> Iterator[_ZeroedPart]:
    for constant in _zeroed_constants(head):
        layer, variable = opened.drawing.weights[constant.name]
        owner = _training_layer(layer, variable)
        if owner is not None:
            axis = constant.unit_axis
            yield _ZeroedPart(owner, variable, axis.axis, axis.removed(kept))


def _training_layer(layer: Any, variable: Any) -> Any:
    """The layer, or the one inside it, that trains the variable; None if it is not trained."""
    for each in all_layers(layer):
        if any(variable is own for own in each._trainable_variables):  # noqa: SLF001 - likewise
            return each
    return None


def _constraint_setting(part: _ZeroedPart) -> str:
    """Name of the layer's setting for a constraint on the variable."""
    layer, name = part.layer, str(part.variable.name)
    for setting in (f"{name}_constraint", f"{name.removesuffix('_kernel')}_constraint"):
        if hasattr(layer, setting):
            return setting
    raise ModelError(
        f"{type(layer).__name__} {layer.name!r} has no setting for a constraint on {name!r}",
        "set exporter.ZeroedUnits on that variable yourself each time the model is built",
    )
