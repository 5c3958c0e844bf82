"""What a model holds: its inputs, its heads and their shares, and what is refused and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from exporter.formats import size_bytes
from exporter.formats.model import Model, unit_labels
from exporter.graph import Graph, Node
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
        bytes: of the constants that are cut with it.
        share_of_bytes: of the model file; None where its size is not known.
        multiply_adds: of its linear operations for one sample; None where a shape is not known.
        share_of_multiply_adds: of the whole model's; None where any operation's cannot be known.
    """

    head: Head
    dtype: str
    bytes: int
    share_of_bytes: float | None
    multiply_adds: int | None
    share_of_multiply_adds: float | None


@dataclass(frozen=True, eq=False)
class Inspection:
    """A model's heads, in the order of its outputs.

    Attributes:
        size_bytes: of the file; None for a live model.
        masks: names of the heads that are left aside where none is named.
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
            "inputs": [_input(graph, name) for name in graph.inputs],
            "heads": [_head(facts) for facts in self.heads],
            "refused": [
                {"output": r.output, "operation": r.operation, "reason": r.reason, "hint": r.hint}
                for r in self.refused
            ],
        }


def inspect_model(model: Model, size_bytes: int | None = None) -> Inspection:
    """Trace a model and weigh its heads; nothing is run.

    Args:
        model: of any kind.
        size_bytes: of its file.
    """
    graph = model.graph()
    found = trace(graph)
    total = _sum(multiply_adds(graph, node) for node in graph.nodes)
    heads = [replace(head, labels=unit_labels(model, head)) for head in found.heads]
    facts = tuple(_facts(graph, head, size_bytes, total) for head in heads)
    return Inspection(model, size_bytes, facts, found.refusals, found.masks)


def multiply_adds(graph: Graph, node: Node) -> int | None:
    """Multiply-adds of one node for one sample.

    A linear operation applies each value of its kernel once at each position of its output. Other
    operations count nothing. None where a shape is not known, or where an operation that no table
    translates holds a matrix.
    """
    operation = node.operation
    if isinstance(operation, Opaque):
        matrices = any(_is_matrix(graph, name) for name in node.inputs if name)
        return None if matrices else 0
    if not isinstance(operation, Linear):
        return 0
    kernel = graph.shape(node.inputs[operation.kernel])
    if operation.packed_bits is not None:  # its axes are of packed codes: all inputs for each unit
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


def _facts(graph: Graph, head: Head, size_bytes: int | None, total: int | None) -> HeadFacts:
    held = sum(graph.tensors[c.name].size_bytes or 0 for c in head.constants)
    work = _sum(multiply_adds(graph, node) for node in head.body)
    return HeadFacts(
        head=head,
        dtype=graph.tensors[head.output].dtype,
        bytes=held,
        share_of_bytes=held / size_bytes if size_bytes else None,
        multiply_adds=work,
        share_of_multiply_adds=work / total if work is not None and total else None,
    )


def _input(graph: Graph, name: str) -> Mapping[str, Any]:
    tensor = graph.tensors[name]
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"name": name, "shape": shape, "dtype": tensor.dtype}


def _head(facts: HeadFacts) -> Mapping[str, Any]:
    head = facts.head
    parts = head.axis_parts or (AxisPart("classes", 0, head.units),)
    return {
        "name": head.name,
        "output": head.output,
        "axis": head.axis,
        "units": head.units,
        "parts": [[part.start, part.stop] for part in parts],
        "part_names": [part.name for part in parts],
        "activation": head.activation,
        "dtype": facts.dtype,
        "labels": head.labels and list(head.labels),
        "bytes": facts.bytes,
        "share_of_bytes": facts.share_of_bytes,
        "multiply_adds": facts.multiply_adds,
        "share_of_multiply_adds": facts.share_of_multiply_adds,
    }


def inspect_file(source: str | Path | Any, job: Job) -> Inspection:
    """The heads of a model (see `inspection`)."""
    with job.open(source) as given:
        size = size_bytes(given.path) if given.path else None
        return inspect_model(given.model, size)
