"""Give the stub that a converter has seen its whole head back, in the file that it wrote.

1. The head is traced in the converted file like in any other: that tells which constants hold the
   units, and along which axis.
2. The stub's values are distinct, so a constant tells by its values which weight it is, and how it
   was turned. One that was changed on the way is refused: its whole values cannot be known.
3. What states the width (shapes, targets of reshapes) follows as in a cut, the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.errors import ConversionError
from exporter.formats.keras.large_head_file import STUB_UNITS, stub_values
from exporter.formats.keras.stub import Stub, has_plain_axes, widening
from exporter.graph import Array, Graph
from exporter.graph.edits import Plan
from exporter.trace import trace
from exporter.trace.head import Head, UnitConstant


@dataclass(frozen=True, eq=False)
class Graft:
    """What makes a converted stub the whole model.

    Attributes:
        plan: all but the weights.
        weights: constant of the file -> its whole values as they stand there; views.
    """

    plan: Plan
    weights: dict[str, Array]


def graft_for(graph: Graph, stub: Stub) -> Graft:
    """Find the stub's head in a converted file (ConversionError where it is not to be found)."""
    head = _head(graph, stub.head.output)
    weights = {c.name: _whole(graph, c, stub) for c in head.constants}
    held = sum(values.nbytes for values in weights.values())
    if held < stub.size_bytes:
        raise ConversionError("the converter left out weights of the stub")
    return Graft(Plan(widening(head, stub.units)), weights)


def _head(graph: Graph, output: str) -> Head:
    for head in trace(graph).heads:
        if (head.output, head.units) == (output, STUB_UNITS) and has_plain_axes(head):
            return head
    raise ConversionError(f"the head {output!r} is not to be found in what the converter wrote")


def _whole(graph: Graph, constant: UnitConstant, stub: Stub) -> Array:
    read = graph.tensors[constant.name].read
    assert read is not None  # noqa: S101 - narrows the type: it is a constant
    axis = constant.unit_axis.axis
    values = np.moveaxis(read(), axis, -1)
    others = values.shape[:-1]
    for whole in stub.weights.values():
        known = stub_values((*whole.shape[:-1], STUB_UNITS))
        if known.size == values.size and np.array_equal(known.ravel(), values.ravel()):
            return np.moveaxis(whole.reshape(*others, stub.units), -1, axis)
    if not values.any():  # a bias that the converter has added
        zeros = np.broadcast_to(np.zeros((), values.dtype), (*others, stub.units))
        return np.moveaxis(zeros, -1, axis)
    raise ConversionError(f"the converter changed the stub's weights in {constant.name!r}")
