"""Products with a kernel: the walk from an output ends at their kernel and bias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.graph.operations import Linear, Stack
from exporter.trace.rules.protocol import FIRST_OUTPUT, Fact, Port, UnitsAt, Visit
from exporter.trace.unit_axis import UnitAxis, Width

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
    if operation.shape is not None:
        yield _in_shape(visit, operation, operation.shape)
    if operation.width_attribute is not None:
        yield visit.states(operation.width_attribute, (width,), None)


def _in_shape(visit: Visit, operation: Linear, slot: int) -> Width:
    """Where the shape of the output states the width: in a constant, or in a part of it."""
    graph, name = visit.graph, visit.node.inputs[slot]
    read = graph.tensors[name].read
    if read is not None:
        return visit.states(slot, tuple(int(n) for n in np.ravel(read())), operation.output_axis)
    producer, _ = graph.producers.get(name, (None, 0))
    parts = producer.inputs if producer and isinstance(producer.operation, Stack) else ()
    part = parts[operation.output_axis] if operation.output_axis < len(parts) else ""
    if producer is not None and part and graph.tensors[part].is_constant:
        value, result = (len(visit.unit_axis.units),), visit.tensor(FIRST_OUTPUT)
        return Width(producer.name, operation.output_axis, part, value, None, result)
    raise visit.refuse("the shape of its result is computed while the model runs")


def _per_channel(visit: Visit, operation: Linear) -> Iterator[Fact]:
    """Scales and zero points: where a channel has several blocks, each has an entry."""
    units = visit.unit_axis.units
    for slot, axis, zero in operation.along:
        port = Port("input", slot)
        blocks, rest = divmod(visit.width(port, axis), len(units))
        if rest:
            raise visit.refuse(f"its input {visit.tensor(port)!r} does not fit its channels")
        yield UnitsAt(port, UnitAxis(axis, np.repeat(units, blocks)), zero)
