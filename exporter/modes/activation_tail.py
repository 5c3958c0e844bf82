"""From z to y in NumPy, in float64: the part that the oracles of all modes share.

`present` are the units that have a position in a tensor; None means all units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.graph import Array, Node, Shape
from exporter.graph.activations import ACTIVATIONS, REDUCTIONS
from exporter.graph.operations import (
    Activation,
    Elementwise,
    Reduce,
    Reshape,
    Slice,
    Split,
    Transpose,
)
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitAxis, UnitTensor


def apply_tail(head: Head, z: Array, present: Sequence[int] | None) -> Array:
    """The output y for one sample of z, computed by the nodes of the head's tail."""
    values = z
    for node in head.tail:
        result = head.result(node)
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
                values = values * _factors(head.factors[node.name].by, result, present)
            case Slice() | Split():
                values = _without_others(head, node, values, present)
            case Reduce(axes=axes, keepdims=keepdims, function=function):
                values = REDUCTIONS[function].compute(values, axes, keepdims)
        if result.quantization is not None and result.quantization.scale.size == 1:
            values = result.quantization.nearest(values)
    return values


def _without_others(head: Head, node: Node, values: Array, present: Sequence[int] | None) -> Array:
    """The values that a node selects: it drops positions of no unit on the unit axis."""
    unit_axis, operation = head.tensor(node.inputs[0]).unit_axis, node.operation
    every, units = unit_axis.units, head.result(node).unit_axis.units
    first = next(i for i in range(len(every)) if np.array_equal(every[i : i + len(units)], units))
    positions = np.arange(len(every)) if present is None else unit_axis.positions(present)
    selected = np.flatnonzero((positions >= first) & (positions < first + len(units)))
    if isinstance(operation, Slice):
        ranges = zip(operation.starts, operation.stops, operation.steps, strict=True)
        index: list[slice] = [slice(None)] * values.ndim
        for axis, (start, stop, step) in zip(operation.axes, ranges, strict=True):
            if axis != unit_axis.axis:
                is_rest = operation.counts and stop < 0
                end = None if is_rest else stop + start * operation.counts
                index[axis] = slice(start, end, step)
        values = values[tuple(index)]
    return np.take(values, selected, axis=unit_axis.axis)


def _factors(factors: Array, tensor: UnitTensor, present: Sequence[int] | None) -> Array:
    """The factors of the positions in a tensor, in a shape that broadcasts to it."""
    axis = tensor.unit_axis
    chosen = factors if present is None else factors[axis.positions(present)]
    return chosen.reshape([-1, *[1] * (len(tensor.shape) - axis.axis - 1)])


def narrow_shape(tensor: UnitTensor, present: Sequence[int]) -> Shape:
    """The shape of a tensor in which only these units have a position."""
    return tensor.with_width(len(tensor.unit_axis.positions(present)))


def select_units(values: Array, axis: UnitAxis, present: Sequence[int] | None) -> Array:
    """The values of these units, in float64."""
    real = np.asarray(values, np.float64)
    return real if present is None else np.take(real, axis.positions(present), axis=axis.axis)


def present_units(axis: UnitAxis, present: Sequence[int] | None) -> Array:
    """The unit of each position that remains."""
    return axis.units if present is None else axis.units[axis.positions(present)]


def replace_removed(
    values: Array, axis: UnitAxis, kept: Sequence[int], present: Sequence[int] | None, value: float
) -> Array:
    """The values, with another one at the positions of units that are not kept.

    Args:
        values: of the units in `present`.
        axis: the unit axis with all units.
        kept: the kept units.
        present: the units that have a position.
        value: for all other units.
    """
    result = np.array(values, np.float64)
    index: list[slice | Array] = [slice(None)] * result.ndim
    index[axis.axis] = UnitAxis(axis.axis, present_units(axis, present)).removed(kept)
    result[tuple(index)] = value
    return result


def widen(
    values: Array, axis: UnitAxis, kept: Sequence[int], present: Sequence[int] | None, value: float
) -> Array:
    """The values of kept units, and another value for all other units that have a position.

    Args:
        values: of the units in `kept`, ascending, and of positions that belong to no unit.
        axis: the unit axis with all units.
        kept: the kept units.
        present: the units that have a position in the result.
        value: for all other units.
    """
    units = present_units(axis, present)
    shape = list(values.shape)
    shape[axis.axis] = len(units)
    result = np.full(shape, value, np.float64)
    index: list[slice | Array] = [slice(None)] * result.ndim
    index[axis.axis] = np.flatnonzero((units < 0) | np.isin(units, kept))
    result[tuple(index)] = values
    return result
