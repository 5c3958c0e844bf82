"""Elementwise operations and activations."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.graph.operations import Activation, Elementwise
from exporter.trace.rules.protocol import FIRST_OUTPUT, Fact, Port, UnitsAt, Visit

_SCALES = 1  # slot of the scales of blocks


def elementwise(visit: Visit, operation: Elementwise | Activation) -> Iterator[Fact]:
    """All inputs and outputs have the same units, except inputs that are broadcast along them."""
    output = visit.shape(FIRST_OUTPUT)
    rank, width = len(output), len(visit.unit_axis.units)
    axis = visit.unit_axis.axis
    if visit.port.side == "input":
        axis += rank - len(visit.shape(visit.port))
    if output[axis] != width:
        raise visit.refuse("the units are broadcast against something wider")
    zeroed = _zeroed(visit, operation, axis)
    for slot in range(len(visit.node.outputs)):
        yield UnitsAt(Port("output", slot), visit.unit_axis.at(axis))
    channel_axis = operation.channel_axis if isinstance(operation, Elementwise) else None
    for slot, name in enumerate(visit.node.inputs):
        if not name:
            continue
        port = Port("input", slot)
        shape = visit.shape(port)
        per_channel = channel_axis is not None and len(shape) == 1 and slot > 0
        if per_channel and channel_axis != axis:
            continue
        own = 0 if per_channel else axis - (rank - len(shape))
        if own >= 0 and shape[own] is None:
            raise visit.refuse(f"the shape of its input {name!r} is not known on the unit axis")
        if own >= 0 and shape[own] == width:
            yield UnitsAt(port, visit.unit_axis.at(own), 0.0 if slot in zeroed else None)


def _zeroed(visit: Visit, operation: Elementwise | Activation, axis: int) -> tuple[int, ...]:
    """The slots of constants that must be 0 where the value of a unit shall be 0."""
    if not isinstance(operation, Elementwise):
        return ()
    if operation.block_axis == axis:
        raise visit.refuse("its blocks contain several units each, which share a scale")
    if operation.block_axis is not None:
        return (_SCALES,)  # a scale of 0 gives exactly 0, which a quantized value may not
    constant = all(visit.graph.tensors[name].is_constant for name in visit.node.inputs if name)
    return (0, *operation.offsets) if constant else operation.offsets  # the first is a value too
