"""Inspect a model: its inputs, its heads and their shares of it, and its refused outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from exporter.formats import size_bytes
from exporter.formats.model import Model, unit_labels
from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Linear, Opaque
from exporter.jobs.options import Job
from exporter.trace import trace
from exporter.trace.head import AxisPart, Head
from exporter.trace.refusals import Refusal

SCHEMA = "exporter/inspect/1"


@dataclass(frozen=True, eq=False)
class HeadFacts:
    """One head, and its share of the model.

    Attributes:
        bytes: of the constants that are cut with the head.
        share_of_bytes: of the model file; None if its size is not known.
        multiply_adds: of the linear operations of the head for one sample; None if a shape is not
            known.
        share_of_multiply_adds: of the model; None if the count of any operation is not known.
    """

    head: Head
    dtype: str
    bytes: int
    share_of_bytes: float | None
    multiply_adds: int | None
    share_of_multiply_adds: float | None

    def to_dict(self) -> dict[str, Any]:
        """One entry of `heads` in the `exporter/inspect/1` record."""
        head = self.head
        parts = head.axis_parts or (AxisPart("classes", 0, head.units),)
        shares = {key: value for key, value in vars(self).items() if key not in {"head", "dtype"}}
        return {
            "name": head.name,
            "output": head.output,
            "axis": head.axis,
            "units": head.units,
            "parts": [[part.start, part.stop] for part in parts],
            "part_names": [part.name for part in parts],
            "activation": head.activation,
            "dtype": self.dtype,
            "labels": head.labels and list(head.labels),
            **shares,
        }


@dataclass(frozen=True, eq=False)
class Inspection:
    """The heads of a model, in the order of its outputs.

    Attributes:
        size_bytes: of the file; None for a live model.
        refused: outputs without a head that can be cut, with reasons.
        masks: names of the heads that are not cut unless the user names them.
    """

    model: Model
    size_bytes: int | None
    heads: tuple[HeadFacts, ...]
    refused: tuple[Refusal, ...]
    masks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The `exporter/inspect/1` record."""
        graph = self.model.graph()
        return {
            "schema": SCHEMA,
            "ok": True,
            "model": {
                "name": self.model.name,
                "kind": self.model.kind,
                "precision": self.model.precision,
                "bytes": self.size_bytes,
                "sha256": self.model.sha256,
            },
            "inputs": [_describe_input(graph.tensors[name]) for name in graph.inputs],
            "heads": [facts.to_dict() for facts in self.heads],
            "refused": [asdict(refusal) for refusal in self.refused],
        }


def _describe_input(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"name": tensor.name, "shape": shape, "dtype": tensor.dtype}


def inspect_file(source: str | Path | Any, job: Job) -> Inspection:
    """Open a model and inspect it (see `inspect_model`)."""
    with job.open(source) as opened:
        return inspect_model(opened.model, size_bytes(opened.path) if opened.path else None)


def inspect_model(model: Model, size: int | None = None) -> Inspection:
    """Find the heads of a model without running it.

    Args:
        size: of its file, in bytes.
    """
    graph = model.graph()
    found = trace(graph)
    total = _sum(multiply_adds(graph, node) for node in graph.nodes)
    heads = [replace(head, labels=unit_labels(model, head)) for head in found.heads]
    facts = tuple(_facts(graph, head, size, total) for head in heads)
    return Inspection(model, size, facts, found.refusals, found.masks)


def _facts(graph: Graph, head: Head, size: int | None, total: int | None) -> HeadFacts:
    cut_bytes = sum(graph.tensors[c.name].size_bytes or 0 for c in head.constants)
    work = _sum(multiply_adds(graph, node) for node in head.body)
    return HeadFacts(
        head=head,
        dtype=graph.tensors[head.output].dtype,
        bytes=cut_bytes,
        share_of_bytes=cut_bytes / size if size else None,
        multiply_adds=work,
        share_of_multiply_adds=work / total if work is not None and total else None,
    )


def multiply_adds(graph: Graph, node: Node) -> int | None:
    """The multiply-adds of one node for one sample.

    A linear operation uses each value of its kernel once at each position of its output. Other
    operations count as 0. None if a shape is not known, or if an unknown operation has a matrix.
    """
    operation = node.operation
    if isinstance(operation, Opaque):
        matrices = any(_is_matrix(graph, name) for name in node.inputs if name)
        return None if matrices else 0
    if not isinstance(operation, Linear):
        return 0
    kernel = graph.shape(node.inputs[operation.kernel])
    if operation.packed_bits is not None:  # the shape is of packed values: (units, inputs) is used
        kernel = (kernel[operation.kernel_axis], *graph.shape(node.inputs[0])[-1:])
    output = graph.shape(node.outputs[0])
    positions = [n for axis, n in enumerate(output) if axis not in {0, operation.output_axis}]
    sizes = [*kernel, *positions]
    return prod(n for n in sizes if n is not None) if kernel and None not in sizes else None


def _is_matrix(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    return tensor.is_constant and sum(n != 1 for n in tensor.shape or ()) > 1


def _sum(counts: Iterable[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(n for n in known if n is not None)
