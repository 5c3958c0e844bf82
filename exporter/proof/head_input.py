"""Find the tensor that a head reads, in the original and in the cut file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.formats.structure import HasStructure
from exporter.graph import Graph
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
_AFFINE = {"add", "add_n", "batch_normalization", "cast", "dequantize", "div", "identity", "mul"}
_AFFINE |= {"quantize", "sub", "sum"}  # the result of a probe tells if values are quantized


class NotOpenError(Exception):
    """The head cannot be fed directly; the message says why."""


def input_of(graph: Graph, heads: Sequence[Head]) -> str:
    """The only computed tensor that the operations of these heads read from outside.

    Raises:
        NotOpenError: they read several, or its shape is open, or an operation between it and the
            logits is not linear.
    """
    found = list(dict.fromkeys(name for head in heads for name in _read(graph, head)))
    if len(found) != 1:
        raise NotOpenError(f"the head reads {len(found)} tensors: {', '.join(found[:4])}")
    shape = graph.shape(found[0])
    if not shape or None in shape[1:]:
        raise NotOpenError(f"the shape of {found[0]!r}, which the head reads, is open")
    for head in heads:
        for node in head.body:
            operation = node.operation
            is_affine = isinstance(operation, Elementwise) and operation.function in _AFFINE
            is_linear = isinstance(operation, Linear) and not operation.altered
            if not (is_affine or is_linear or isinstance(operation, _MOVES)):
                raise NotOpenError(f"{node}, which is not linear, is before the logits")
    return found[0]


def _read(graph: Graph, head: Head) -> Iterator[str]:
    """The tensors outside of the head that it reads."""
    inside = {name for node in (*head.body, *head.tail) for name in node.outputs}
    inside |= _fixed(graph)
    for node in (*head.body, *head.tail):
        for name in node.inputs:
            if name and name not in inside and not graph.tensors[name].is_constant:
                yield name


def _fixed(graph: Graph) -> set[str]:
    """The tensors that are computed from constants alone."""
    found: set[str] = set()
    for node in graph.nodes:
        given = [name for name in node.inputs if name]
        if given and all(graph.tensors[name].is_constant or name in found for name in given):
            found.update(node.outputs)
    return found


def in_cut(original: HasStructure, cut: HasStructure, tensor: str) -> str:
    """The tensor of the cut file that equal operations compute from equal inputs.

    It has the name of the original's tensor, unless another tool has renamed it.

    Raises:
        NotOpenError: there is none: the network before the head is not the original's.
    """
    left, right = Digests(original.structure()), Digests(cut.structure())
    wanted = left.tensor(left.structure.key(tensor))
    if right.tensor(right.structure.key(tensor)) == wanted:
        return tensor
    for key, digest in right.of.items():
        if digest == wanted:
            return right.structure.name(key)
    raise NotOpenError(f"no tensor of the file has the values of {tensor!r}, which the head reads")
