"""A model whose large head is narrowed to a few units for a converter: a stub.

The original weights of the head are written to the converted file afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from exporter.errors import ModelError
from exporter.formats.keras.large_head_file import STUB_UNITS, stub_values
from exporter.formats.keras.model import KerasModel
from exporter.graph import Array, Graph, Tensor
from exporter.graph.edits import Edit, Plan, Replace, Take
from exporter.graph.operations import Linear
from exporter.modes import MODES
from exporter.trace import trace
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitAxis

_FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class Stub:
    """A narrowed model, and the original weights of its head.

    Attributes:
        model: has STUB_UNITS units, with the weights `stub_values`.
        units: of the original head.
        weights: constant of the stub -> original values; the units are the last axis.
    """

    model: KerasModel
    units: int
    weights: Mapping[str, Array]

    @property
    def size_bytes(self) -> int:
        return sum(values.nbytes for values in self.weights.values())

    def description(self) -> str:
        """One phrase for the report."""
        head = f"the whole head ({self.size_bytes / 1e6:.0f} MB)"
        return f"converted with {STUB_UNITS} of {self.units} units, {head} written afterwards"

    @property
    def head(self) -> Head:
        """The head that the stub's weights make, and nothing else (ModelError if none)."""
        for head in trace(self.model.graph()).heads:
            if {c.name for c in head.constants} == set(self.weights) and has_plain_axes(head):
                return head
        raise ModelError("the head of the stub is made of more than one product and its bias")


def stub_of(original: KerasModel, min_bytes: int) -> Stub | None:
    """Narrow the largest head of a model, if it has a constant of at least this size.

    Returns:
        None if no head is so large, or if it is more than one product and its bias.
    """
    graph = original.graph()
    sizes = {name: _size(tensor) for name, tensor in graph.tensors.items() if tensor.is_constant}
    if max(sizes.values(), default=0) < min_bytes:
        return None
    for head in trace(graph).heads:
        large = any(sizes[constant.name] >= min_bytes for constant in head.constants)
        if large and _can_be_narrowed(graph, head):
            return _narrowed(original, head)
    return None


def _size(tensor: Tensor) -> int:
    """Bytes of a float32 tensor; 0 for other types, which are not narrowed."""
    lengths = [n or 0 for n in tensor.shape or ()]
    return int(np.prod(lengths, dtype=np.int64)) * _FLOAT_BYTES * (tensor.dtype == "float32")


def _narrowed(original: KerasModel, head: Head) -> Stub:
    graph = original.graph()
    edits: list[Edit] = list(MODES["slice"].edits(head, range(STUB_UNITS)))
    weights: dict[str, Array] = {}
    for constant in head.constants:
        read = graph.tensors[constant.name].read
        assert read is not None  # noqa: S101 - narrows the type: it is a constant
        weights[constant.name] = np.moveaxis(read(), constant.unit_axis.axis, -1)
        values = stub_values((*weights[constant.name].shape[:-1], STUB_UNITS))
        values = np.moveaxis(values, -1, constant.unit_axis.axis)
        edits.append(Replace(constant.name, values, constant.uses))
    return Stub(original.apply(Plan(tuple(edits))), head.units, weights)


def _can_be_narrowed(graph: Graph, head: Head) -> bool:
    """Is it one float32 product with its bias, and each unit at one position, in order?"""
    products = [node for node in head.body if isinstance(node.operation, Linear)]
    return (
        len(products) == 1
        and {c.name for c in head.constants} <= set(products[0].inputs)
        and all(graph.tensors[c.name].dtype == "float32" for c in head.constants)
        and has_plain_axes(head)
        and head.units > STUB_UNITS
    )


def has_plain_axes(head: Head) -> bool:
    """Has each unit one position on every unit axis, in order, and are the units not ranked?"""
    axes = [*(t.unit_axis for t in head.tensors), *(c.unit_axis for c in head.constants)]
    return not (head.junctions or head.readers.rankings) and all(
        np.array_equal(axis.units, np.arange(head.units)) for axis in axes
    )


def widening(head: Head, units: int) -> tuple[Edit, ...]:
    """The edits, other than of weights, that give a stub's head its original width.

    They are the edits of a cut that keeps this number of units.
    """

    def wide(axis: UnitAxis) -> UnitAxis:
        return UnitAxis(axis.axis, np.arange(units))

    tensors = tuple(replace(t, unit_axis=wide(t.unit_axis)) for t in head.tensors)
    constants = tuple(replace(c, unit_axis=wide(c.unit_axis)) for c in head.constants)
    edits = MODES["slice"].edits(replace(head, tensors=tensors, constants=constants), range(units))
    return tuple(edit for edit in edits if not isinstance(edit, Take))
