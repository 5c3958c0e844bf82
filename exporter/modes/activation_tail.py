"""From z to y in NumPy: what the oracles of all modes share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.graph import Array, Shape
from exporter.graph.activations import ACTIVATIONS, REDUCTIONS
from exporter.graph.operations import Activation, Elementwise, Reduce, Reshape, Transpose
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitAxis, UnitTensor


def apply_tail(head: Head, z: Array, present: Sequence[int] | None) -> Array:
    """y = a(z), in float64.

    Args:
        head: says what stands between z and y.
        z: one sample; of the units in `present` alone, where they are given.
        present: the units that have a place, where the tail is narrower than the original's.
    """
    values = z
    for node in head.tail:
        result = head.tensor(node.outputs[0])
        shape = result.shape if present is None else narrow_shape(result, present)
        match node.operation:
            case Activation(function=function, axis=axis, parameters=parameters):
                compute = ACTIVATIONS[function].compute
                values = compute(values, axis if axis is not None else -1, dict(parameters))
            case Reshape():
                values = values.reshape([-1 if n is None else n for n in shape])
            case Transpose(permutation=permutation):
                values = values.transpose(permutation)
            case Elementwise() if node.name in head.factors:
                values = values * _standing(head.factors[node.name].by, result, present)
            case Reduce(axes=axes, keepdims=keepdims, function=function):
                values = REDUCTIONS[function].compute(values, axes, keepdims)
        if result.quantization is not None and result.quantization.scale.size == 1:
            values = result.quantization.nearest(values)
    return values


def _standing(factors: Array, tensor: UnitTensor, present: Sequence[int] | None) -> Array:
    """The factors of the positions that are there, so that they broadcast to the tensor."""
    labels = tensor.unit_axis
    there = factors if present is None else factors[labels.positions(present)]
    return there.reshape([-1, *[1] * (len(tensor.shape) - labels.axis - 1)])


def narrow_shape(tensor: UnitTensor, present: Sequence[int]) -> Shape:
    """The shape of a tensor in which only these units have a place."""
    shape = list(tensor.shape)
    shape[tensor.unit_axis.axis] = len(tensor.unit_axis.positions(present))
    return tuple(shape)


def select_units(values: Array, labels: UnitAxis, units: Sequence[int] | None) -> Array:
    """The values of some units alone, in float64; of all where none are given."""
    real = np.asarray(values, np.float64)
    if units is None:
        return real
    return np.take(real, labels.positions(units), axis=labels.axis)


def replace_removed(
    values: Array,
    labels: UnitAxis,
    kept: Sequence[int],
    present: Sequence[int] | None,
    value: float,
) -> Array:
    """The values with another one wherever a unit stands that is not kept.

    Args:
        values: of the units in `present`, or of all.
        labels: where all units stand.
        kept: the units that are alive.
        present: the units that have a place; None for all.
        value: stands for all others.
    """
    units = labels.units if present is None else labels.units[labels.positions(present)]
    result = np.array(values, np.float64)
    index: list[slice | Array] = [slice(None)] * result.ndim
    index[labels.axis] = UnitAxis(labels.axis, units).removed(kept)
    result[tuple(index)] = value
    return result


def widen(
    values: Array,
    labels: UnitAxis,
    kept: Sequence[int],
    present: Sequence[int] | None,
    fill: float,
) -> Array:
    """The values of kept units at the width of all that have a place, the others filled.

    Args:
        values: of the units in `kept`, ascending, and of what is no unit.
        labels: where all units stand.
        kept: the units that are alive.
        present: the units that have a place; None for all.
        fill: stands for all others.
    """
    units = labels.units if present is None else labels.units[labels.positions(present)]
    shape = list(values.shape)
    shape[labels.axis] = len(units)
    result = np.full(shape, fill, np.float64)
    index: list[slice | Array] = [slice(None)] * result.ndim
    index[labels.axis] = np.flatnonzero((units < 0) | np.isin(units, kept))
    result[tuple(index)] = values
    return result
