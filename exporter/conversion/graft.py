"""Write the original weights of a large head into a file that was converted from its stub.

1. The head is traced in the converted file like in any other file: this finds the constants that
   make the units, and their unit axes.
2. The stub's values are distinct, so the values of a constant show which weight it is, and how the
   converter reshaped it. A constant with other values is refused: its full values are not known.
3. Shapes that depend on the width are edited as in a cut, in the other direction.
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
    """The changes that turn a converted stub into the whole model.

    Attributes:
        plan: all edits but of weights.
        weights: constant of the file -> its full values in the file's layout; views.
    """

    plan: Plan
    weights: dict[str, Array]


def graft_for(graph: Graph, stub: Stub) -> Graft:
    """Find the stub's head in a converted file (ConversionError if it cannot be found)."""
    head = _head(graph, stub.head.output)
    weights = {c.name: _full_values(graph, c, stub) for c in head.constants}
    if sum(values.nbytes for values in weights.values()) < stub.size_bytes:
        raise ConversionError("the converter left out weights of the stub")
    return Graft(Plan(widening(head, stub.units)), weights)


def _head(graph: Graph, output: str) -> Head:
    for head in trace(graph).heads:
        if (head.output, head.units) == (output, STUB_UNITS) and has_plain_axes(head):
            return head
    raise ConversionError(f"the head {output!r} cannot be found in the converted file")


def _full_values(graph: Graph, constant: UnitConstant, stub: Stub) -> Array:
    read = graph.tensors[constant.name].read
    assert read is not None  # noqa: S101 - narrows the type: it is a constant
    axis = constant.unit_axis.axis
    values = np.moveaxis(read(), axis, -1)
    others = values.shape[:-1]
    for weight in stub.weights.values():
        known = stub_values((*weight.shape[:-1], STUB_UNITS))
        if known.size == values.size and np.array_equal(known.ravel(), values.ravel()):
            return np.moveaxis(weight.reshape(*others, stub.units), -1, axis)
    if not values.any():  # a bias that the converter has added
        zeros = np.broadcast_to(np.zeros((), values.dtype), (*others, stub.units))
        return np.moveaxis(zeros, -1, axis)
    raise ConversionError(f"the converter changed the stub's weights in {constant.name!r}")
