"""The neutral graph of a network, which each kind of model translates its file into. Read-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.graph.gathered import Gathered
from exporter.graph.mapped import map_pages
from exporter.graph.normalization import Normalization
from exporter.graph.operations import Operation
from exporter.graph.products import Products

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]  # None: not known before the model runs, mostly the batch


class Use(NamedTuple):
    """One input of one node."""

    node: str
    slot: int


@dataclass(frozen=True, eq=False)
class Quantization:
    """The quantization of an integer tensor: real value = (quantized value - zero point) * scale.

    Attributes:
        scale: one entry, or one for each position on `axis`.
        zero_point: likewise.
        low, high: the range of the quantized values.
    """

    scale: Array
    zero_point: Array
    low: int
    high: int
    axis: int = 0

    def dequantize(self, values: Array) -> Array:
        """The real values of quantized ones, in float64."""
        scale, zero_point = self.broadcast(values.shape)
        return np.asarray((np.asarray(values, np.float64) - zero_point) * scale)

    def nearest(self, values: Array) -> Array:
        """The nearest real values that can be quantized without an error."""
        return self.dequantize(self.quantize(values))

    def quantize(self, values: Array) -> Array:
        """The nearest quantized values, in float64."""
        scale, zero_point = self.broadcast(values.shape)
        return np.asarray(np.clip(np.rint(values / scale + zero_point), self.low, self.high))

    def broadcast(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Scale and zero point in float64, in shapes that broadcast to a tensor of this shape."""
        rank = len(shape)
        return self._along(self.scale, rank), self._along(self.zero_point, rank)

    def _along(self, numbers: Array, rank: int) -> Array:
        wide = np.asarray(numbers, np.float64).ravel()
        return wide.reshape([-1, *[1] * (rank - self.axis - 1)]) if wide.size > 1 else wide.sum()


_BLOCK = 1 << 18  # values: they stay in the processor's cache
_CACHE_LINE = 64  # bytes that the processor reads at once
_SMALL = 16 << 20  # bytes of a constant that is read completely, for the next cuts of the model
_PACKED_BITS = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4e2m1fn": 4}  # in files


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph: computed, an input, or constant.

    Attributes:
        name: unique within the graph.
        shape: None where even the rank is unknown.
        dtype: NumPy's name, such as "float32"; "string" and others as the file calls them.
        read: for a constant, returns its values in the layout of the file.
        quantization: None where the values are real.
        symbols: of an input, the name of each open dimension, if the file states one; "" for the
            others. () if it states none.
    """

    name: str
    shape: Shape | None
    dtype: str
    read: Callable[[], Array] | None = field(default=None, repr=False, compare=False)
    quantization: Quantization | None = field(default=None, repr=False, compare=False)
    symbols: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def dequantize(self, values: Array) -> Array:
        """The real values, in float64, of those that a runtime returned for the tensor."""
        if self.quantization is None:
            return np.asarray(values, np.float64)
        return self.quantization.dequantize(values)

    @property
    def is_constant(self) -> bool:
        return self.read is not None

    def nonfinite(self, axis: int, positions: Array) -> int:
        """How many values of a constant, at some positions of an axis, are NaN or infinite.

        Values are read in blocks, and not again once they are known to be finite.

        Args:
            axis: from 0 on; it exists.
            positions: (positions,) int64, from 0 on.
        """
        if self.read is None or not self.dtype.startswith(("float", "bfloat")):
            return 0
        if axis in self._finite and self._finite[axis][positions].all():
            return 0
        values = np.ascontiguousarray(self.read())
        length, row = values.shape[axis], prod(values.shape[axis + 1 :]) * values.itemsize
        finite = self._finite.setdefault(axis, np.zeros(length, bool))
        unread = positions[~finite[positions]]
        reads_all_lines = row < _CACHE_LINE and len(unread) * _CACHE_LINE > length * row
        if reads_all_lines or values.nbytes <= _SMALL:
            flat = values.reshape(-1)
            starts = range(0, len(flat), _BLOCK)
            finite[:] = not _count_nonfinite(flat[i : i + _BLOCK] for i in starts)
            unread = positions[~finite[positions]]
        if not len(unread):
            return 0
        blocks = Gathered(values, axis, unread).blocks()
        found = _count_nonfinite(block.view(values.dtype) for block in blocks)
        finite[unread] = not found
        return found

    @cached_property
    def _finite(self) -> dict[int, Array]:
        """The positions of an axis at which all values are known to be finite: (length,) bool."""
        return {}

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the values; None where the shape or the size of the dtype is unknown."""
        if self.shape is None or any(n is None for n in self.shape):
            return None
        count = int(np.prod([n for n in self.shape if n is not None], dtype=np.int64))
        if self.dtype in _PACKED_BITS:
            return -(-count * _PACKED_BITS[self.dtype] // 8)
        try:
            return count * np.dtype(self.dtype).itemsize
        except TypeError:
            return None


def _count_nonfinite(blocks: Iterable[Array]) -> int:
    found = 0
    for block in blocks:
        map_pages(block)
        with np.errstate(invalid="ignore", over="ignore"):  # a signaling NaN
            if not np.isfinite(block.sum()):  # or the sum is too large
                found += block.size - int(np.isfinite(block).sum())
    return found


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: unique within the graph; messages and edits use it.
        operator: name of the operation in the file, such as "Gemm" or "FULLY_CONNECTED".
        inputs: tensor names; "" where an optional input is absent.
        products: the products that it computes, if its operation does not define them; None if they
            are not known. `graph.multiply_adds` counts them.
    """

    name: str
    operator: str
    operation: Operation
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    products: Products = field(default_factory=tuple)

    def __str__(self) -> str:
        return f"{self.operator} {self.name!r}"

    @classmethod
    def translated_later(
        cls,
        name: str,
        operator: str,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        translate: Callable[[], tuple[Operation, Products]],
    ) -> Node:
        """A node whose operation and products are translated when they are first read.

        A trace reads few nodes of a large file.
        """
        node = cls.__new__(cls)
        node.__dict__.update(
            name=name, operator=operator, inputs=inputs, outputs=outputs, translate=translate
        )
        return node

    if not TYPE_CHECKING:  # for type checkers, a node has its fields only

        def __getattr__(self, name: str) -> object:
            if name not in {"operation", "products"} or "translate" not in self.__dict__:
                raise AttributeError(name)
            operation, products = self.__dict__["translate"]()
            del self.__dict__["translate"]
            self.__dict__.update(operation=operation, products=products)
            return self.__dict__[name]


@dataclass(frozen=True)
class Graph:
    """A network: nodes in an order in which they can run.

    Attributes:
        labels: output name -> one label for each unit, if the file contains them.
        normalization: input name -> how image pixels become its values, if the file states it.
        sample_rates: input name -> samples of sound per second, if the file states it.
        other_entries: further signatures of the file, with computations of their own that the
            graph does not contain.
        hidden: tensors in branches of the model, which cannot become outputs.
        varying: tensors with a shape that may differ from sample to sample, such as the boxes above
            a threshold. The graph has their shapes in one run.
        open_axes: tensor -> its axes with the length of one run, which the lengths of the inputs
            may decide.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    normalization: Mapping[str, Normalization] = field(default_factory=dict)
    sample_rates: Mapping[str, int] = field(default_factory=dict)
    other_entries: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    varying: frozenset[str] = frozenset()
    open_axes: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @cached_property
    def producers(self) -> Mapping[str, tuple[Node, int]]:
        """Tensor name -> the node that computes it, and the slot of the output."""
        return {name: (node, i) for node in self.nodes for i, name in enumerate(node.outputs)}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[tuple[Node, int], ...]]:
        """Tensor name -> every node that reads it, and the slot of the input."""
        found: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for slot, name in enumerate(node.inputs):
                found.setdefault(name, []).append((node, slot))
        return {name: tuple(users) for name, users in found.items() if name}

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Name of a node -> its index in `nodes`."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """What was computed from the graph alone, such as its heads: it is computed once."""
        return {}

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor; () where its rank is unknown, so that it has no unit axis."""
        return self.tensors[tensor].shape or ()
