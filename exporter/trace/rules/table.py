"""The rules: how a unit axis passes each neutral operation, in either direction.

A rule is given a node and the labels at one of its ends, and yields the labels at its other ends,
and the places in the file that state the width of the labeled axis. It refuses where the operation
mixes units, or where labels would end up on no single axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from exporter.graph.operations import (
    Activation,
    Concat,
    ConstantOfShape,
    Elementwise,
    Expand,
    GatherComputed,
    GatherConstant,
    Linear,
    NonMaxSuppression,
    Operation,
    Pool,
    Reduce,
    Reshape,
    ShapeOf,
    Slice,
    Split,
    TopK,
    Transpose,
)
from exporter.graph.walk import dependents
from exporter.trace.head import UnitAxis
from exporter.trace.rules.concat_split_slice import concat, slice_, split
from exporter.trace.rules.detectors import detect
from exporter.trace.rules.protocol import (
    Fact,
    Fetches,
    Peaks,
    Port,
    Ranks,
    Refused,
    Rule,
    States,
    UnitsAt,
    Visit,
)
from exporter.trace.rules.reshape import move_labels, reshape
from exporter.trace.rules.runtime_width import follows, is_width

__all__ = ["NOT_CHANNELS", "RULES", "Refused", "move_labels"]

NOT_CHANNELS = "the axis is not that of its output channels"


def _linear(step: Visit) -> Iterator[Fact]:
    """The labels of the output's channels are those of kernel and bias; nothing passes."""
    operation = step.node.operation
    assert isinstance(operation, Linear)  # noqa: S101 - narrows the type; RULES guarantees it
    output_axis = operation.output_axis
    if step.port == Port("input", operation.kernel):
        expected = operation.kernel_axis
    elif step.port.slot == operation.bias and step.port.side == "input":
        expected = len(step.shape(step.port)) - 1
    elif step.port.side == "output":
        expected = output_axis
    else:
        raise step.refuse("it sums over the units")
    if step.unit_axis.axis != expected:
        raise step.refuse(NOT_CHANNELS)
    if operation.groups != 1:
        raise step.refuse(f"its {operation.groups} groups tie output channels to input channels")
    yield UnitsAt(Port("output", 0), step.unit_axis.at(output_axis))
    kernel = step.unit_axis.at(operation.kernel_axis)
    yield UnitsAt(Port("input", operation.kernel), kernel, zero=operation.kernel_zero)
    yield from _along(step, operation)
    if operation.bias is not None:
        shape = step.shape(Port("input", operation.bias))
        if shape and shape[-1] in {
            len(step.unit_axis.units),
            None,
        }:  # else one value serves them all
            port = Port("input", operation.bias)
            yield UnitsAt(port, step.unit_axis.at(len(shape) - 1), zero=0.0)
    if operation.width_attribute is not None:
        yield States(operation.width_attribute, (len(step.unit_axis.units),), None)


def _along(step: Visit, operation: Linear) -> Iterator[Fact]:
    """What stands along the kernel: of a channel in blocks each entry is of the same unit."""
    units = step.unit_axis.units
    for slot, axis, zero in operation.along:
        port = Port("input", slot)
        blocks, rest = divmod(step.width(port, axis), len(units))
        if rest:
            raise step.refuse(f"its input {step.tensor(port)!r} does not fit its channels")
        yield UnitsAt(port, UnitAxis(axis, np.repeat(units, blocks)), zero)


def _elementwise(step: Visit) -> Iterator[Fact]:
    """Every end has the same labels at the same place, but for inputs that broadcast there."""
    operation = step.node.operation
    assert isinstance(operation, Elementwise | Activation)  # noqa: S101
    rank = len(step.shape(Port("output", 0)))
    axis = step.unit_axis.axis
    if step.port.side == "input":
        axis += rank - len(step.shape(step.port))
    width = len(step.unit_axis.units)
    if step.shape(Port("output", 0))[axis] != width:
        raise step.refuse("the units are broadcast against something wider")
    zeroed = _zeroed(step, axis)
    for slot in range(len(step.node.outputs)):
        yield UnitsAt(Port("output", slot), step.unit_axis.at(axis))
    channel_axis = operation.channel_axis if isinstance(operation, Elementwise) else None
    for slot, name in enumerate(step.node.inputs):
        if not name:
            continue
        shape = step.shape(Port("input", slot))
        vector = channel_axis is not None and len(shape) == 1 and slot > 0
        if vector and channel_axis != axis:
            continue
        own = 0 if vector else axis - (rank - len(shape))
        if own >= 0 and shape[own] is None:
            raise step.refuse(f"the shape of its input {name!r} is not known where the units lie")
        if own >= 0 and shape[own] == width:
            zero = 0.0 if slot in zeroed else None
            yield UnitsAt(Port("input", slot), step.unit_axis.at(own), zero)


def _zeroed(step: Visit, axis: int) -> tuple[int, ...]:
    """The slots of constants that have to be 0 where a unit's value shall be."""
    operation = step.node.operation
    if not isinstance(operation, Elementwise):
        return ()
    if operation.block_axis == axis:
        raise step.refuse("its blocks hold several units each, which share a scale")
    if operation.block_axis is not None:
        return (_SCALES,)  # which brings a 0 that no kernel rounds
    constant = all(step.graph.tensors[name].is_constant for name in step.node.inputs if name)
    return (0, *operation.offsets) if constant else operation.offsets  # nothing else brings the 0


_SCALES = 1  # the slot


def _transpose(step: Visit) -> Iterator[Fact]:
    operation = step.node.operation
    assert isinstance(operation, Transpose)  # noqa: S101
    if step.port.side == "output":
        labels = step.unit_axis.at(operation.permutation[step.unit_axis.axis])
        yield UnitsAt(Port("input", 0), labels, zero=0.0)
    else:
        yield UnitsAt(
            Port("output", 0), step.unit_axis.at(operation.permutation.index(step.unit_axis.axis))
        )


def _reduce(step: Visit) -> Iterator[Fact]:
    """The axes that stay keep their labels; those that go must not be the unit axis."""
    operation = step.node.operation
    assert isinstance(operation, Reduce)  # noqa: S101
    largest = operation.function == "max" and operation.axes == (step.unit_axis.axis,)
    if largest and step.port.side == "input" and _is_suppressed(step):
        yield Peaks()
        return
    yield from _without(step, operation.axes, keepdims=operation.keepdims)


def _is_suppressed(step: Visit) -> bool:
    """Does a post-process rank boxes by what the node returns?"""
    graph = step.graph
    behind = dependents(graph, step.node.outputs)
    return any(
        (
            isinstance(node.operation, NonMaxSuppression)
            and node.inputs[node.operation.classes] in behind
        )
        or (isinstance(node.operation, TopK) and node.inputs[0] in behind)
        for node in graph.nodes
    )


def _pick(step: Visit) -> Iterator[Fact]:
    """Positions of another axis; of the unit axis none may be taken by its place."""
    operation = step.node.operation
    assert isinstance(operation, GatherConstant)  # noqa: S101
    dropped = operation.axis
    axis = step.unit_axis.axis
    if step.port.side == "output" and not operation.keepdims and axis >= dropped:
        axis += 1
    if axis == dropped:
        raise step.refuse("it takes units by their place")
    yield UnitsAt(Port("input", 0), step.unit_axis.at(axis), zero=0.0)
    left = axis - (not operation.keepdims and axis > dropped)
    yield UnitsAt(Port("output", 0), step.unit_axis.at(left))


def _fetch(step: Visit) -> Iterator[Fact]:
    """Its result are values of some units; whether their places follow a cut is asked later."""
    operation = step.node.operation
    assert isinstance(operation, GatherComputed)  # noqa: S101
    if operation.axis is not None and step.unit_axis.axis != operation.axis:
        for port in (Port("output", 0), Port("input", 0), Port("input", 1)):
            yield UnitsAt(port, step.unit_axis)
        return
    if step.port != Port("input", 0):
        raise step.refuse("it takes units by computed places")
    yield Fetches()


def _pool(step: Visit) -> Iterator[Fact]:
    operation = step.node.operation
    assert isinstance(operation, Pool)  # noqa: S101
    yield from _without(step, operation.axes, keepdims=True)


def _without(step: Visit, mixed: tuple[int, ...], *, keepdims: bool) -> Iterator[UnitsAt]:
    """Labels pass an operation that mixes the positions along some axes, and perhaps drops them."""
    left = [axis for axis in range(len(step.shape(Port("input", 0)))) if axis not in mixed]
    axis = step.unit_axis.axis
    if step.port.side == "output" and not keepdims:
        axis = left[axis]
    if axis not in left:
        raise step.refuse("it mixes the units")
    yield UnitsAt(Port("input", 0), step.unit_axis.at(axis), zero=0.0)
    yield UnitsAt(Port("output", 0), step.unit_axis.at(axis if keepdims else left.index(axis)))


def _expand(step: Visit) -> Iterator[Fact]:
    """The output may have more axes than the input, in front."""
    operation = step.node.operation
    assert isinstance(operation, Expand)  # noqa: S101
    more = len(step.shape(Port("output", 0))) - len(step.shape(Port("input", 0)))
    axis = step.unit_axis.axis + (more if step.port.side == "input" else 0)
    if axis in operation.grown:
        yield from _grown(step, axis - more)
        return
    yield UnitsAt(Port("input", 0), step.unit_axis.at(axis - more), zero=0.0)
    yield UnitsAt(Port("output", 0), step.unit_axis.at(axis))
    target = operation.target
    if (
        target is not None
        and operation.slot is not None
        and target[axis] == len(step.unit_axis.units)
    ):
        yield States(operation.slot, target, axis)


def _grown(step: Visit, own: int) -> Iterator[Fact]:
    """One value may be repeated for every unit, as often as the file says."""
    operation = step.node.operation
    assert isinstance(operation, Expand)  # noqa: S101
    single = own < 0 or step.shape(Port("input", 0))[own] == 1
    target, slot = operation.target, operation.slot
    stated = target is not None and slot is not None
    counted = operation.computed and is_width(step.graph, step.node.inputs[1], step.known)
    if step.port.side == "input" or not single or not (stated or counted):
        raise step.refuse("it repeats or pads the units")
    yield UnitsAt(Port("output", 0), step.unit_axis)
    if target is not None and slot is not None:
        yield States(slot, target, step.unit_axis.axis)


def _from_shape(step: Visit) -> Iterator[Fact]:
    operation = step.node.operation
    assert isinstance(operation, ConstantOfShape)  # noqa: S101
    yield States(operation.slot, operation.shape, step.unit_axis.axis)


def _measure(step: Visit) -> Iterator[Fact]:
    """The length of another axis stays as it is, and says nothing of the units."""
    operation = step.node.operation
    assert isinstance(operation, ShapeOf)  # noqa: S101
    counted = step.unit_axis.axis in operation.axes and not follows(step.graph, step.node)
    if step.port.side == "output" or counted:
        raise step.refuse("it computes with the number of units", _FIXED)
    yield from ()


_FIXED = "where this comes of open lengths, export the model with fixed ones"


def _top(step: Visit) -> Iterator[Fact]:
    """Along the unit axis it ranks the units; along another one it answers for each unit."""
    operation = step.node.operation
    assert isinstance(operation, TopK)  # noqa: S101
    axis, keepdims = operation.axis, operation.keepdims
    if step.port.side == "input" and step.unit_axis.axis == axis:
        yield Ranks()
        return
    if step.port.side == "output" and keepdims and step.unit_axis.axis == axis:
        raise step.refuse("the positions of its results are ranks, not units")
    for answer in _without(step, (axis,), keepdims=keepdims):
        if answer.port.side == "input":
            yield answer
            continue
        for slot, name in enumerate(step.node.outputs):
            if name:
                yield UnitsAt(Port("output", slot), answer.unit_axis)


RULES: Mapping[type[Operation], Rule] = {
    Linear: _linear,
    GatherComputed: _fetch,
    GatherConstant: _pick,
    Elementwise: _elementwise,
    Activation: _elementwise,
    Reshape: reshape,
    Transpose: _transpose,
    Reduce: _reduce,
    Pool: _pool,
    Concat: concat,
    Split: split,
    Slice: slice_,
    Expand: _expand,
    ConstantOfShape: _from_shape,
    ShapeOf: _measure,
    TopK: _top,
    NonMaxSuppression: detect,
}
