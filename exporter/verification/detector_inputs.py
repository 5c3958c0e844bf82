"""The inputs of NonMaxSuppression operators, which are compared instead of the rows they return.

In another precision, boxes that rank almost alike change their order, so that row 3 of both files
may describe different boxes: compared row by row, a good file looks like a broken one. So the boxes
and class scores that the operator reads are compared, box by box.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from exporter.graph import Graph, Node
from exporter.graph.operations import NonMaxSuppression
from exporter.graph.walk import dependents
from exporter.trace import trace
from exporter.verification.roles import ModelPair, TensorComparer


def detector_inputs(pair: ModelPair) -> Iterator[TensorComparer]:
    """The boxes and class scores that every operator reads.

    None if the models do not have the same number of operators.

    If an operator reads boxes that were selected before, their number differs from sample to
    sample. The class scores that they were selected by are compared then.
    """
    graphs = pair.graphs
    operators = [_operators(graph) for graph in graphs]
    for old, new in zip(*operators, strict=True) if len(operators[0]) == len(operators[1]) else ():
        operation = old.operation
        assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - narrows the type
        for slot in sorted({operation.boxes, operation.classes}):
            role, axis = ("y", operation.axis) if slot == operation.classes else ("boxes", None)
            if _has_one_shape(graphs[0], old.inputs[slot]):
                yield TensorComparer(old.inputs[slot], new.inputs[slot], axis, role, pair)
            elif role == "y":
                yield from [
                    TensorComparer(head.output, head.output, head.axis, role, pair)
                    for head in trace(graphs[0]).heads
                    if head.readers.detector_outputs and has_real_values(graphs[1], head.output)
                ]


def _has_one_shape(graph: Graph, name: str) -> bool:
    """Does a tensor have the same shape in all samples?"""
    shape = graph.tensors[name].shape
    return shape is not None and None not in shape[1:] and name not in graph.varying


def has_real_values(graph: Graph, name: str) -> bool:
    """Does a graph have this tensor, with real values or with a known quantization?"""
    tensor = graph.tensors.get(name)
    return tensor is not None and ("float" in tensor.dtype or tensor.quantization is not None)


def outputs_of_detectors(graph: Graph) -> Collection[str]:
    """The outputs that depend on a NonMaxSuppression operator."""
    found = dependents(graph, [name for node in _operators(graph) for name in node.outputs])
    return found.intersection(graph.outputs)


def _operators(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.operation, NonMaxSuppression)]
