"""The neutral, read-only picture of a network that each kind of model draws of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from exporter.graph.operations import Operation

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]  # None: not known before the model runs (the batch, mostly)


class Use(NamedTuple):
    """One input of one node."""

    node: str
    slot: int


@dataclass(frozen=True, eq=False)
class Quantization:
    """What the codes of an integer tensor stand for: (code - zero point) * scale.

    Attributes:
        scale: one entry, or one for each position on `axis`.
        zero_point: likewise.
        low, high: the codes that there are.
    """

    scale: Array
    zero_point: Array
    low: int
    high: int
    axis: int = 0

    def dequantize(self, codes: Array) -> Array:
        """The values that codes stand for, in float64."""
        scale, zero_point = self.broadcast(codes.shape)
        return np.asarray((np.asarray(codes, np.float64) - zero_point) * scale)

    def nearest(self, values: Array) -> Array:
        """The nearest values that have codes."""
        return self.dequantize(self.quantize(values))

    def quantize(self, values: Array) -> Array:
        """The codes of the nearest values that have some, in float64."""
        scale, zero_point = self.broadcast(values.shape)
        return np.asarray(np.clip(np.rint(values / scale + zero_point), self.low, self.high))

    def broadcast(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Scale and zero point in float64, each so that it broadcasts to a tensor of this shape."""
        rank = len(shape)
        return self._along(self.scale, rank), self._along(self.zero_point, rank)

    def _along(self, numbers: Array, rank: int) -> Array:
        wide = np.asarray(numbers, np.float64).ravel()
        return wide.reshape([-1, *[1] * (rank - self.axis - 1)]) if wide.size > 1 else wide.sum()


_PACKED_BITS = {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4e2m1fn": 4}  # in files


@dataclass(frozen=True)
class Tensor:
    """A value in the graph: computed, fed, or constant.

    Attributes:
        name: unique within the graph.
        shape: None where even the rank is unknown.
        dtype: NumPy's name, such as "float32"; "string" and others as the file calls them.
        read: constants only; gives the values in the file's own layout. Nothing is copied before.
        quantization: what its codes stand for; None where the values are real.
    """

    name: str
    shape: Shape | None
    dtype: str
    read: Callable[[], Array] | None = field(default=None, repr=False, compare=False)
    quantization: Quantization | None = field(default=None, repr=False, compare=False)

    def dequantize(self, values: Array) -> Array:
        """What a runtime gave for the tensor, as real values in float64."""
        if self.quantization is None:
            return np.asarray(values, np.float64)
        return self.quantization.dequantize(values)

    @property
    def is_constant(self) -> bool:
        return self.read is not None

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the values; None where shape or dtype do not tell."""
        if self.shape is None or any(n is None for n in self.shape):
            return None
        count = int(np.prod([n for n in self.shape if n is not None], dtype=np.int64))
        if self.dtype in _PACKED_BITS:
            return -(-count * _PACKED_BITS[self.dtype] // 8)
        try:
            return count * np.dtype(self.dtype).itemsize
        except TypeError:
            return None


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: unique within the graph; it is what messages and edits call the node.
        operator: what the file calls the operation, such as "Gemm" or "FULLY_CONNECTED".
        inputs: tensor names; "" where an optional input is absent.
    """

    name: str
    operator: str
    operation: Operation
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.operator} {self.name!r}"


@dataclass(frozen=True)
class Graph:
    """A network: nodes in an order in which they can run.

    Attributes:
        labels: output name -> one label a unit, where the file carries them.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def producers(self) -> Mapping[str, tuple[Node, int]]:
        """Tensor name -> the node that computes it, and which of its outputs it is."""
        return {name: (node, i) for node in self.nodes for i, name in enumerate(node.outputs)}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[tuple[Node, int], ...]]:
        """Tensor name -> every node that reads it, and at which slot."""
        found: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for slot, name in enumerate(node.inputs):
                found.setdefault(name, []).append((node, slot))
        return {name: tuple(users) for name, users in found.items() if name}

    def shape(self, tensor: str) -> Shape:
        """The shape of a tensor; () where its rank is unknown (nothing can be labeled on it)."""
        return self.tensors[tensor].shape or ()
