"""Shapes that a file computes: which numbers are constants, and where those constants stand.

Exporters write a reshape's target as Shape -> Gather -> Concat chains that copy the batch and hold
the other lengths as constants. Such a chain is followed backwards, entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from onnx import NodeProto, numpy_helper

from exporter.formats.onnx.protos import captured
from exporter.graph import Shape, Tensor
from exporter.graph.operations import ShapeSource

_STEPS = 4  # slot of a Slice's steps
_SIZES = 3  # slot of a Resize's sizes
RUNNING = -2  # stands in a target for a length that is computed while the model runs


class Length(NamedTuple):
    """One entry of a vector of lengths; without an origin it is computed while the model runs."""

    value: int = RUNNING
    origin: ShapeSource | None = None


Entries = tuple[Length, ...]


class Lengths:
    """The vectors of lengths of one graph.

    Args:
        nodes: the file's nodes by their neutral names.
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
        self._makers = {made: name for name, node in nodes.items() for made in node.output if made}
        self._readers: dict[str, list[str]] = {name: [""] for name in outputs}
        for name, node in nodes.items():
            for read in node.input:
                self._readers.setdefault(read, []).append(name)
            for read in captured(node):
                self._readers.setdefault(read, []).append("")

    def at(self, node: str, slot: int) -> Entries | None:
        """The entries of an input of a node; None where not even their number is known."""
        inputs = self.nodes[node].input
        name = inputs[slot] if slot < len(inputs) else ""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor.read is not None:
            values = tuple(int(n) for n in tensor.read().ravel())
            single = tensor.shape == ()
            return tuple(
                Length(value, ShapeSource(node, slot, values, None if single else entry))
                for entry, value in enumerate(values)
            )
        maker = self._makers.get(name)
        step = STEPS.get(self.nodes[maker].op_type) if maker is not None else None
        found = step(self, maker) if step is not None and maker is not None else None
        return found if found is not None else _running(tensor.shape)

    def axes_read(self, node: str, rank: int) -> tuple[int, ...]:
        """The axes whose lengths anything reads that a Shape or a Size makes."""
        proto = self.nodes[node]
        stated = slice(_integer(proto, "start", 0), _integer(proto, "end", rank))
        axes = range(rank)[stated]
        if proto.op_type == "Size":
            return tuple(axes)
        return tuple(sorted(self._read(proto.output[0], tuple(axes), proto.input[0])))

    def _read(self, tensor: str, axes: tuple[int, ...], measured: str) -> set[int]:
        """Which of the axes, whose lengths stand in this vector, anything computes with.

        A resize that is told the length which its own input has there computes with nothing.
        """
        read = set[int]()
        for reader in self._readers.get(tensor, ()):
            node = self.nodes.get(reader)
            if node is None:
                read.update(axes)
            elif node.op_type in {"Cast", "Identity"}:
                read |= self._read(node.output[0], axes, measured)
            elif (chosen := self.chosen(reader, len(axes))) is not None:
                read |= self._read(node.output[0], tuple(axes[i] for i in chosen), measured)
            elif not self._restated(node, tensor, axes, measured):
                read.update(axes)
        return read

    def _restated(self, node: NodeProto, tensor: str, axes: tuple[int, ...], measured: str) -> bool:
        if node.op_type != "Concat" or list(node.input).count(tensor) > 1:
            return False
        before = [
            _count(self._tensors.get(n)) for n in node.input[: list(node.input).index(tensor)]
        ]
        if None in before:
            return False
        start = sum(n for n in before if n is not None)
        in_place = axes == tuple(range(start, start + len(axes)))
        return in_place and all(
            (each := self.nodes.get(name)) is not None
            and each.op_type == "Resize"
            and not any(a.name == "axes" for a in each.attribute)
            and each.input[0] == measured
            and list(each.input).index(node.output[0]) == _SIZES
            for name in self._readers.get(node.output[0], ())
        )

    def chosen(self, reader: str, count: int) -> list[int] | None:
        """Which entries of a vector a Gather or a Slice takes; None where that is not constant."""
        node = self.nodes[reader]
        if node.op_type == "Gather":
            indices = self._constant(reader, 1)
            return None if indices is None else [i % count for i in indices if -count <= i < count]
        return self._range(reader, count) if node.op_type == "Slice" else None

    def opened(self, node: str) -> bool:
        """Does a Where put ones in place of some of the numbers of its last input?"""
        told, ones, numbers = self.nodes[node].input
        test, made = (self.nodes.get(self._makers.get(name, "")) for name in (told, ones))
        if test is None or made is None or test.op_type != "Equal" or numbers not in test.input:
            return False
        values = [numpy_helper.to_array(a.t) for a in made.attribute if a.name == "value"]
        return made.op_type == "ConstantOfShape" and [v.tolist() for v in values] == [[1]]

    def _range(self, reader: str, count: int) -> list[int] | None:
        node = self.nodes[reader]
        step: tuple[int, ...] | None = (1,)
        if len(node.input) == 1:  # before opset 10
            stated = {a.name: tuple(a.ints) for a in node.attribute}
            start, stop = stated.get("starts"), stated.get("ends")
        else:
            start, stop = self._constant(reader, 1), self._constant(reader, 2)
            if len(node.input) > _STEPS and node.input[_STEPS]:
                step = self._constant(reader, _STEPS)
        if not (start and stop and step and step[0]):
            return None
        return list(range(count)[slice(start[0], stop[0], step[0])])

    def _constant(self, node: str, slot: int) -> tuple[int, ...] | None:
        entries = self.at(node, slot)
        if entries is None or any(entry.origin is None for entry in entries):
            return None
        return tuple(entry.value for entry in entries)


def _running(shape: Shape | None) -> Entries | None:
    """As many entries as a vector of this shape has, or one for a single number."""
    if shape is None or len(shape) > 1 or None in shape:
        return None
    return (Length(),) * (shape[0] or 0 if shape else 1)


def _count(tensor: Tensor | None) -> int | None:
    """Of the entries of a vector."""
    shape = None if tensor is None else tensor.shape
    return shape[0] if shape is not None and len(shape) == 1 else None


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _same(lengths: Lengths, node: str) -> Entries | None:
    return lengths.at(node, 0)


def _taken(lengths: Lengths, node: str) -> Entries | None:
    source = lengths.at(node, 0)
    chosen = None if source is None else lengths.chosen(node, len(source))
    return None if source is None or chosen is None else tuple(source[i] for i in chosen)


def _joined(lengths: Lengths, node: str) -> Entries | None:
    result: list[Length] = []
    for slot in range(len(lengths.nodes[node].input)):
        part = lengths.at(node, slot)
        if part is None:
            return None
        result += part
    return tuple(result)


def _unless_open(lengths: Lengths, node: str) -> Entries | None:
    """Where(lengths == -1, 1, lengths): PyTorch writes -1 for an axis that stays as it is."""
    if not lengths.opened(node):
        return None
    entries = lengths.at(node, 2)
    return entries and tuple(Length(1) if each.value == -1 else each for each in entries)


def target_of(entries: Sequence[Length]) -> tuple[int, ...]:
    """The entries as a reshape's target; RUNNING where nothing in the file states one."""
    return tuple(entry.value for entry in entries)


STEPS: Mapping[str, Callable[[Lengths, str], Entries | None]] = {
    "Cast": _same,
    "Concat": _joined,
    "Gather": _taken,
    "Identity": _same,
    "Reshape": _same,
    "Slice": _taken,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Where": _unless_open,
}
