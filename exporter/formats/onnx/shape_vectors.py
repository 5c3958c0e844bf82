"""Find the constants in shapes that an ONNX graph computes, and where the file stores them.

Exporters write the target of a Reshape as a chain Shape -> Gather -> Concat. It copies the batch
size, and other lengths are constants. This module follows the chain backward, entry by entry.
A *shape vector* is a tensor whose entries are lengths of axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from onnx import NodeProto, numpy_helper

from exporter.formats.onnx.protos import captured_names
from exporter.graph import Shape, Tensor
from exporter.graph.operations import ShapeSource

_STEPS = 4  # slot of a Slice's steps
_SIZES = 3  # slot of a Resize's sizes
RUN_TIME = -2  # the length of an entry that is computed at run time


class ShapeEntry(NamedTuple):
    """One entry of a shape vector; its origin is None if it is computed at run time."""

    value: int = RUN_TIME
    origin: ShapeSource | None = None


ShapeEntries = tuple[ShapeEntry, ...]


class ShapeVectors:
    """The shape vectors of one graph.

    Args:
        nodes: name in the neutral graph -> the node in the file.
        tensors: every tensor of the graph.
        outputs: names of the graph's outputs.
    """

    def __init__(
        self,
        nodes: Mapping[str, NodeProto],
        tensors: Mapping[str, Tensor],
        outputs: Iterable[str] = (),
    ) -> None:
        self.nodes = nodes
        self._tensors = tensors
        self._producers = {
            output: name for name, node in nodes.items() for output in node.output if output
        }
        # Tensor -> its consumers; "" if it is an output of the graph, or a subgraph reads it.
        self._consumers: dict[str, list[str]] = {name: [""] for name in outputs}
        for name, node in nodes.items():
            for tensor in node.input:
                self._consumers.setdefault(tensor, []).append(name)
            for tensor in captured_names(node):
                self._consumers.setdefault(tensor, []).append("")

    def entries(self, node: str, slot: int) -> ShapeEntries | None:
        """The entries of the shape vector that a node reads; None if their number is unknown."""
        inputs = self.nodes[node].input
        name = inputs[slot] if slot < len(inputs) else ""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor.read is not None:
            values = tuple(int(n) for n in tensor.read().ravel())
            is_scalar = tensor.shape == ()
            return tuple(
                ShapeEntry(value, ShapeSource(node, slot, values, None if is_scalar else entry))
                for entry, value in enumerate(values)
            )
        producer = self._producers.get(name)
        if producer is not None:
            follow = FOLLOWED.get(self.nodes[producer].op_type, _not_followed)
            found = follow(self, producer)
            if found is not None:
                return found
        return _computed_entries(tensor.shape)

    def axes_read(self, node: str) -> tuple[int, ...]:
        """The axes whose lengths a Shape or a Size passes to nodes that compute with them."""
        proto = self.nodes[node]
        rank = len(self._tensors[proto.input[0]].shape or ())
        axes = range(rank)[_integer(proto, "start", 0) : _integer(proto, "end", rank)]
        if proto.op_type == "Size":
            return tuple(axes)
        return tuple(sorted(self._axes_read_from(proto.output[0], tuple(axes), proto.input[0])))

    def _axes_read_from(self, vector: str, axes: tuple[int, ...], measured: str) -> set[int]:
        """The axes of the tensor `measured` whose lengths, in a vector, a node computes with.

        A Resize that keeps the length of its own input does not count.
        """
        found = set[int]()
        for consumer in self._consumers.get(vector, ()):
            node = self.nodes.get(consumer)
            if node is None:
                found.update(axes)
            elif node.op_type in {"Cast", "Identity"}:
                found |= self._axes_read_from(node.output[0], axes, measured)
            elif (taken := self.positions_taken(consumer, len(axes))) is not None:
                found |= self._axes_read_from(
                    node.output[0], tuple(axes[i] for i in taken), measured
                )
            elif not self._keeps_lengths(node, vector, axes, measured):
                found.update(axes)
        return found

    def _keeps_lengths(
        self, concat: NodeProto, vector: str, axes: tuple[int, ...], measured: str
    ) -> bool:
        """Do all consumers of a Concat resize `measured`, and keep the lengths of these axes?"""
        if concat.op_type != "Concat" or list(concat.input).count(vector) > 1:
            return False
        parts = [self._tensors.get(n) for n in concat.input[: list(concat.input).index(vector)]]
        counts = [_vector_length(part) for part in parts]
        start = sum(count or 0 for count in counts)
        if None in counts or axes != tuple(range(start, start + len(axes))):
            return False
        return all(
            (node := self.nodes.get(consumer)) is not None
            and node.op_type == "Resize"
            and not any(a.name == "axes" for a in node.attribute)
            and node.input[0] == measured
            and list(node.input).index(concat.output[0]) == _SIZES
            for consumer in self._consumers.get(concat.output[0], ())
        )

    def positions_taken(self, name: str, count: int) -> list[int] | None:
        """The positions that a Gather or a Slice takes from a vector; None if not constant."""
        node = self.nodes[name]
        if node.op_type == "Gather":
            indices = self._constant(name, 1)
            return None if indices is None else [i % count for i in indices if -count <= i < count]
        return self._slice_range(name, count) if node.op_type == "Slice" else None

    def replaces_minus_one(self, where: str) -> bool:
        """Is a Where of the form Where(lengths == x, 1, lengths), for any x?"""
        condition, ones, lengths = self.nodes[where].input
        names = (self._producers.get(name, "") for name in (condition, ones))
        equal, constant = map(self.nodes.get, names)
        if equal is None or constant is None or equal.op_type != "Equal":
            return False
        if lengths not in equal.input:
            return False
        values = [numpy_helper.to_array(a.t) for a in constant.attribute if a.name == "value"]
        return constant.op_type == "ConstantOfShape" and [v.tolist() for v in values] == [[1]]

    def _slice_range(self, name: str, count: int) -> list[int] | None:
        node = self.nodes[name]
        step: tuple[int, ...] | None = (1,)
        if len(node.input) == 1:  # before opset 10
            attributes = {a.name: tuple(a.ints) for a in node.attribute}
            start, stop = attributes.get("starts"), attributes.get("ends")
        else:
            start, stop = self._constant(name, 1), self._constant(name, 2)
            if len(node.input) > _STEPS and node.input[_STEPS]:
                step = self._constant(name, _STEPS)
        if not (start and stop and step and step[0]):
            return None
        return list(range(count)[slice(start[0], stop[0], step[0])])

    def _constant(self, node: str, slot: int) -> tuple[int, ...] | None:
        entries = self.entries(node, slot)
        if entries is None or any(entry.origin is None for entry in entries):
            return None
        return target_of(entries)


def target_of(entries: Sequence[ShapeEntry]) -> tuple[int, ...]:
    """The entries as the target of a Reshape; RUN_TIME for entries that are not constants."""
    return tuple(entry.value for entry in entries)


def _computed_entries(shape: Shape | None) -> ShapeEntries | None:
    """One entry without an origin for each element of a vector or a scalar of this shape."""
    if shape is None or len(shape) > 1 or None in shape:
        return None
    return (ShapeEntry(),) * (shape[0] or 0 if shape else 1)


def _vector_length(tensor: Tensor | None) -> int | None:
    shape = None if tensor is None else tensor.shape
    return shape[0] if shape is not None and len(shape) == 1 else None


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _not_followed(_vectors: ShapeVectors, _node: str) -> None:
    return None


def _unchanged(vectors: ShapeVectors, node: str) -> ShapeEntries | None:
    return vectors.entries(node, 0)


def _taken(vectors: ShapeVectors, node: str) -> ShapeEntries | None:
    source = vectors.entries(node, 0)
    positions = None if source is None else vectors.positions_taken(node, len(source))
    return None if source is None or positions is None else tuple(source[i] for i in positions)


def _concatenated(vectors: ShapeVectors, node: str) -> ShapeEntries | None:
    parts = [vectors.entries(node, slot) for slot in range(len(vectors.nodes[node].input))]
    if None in parts:
        return None
    return tuple(entry for part in parts for entry in part or ())


def _minus_one_replaced(vectors: ShapeVectors, node: str) -> ShapeEntries | None:
    """Where(lengths == -1, 1, lengths): PyTorch writes -1 for an axis that keeps its length."""
    if not vectors.replaces_minus_one(node):
        return None
    entries = vectors.entries(node, 2)
    return entries and tuple(ShapeEntry(1) if each.value == -1 else each for each in entries)


# Operator -> the function that follows it backward.
FOLLOWED: Mapping[str, Callable[[ShapeVectors, str], ShapeEntries | None]] = {
    "Cast": _unchanged,
    "Concat": _concatenated,
    "Gather": _taken,
    "Identity": _unchanged,
    "Reshape": _unchanged,
    "Slice": _taken,
    "Squeeze": _unchanged,
    "Unsqueeze": _unchanged,
    "Where": _minus_one_replaced,
}
