"""Write the original weights of a large head into a file that was converted from its stub.

A stub is a copy of the model with a narrow head of STUB_UNITS units. A graft widens it again:

1. Trace the head in the converted file, as in any other file, to find its weights and biases, and
   their unit axes.
2. The stub's weights have values that differ from each other. Compare the values of each constant
   with them, to find the weight that it comes from and the layout that the converter gave it.
   Refuse a constant with other values, because its original values are not known.
3. Change the shapes that depend on the number of units, as a cut does, but make them wider.
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
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitConstant


@dataclass(frozen=True, eq=False)
class Graft:
    """The changes that turn a converted stub into the converted original.

    Attributes:
        plan: all edits except edits of weights.
        weights: constant of the file -> its original values in the file's layout, not copied.
    """

    plan: Plan
    weights: dict[str, Array]


def graft_for(graph: Graph, stub: Stub) -> Graft:
    """Plan the graft of a converted stub (ConversionError if its head or weights are not found)."""
    head = _head(graph, stub.head.output)
    weights = {c.name: _original_values(graph, c, stub) for c in head.constants}
    if sum(values.nbytes for values in weights.values()) < stub.size_bytes:
        raise ConversionError("the converted file does not contain all weights of the stub")
    return Graft(Plan(widening(head, stub.units)), weights)


def _head(graph: Graph, output: str) -> Head:
    for head in trace(graph).heads:
        if (head.output, head.units) == (output, STUB_UNITS) and has_plain_axes(head):
            return head
    raise ConversionError(f"the head {output!r} cannot be found in the converted file")


def _original_values(graph: Graph, constant: UnitConstant, stub: Stub) -> Array:
    """The values of a constant in the original, in the layout that it has in the file."""
    read = graph.tensors[constant.name].read
    assert read is not None  # noqa: S101 - narrows the type: it is a constant
    axis = constant.unit_axis.axis
    values = np.moveaxis(read(), axis, -1)
    other_axes = values.shape[:-1]
    for weight in stub.weights.values():
        in_stub = stub_values((*weight.shape[:-1], STUB_UNITS))
        if in_stub.size == values.size and np.array_equal(in_stub.ravel(), values.ravel()):
            return np.moveaxis(weight.reshape(*other_axes, stub.units), -1, axis)
    if not values.any():  # a bias of zeros that the converter added
        zeros = np.broadcast_to(np.zeros((), values.dtype), (*other_axes, stub.units))
        return np.moveaxis(zeros, -1, axis)
    raise ConversionError(f"the converter changed the stub's weights in {constant.name!r}")
