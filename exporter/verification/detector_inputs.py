"""What enters a post-process, in place of the rows that it returns.

In another precision boxes that rank almost alike change their order, and rows that stand one
behind the other in both files tell of different boxes: compared row by row, a good file looks like
a broken one. What is ranked is compared instead, box by box.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from exporter.graph import Graph, Node
from exporter.graph.operations import NonMaxSuppression
from exporter.graph.walk import dependents
from exporter.trace import trace


@dataclass(frozen=True)
class Entering:
    """A tensor of the original that enters a post-process.

    Attributes:
        name: of the tensor.
        other: what enters in its place in what became of the model.
        axis: along which its classes lie; None where it holds boxes.
    """

    name: str
    other: str
    axis: int | None


def entering(graphs: tuple[Graph, Graph]) -> Iterator[Entering]:
    """The values of boxes and classes of every post-process; none where one model lacks some.

    Where boxes were selected before, in another number for each sample, the values of the classes
    that were selected by stand in for them.
    """
    found = tuple(_post_processes(graph) for graph in graphs)
    for nodes in zip(*found, strict=True) if len(found[0]) == len(found[1]) else ():
        old, new = nodes
        operation = old.operation
        assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - narrows the type
        for slot in sorted({operation.boxes, operation.classes}):
            axis = operation.axis if slot == operation.classes else None
            read = old.inputs[slot], new.inputs[slot]
            if _is_fixed(graphs[0], read[0]):
                yield Entering(*read, axis)
            elif axis is not None:
                yield from _before(graphs)


def _before(graphs: tuple[Graph, Graph]) -> Iterator[Entering]:
    yield from [
        Entering(head.output, head.output, head.axis)
        for head in trace(graphs[0]).heads
        if head.readers.detector_outputs and holds_reals(graphs[1], head.output)
    ]


def holds_reals(graph: Graph, name: str) -> bool:
    """Has a graph such a tensor, of reals, or of codes that tell which they stand for?"""
    tensor = graph.tensors.get(name)
    return tensor is not None and ("float" in tensor.dtype or tensor.quantization is not None)


def behind_all(graph: Graph) -> Collection[str]:
    """The outputs that depend on a post-process."""
    found = {name for node in _post_processes(graph) for name in dependents(graph, node.outputs)}
    return found.intersection(graph.outputs)


def _is_fixed(graph: Graph, tensor: str) -> bool:
    """Has it the same shape for each sample? Boxes that were selected before are as many as are."""
    shape = graph.tensors[tensor].shape
    return shape is not None and None not in shape[1:]


def _post_processes(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if isinstance(node.operation, NonMaxSuppression)]
