"""Find the tensors that a head reads, in the original and in the cut file, and what to feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from exporter.formats.structure import HasStructure
from exporter.graph import Array, Graph, Node
from exporter.graph.operations import (
    Concat,
    Elementwise,
    Expand,
    Gather,
    Linear,
    Reshape,
    Slice,
    Split,
    Transpose,
)
from exporter.proof.digests import Digests
from exporter.trace.head import Head

_MOVES = Reshape | Transpose | Slice | Split | Concat | Gather | Expand
_PRODUCTS = {"div", "mul"}  # linear in one computed factor, not in two
_AFFINE = {"add", "add_n", "batch_normalization", "cast", "dequantize", "identity"} | _PRODUCTS
_AFFINE |= {"quantize", "sub", "sum"}  # the result of a probe tells if values are quantized


class NotOpenError(Exception):
    """The head cannot be fed directly; the message says why."""


class Source(NamedTuple):
    """A tensor outside of a head that it reads.

    Attributes:
        name: of the tensor.
        is_multiplied: linear operations read it. Zeros are fed in place of the others, such as
            boxes that are joined with the units.
        shape: without the leading dimension.
        batch: the leading dimension; None if it is open.
        channels: its axis of features, without the leading dimension, if one kernel without a
            neighborhood is used at all positions; None if each position has weights of its own.
    """

    name: str
    is_multiplied: bool
    shape: tuple[int, ...]
    batch: int | None
    channels: int | None

    @property
    def features(self) -> int:
        return prod(self.shape)

    @property
    def rows(self) -> int:
        """The number of rows of `vectors`."""
        if not self.is_multiplied:
            return 0
        if self.channels is None:
            return self.features
        count = self.shape[self.channels]
        return -(-count * count // self.features)

    def vectors(self) -> Array:
        """(rows, *shape) that determine a linear map, apart from its result for zeros.

        Each unit vector; or, where all positions share a kernel, a unit vector
        of channels at each position, until each channel was at some position.
        """
        if not self.is_multiplied:
            return np.empty((0, *self.shape))
        if self.channels is None:
            return np.eye(self.features, dtype=np.float32).reshape(-1, *self.shape)
        count = self.shape[self.channels]
        rows, positions = self.rows, self.features // count
        places = np.arange(rows * positions).reshape(rows, positions)
        found = np.eye(count, dtype=np.float32)[places % count]
        spatial = [n for axis, n in enumerate(self.shape) if axis != self.channels]
        return np.moveaxis(found.reshape(rows, *spatial, count), -1, 1 + self.channels)


def inputs_of(graph: Graph, heads: Sequence[Head]) -> list[Source]:
    """The computed tensors that these heads read from outside.

    Raises:
        NotOpenError: a shape is open, or an operation between them and the logits is not linear.
    """
    inside = _fixed(graph)
    inside |= {n for head in heads for node in (*head.body, *head.tail) for n in node.outputs}
    body = dict.fromkeys(node for head in heads for node in head.body)
    tail = dict.fromkeys(node for head in heads for node in head.tail)
    readers: dict[str, list[Node]] = {}
    for node in (*body, *tail):
        if node in body:
            _check_linear(graph, node)
        for slot, name in enumerate(node.inputs):
            if name and name not in inside and not graph.tensors[name].is_constant:
                is_factor = isinstance(node.operation, Linear) and slot == 0
                readers.setdefault(name, []).extend([node] if is_factor else [])
    return [_source(graph, name, nodes) for name, nodes in readers.items()]


def _source(graph: Graph, name: str, readers: Sequence[Node]) -> Source:
    leading, *rest = graph.shape(name) or (None, None)
    shape = tuple(n for n in rest if n is not None)
    if not rest or len(shape) < len(rest):
        raise NotOpenError(f"the shape of {name!r}, which the head reads, is open")
    axes = {_channels(graph, name, node) for node in readers}
    channels = axes.pop() if len(axes) == 1 else None
    return Source(name, bool(readers), shape, leading, channels)


def _channels(graph: Graph, name: str, node: Node) -> int | None:
    """The axis of features of an input whose positions share one kernel; see `Source`."""
    operation = node.operation
    assert isinstance(operation, Linear)  # noqa: S101 - its caller has checked it
    before, after = graph.shape(name), graph.shape(node.outputs[0])
    kernel = graph.shape(node.inputs[operation.kernel])
    axis = operation.output_axis
    is_spatial = len(before) == len(after) > 2  # noqa: PLR2004 - batch and features
    if not is_spatial or operation.groups != 1 or operation.packed_bits is not None:
        return None
    same = all(a == b for i, (a, b) in enumerate(zip(before, after, strict=True)) if i != axis)
    is_point = prod(n or 1 for n in kernel) == (before[axis] or 0) * (after[axis] or 0)
    return axis - 1 if same and is_point and axis else None


def adds_branches(graph: Graph, heads: Sequence[Head]) -> bool:
    """Does an operation of these heads add two computed tensors?"""
    return any(_joins_two(graph, node) for head in heads for node in head.body)


def _joins_two(graph: Graph, node: Node) -> bool:
    if not isinstance(node.operation, Elementwise):
        return False
    fixed = {"", *_fixed(graph)}
    computed = [n for n in node.inputs if n not in fixed and not graph.tensors[n].is_constant]
    return len(computed) > 1


def _check_linear(graph: Graph, node: Node) -> None:
    operation = node.operation
    is_affine = isinstance(operation, Elementwise) and operation.function in _AFFINE
    if isinstance(operation, Elementwise) and operation.function in _PRODUCTS:
        is_affine = not _joins_two(graph, node)
    is_linear = isinstance(operation, Linear) and not operation.altered
    if not (is_affine or is_linear or isinstance(operation, _MOVES)):
        raise NotOpenError(f"{node}, which is not linear, is before the logits")


def _fixed(graph: Graph) -> set[str]:
    """The tensors that are computed from constants alone."""
    found: set[str] = set()
    for node in graph.nodes:
        given = [name for name in node.inputs if name]
        if given and all(graph.tensors[name].is_constant or name in found for name in given):
            found.update(node.outputs)
    return found


def in_cut(original: HasStructure, cut: HasStructure, tensors: Sequence[str]) -> Mapping[str, str]:
    """Each tensor -> the tensor of the cut file that equal operations compute from equal inputs.

    It has the name of the original's tensor, unless another tool has renamed it.

    Raises:
        NotOpenError: there is none: the network before the head is not the original's.
    """
    sides = Digests(original.structure()), Digests(cut.structure())
    return {tensor: _same_in(*sides, tensor) for tensor in tensors}


def _same_in(left: Digests, right: Digests, tensor: str) -> str:
    wanted = left.tensor(left.structure.key(tensor))
    if right.tensor(right.structure.key(tensor)) == wanted:
        return tensor
    for key, digest in right.of.items():
        if digest == wanted:
            return right.structure.name(key)
    raise NotOpenError(f"no tensor of the file has the values of {tensor!r}, which the head reads")
