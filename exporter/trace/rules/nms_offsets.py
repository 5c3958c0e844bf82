"""Class numbers that only keep boxes of different classes apart.

Where boxes of all classes are suppressed together, each is moved by its class number times more
than any box is wide, so that those of different classes never overlap. Other numbers do that too.
"""

from __future__ import annotations

from exporter.graph import Graph, Node
from exporter.graph.operations import NonMaxSuppression


def parts_boxes(graph: Graph, node: Node) -> bool:
    """Is all that is made of a node's results the places by which boxes are suppressed?"""
    waiting, met = [name for name in node.outputs if name], set[str]()
    suppressed = False
    while waiting:
        tensor = waiting.pop()
        if tensor in graph.outputs:
            return False
        for reader, slot in graph.consumers.get(tensor, ()):
            operation = reader.operation
            if isinstance(operation, NonMaxSuppression) and slot == operation.boxes:
                suppressed = True
                continue
            new = [name for name in reader.outputs if name and name not in met]
            met.update(new)
            waiting += new
    return suppressed
