"""Products with a kernel: the walk from an output ends at their kernel and bias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.graph.operations import Linear
from exporter.trace.rules.protocol import FIRST_OUTPUT, Fact, Port, UnitsAt, Visit
from exporter.trace.unit_axis import UnitAxis

NOT_CHANNELS = "the axis is not the axis of its output channels"


def linear(visit: Visit, operation: Linear) -> Iterator[Fact]:
    """The output channels, the kernel and the bias have the same units; no input has."""
    if visit.port == Port("input", operation.kernel):
        expected = operation.kernel_axis
    elif visit.port.slot == operation.bias and visit.port.side == "input":
        expected = len(visit.shape(visit.port)) - 1
    elif visit.port.side == "output":
        expected = operation.output_axis
    else:
        raise visit.refuse("it sums over the units")
    if visit.unit_axis.axis != expected:
        raise visit.refuse(NOT_CHANNELS)
    if operation.groups != 1:
        raise visit.refuse(f"its {operation.groups} groups tie output channels to input channels")
    yield UnitsAt(FIRST_OUTPUT, visit.unit_axis.at(operation.output_axis))
    kernel = visit.unit_axis.at(operation.kernel_axis)
    yield UnitsAt(Port("input", operation.kernel), kernel, zero=operation.kernel_zero)
    yield from _per_channel(visit, operation)
    width = len(visit.unit_axis.units)
    if operation.bias is not None:
        port = Port("input", operation.bias)
        shape = visit.shape(port)
        if shape and shape[-1] in {width, None}:  # otherwise one value is added to all channels
            yield UnitsAt(port, visit.unit_axis.at(len(shape) - 1), zero=0.0)
    if operation.width_attribute is not None:
        yield visit.states(operation.width_attribute, (width,), None)


def _per_channel(visit: Visit, operation: Linear) -> Iterator[Fact]:
    """Scales and zero points: where a channel has several blocks, each has an entry."""
    units = visit.unit_axis.units
    for slot, axis, zero in operation.along:
        port = Port("input", slot)
        blocks, rest = divmod(visit.width(port, axis), len(units))
        if rest:
            raise visit.refuse(f"its input {visit.tensor(port)!r} does not fit its channels")
        yield UnitsAt(port, UnitAxis(axis, np.repeat(units, blocks)), zero)
