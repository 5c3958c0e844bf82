"""A head that is narrowed to a stub for a converter, and the weights that it gets back later."""

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
from exporter.trace.head import Head, UnitAxis


@dataclass(frozen=True, eq=False)
class Stub:
    """A model whose head has few units, and what the head has in truth.

    Attributes:
        model: has STUB_UNITS units, whose weights are `stub_values`.
        units: of the head.
        weights: constant of the stub -> the whole values; the units are the last axis.
    """

    model: KerasModel
    units: int
    weights: Mapping[str, Array]

    @property
    def size_bytes(self) -> int:
        return sum(values.nbytes for values in self.weights.values())

    def told(self) -> str:
        """For the report."""
        size = f"{self.size_bytes / 1e6:.0f} MB"
        return f"a stub of {STUB_UNITS} units, the head of {self.units} ({size}) grafted"

    @property
    def head(self) -> Head:
        return head_with(self.model.graph(), set(self.weights))


def stub_of(whole: KerasModel, bound_bytes: int) -> Stub | None:
    """Narrow the largest head of a model that is of at least this size.

    Returns:
        None where no head is so large, or it is more than one product and its bias.
    """
    graph = whole.graph()
    sizes = {name: _size(tensor) for name, tensor in graph.tensors.items() if tensor.is_constant}
    if max(sizes.values(), default=0) < bound_bytes:
        return None
    for head in trace(graph).heads:
        large = any(sizes[constant.name] >= bound_bytes for constant in head.constants)
        if large and _is_plain(graph, head):
            return _narrowed(whole, head)
    return None


def _size(tensor: Tensor) -> int:
    known = tensor.dtype == "float32"
    lengths = [n or 0 for n in tensor.shape or ()]
    return int(np.prod(lengths, dtype=np.int64)) * _FLOAT_BYTES if known else 0


_FLOAT_BYTES = 4


def _narrowed(whole: KerasModel, head: Head) -> Stub:
    graph = whole.graph()
    edits: list[Edit] = list(MODES["slice"].edits(head, range(STUB_UNITS)))
    weights: dict[str, Array] = {}
    for constant in head.constants:
        read = graph.tensors[constant.name].read
        assert read is not None  # noqa: S101 - narrows the type: it is a constant
        weights[constant.name] = np.moveaxis(read(), constant.unit_axis.axis, -1)
        values = stub_values((*weights[constant.name].shape[:-1], STUB_UNITS))
        values = np.moveaxis(values, -1, constant.unit_axis.axis)
        edits.append(Replace(constant.name, values, constant.uses))
    return Stub(whole.apply(Plan(tuple(edits))), head.units, weights)


def _is_plain(graph: Graph, head: Head) -> bool:
    """One product, in float32, and its bias; each unit has one place, in order."""
    products = [node for node in head.body if isinstance(node.operation, Linear)]
    return (
        len(products) == 1
        and {c.name for c in head.constants} <= set(products[0].inputs)
        and all(graph.tensors[c.name].dtype == "float32" for c in head.constants)
        and has_plain_axes(head)
        and head.units > STUB_UNITS
    )


def head_with(graph: Graph, constants: set[str]) -> Head:
    """The head of a stub that these constants make, and nothing else (ModelError if none)."""
    for head in trace(graph).heads:
        if {c.name for c in head.constants} == constants and has_plain_axes(head):
            return head
    raise ModelError("the head of the stub is made of more than one product and its bias")


def has_plain_axes(head: Head) -> bool:
    """Has each unit one place wherever it stands, in order, and does nothing rank them?"""
    labels = [*(t.unit_axis for t in head.tensors), *(c.unit_axis for c in head.constants)]
    return not (head.junctions or head.readers.rankings) and all(
        np.array_equal(each.units, np.arange(head.units)) for each in labels
    )


def widened(head: Head, units: int) -> Head:
    """The labels of a stub's head as they are with all units; it still counts as narrow."""
    whole = np.arange(units)
    return replace(
        head,
        tensors=tuple(
            replace(t, unit_axis=UnitAxis(t.unit_axis.axis, whole)) for t in head.tensors
        ),
        constants=tuple(
            replace(c, unit_axis=UnitAxis(c.unit_axis.axis, whole)) for c in head.constants
        ),
    )


def widening(head: Head, units: int) -> tuple[Edit, ...]:
    """What changes in a stub, besides its weights, when it gets all its units back.

    It is what a cut would change that leaves so many.
    """
    edits = MODES["slice"].edits(widened(head, units), range(units))
    return tuple(edit for edit in edits if not isinstance(edit, Take))
