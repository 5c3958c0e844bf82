"""Post-processes of detectors: the class values that they read, and what depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from exporter.graph import Graph, Node
from exporter.graph.operations import NonMaxSuppression
from exporter.graph.walk import dependents
from exporter.trace.readers import Column, Content, Detection, Kind
from exporter.trace.rules.protocol import Fact, Port, Reading, Visit
from exporter.trace.rules.unit_indices import IndexWalk
from exporter.trace.unit_axis import UnitAxis


def non_max_suppression(visit: Visit, operation: NonMaxSuppression) -> Iterator[Fact]:
    """The units are the classes; the boxes and anchors have other axes."""
    port = Port("input", operation.classes)
    if visit.port != port or visit.unit_axis.axis != operation.axis:
        raise visit.refuse("the axis is not the class axis by which it ranks boxes")
    first, width = operation.background, len(visit.unit_axis.units)
    units = np.maximum(np.arange(width, dtype=np.int64) - first, -1)
    if not visit.unit_axis.same(UnitAxis(operation.axis, units)):
        raise visit.refuse(f"its classes are not the units in order from position {first}")
    yield Reading.DETECTION
    if operation.count is not None and operation.attribute is not None:
        yield visit.states(operation.attribute, (operation.count,), None, -first, port)


def find_detection(
    graph: Graph, node: Node, classes: int, unit_axes: Mapping[str, UnitAxis]
) -> Detection:
    """Follow the results of a post-process.

    Args:
        graph: contains the node.
        node: its operation is a NonMaxSuppression.
        classes: number of classes that it reads.
        unit_axes: all tensors with a unit axis.

    Raises:
        Refused: something computes with the class indices.
    """
    operation = node.operation
    assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - the rule above ensures it
    ids, rows = node.outputs[operation.ids], operation.rows
    walk = IndexWalk(graph, classes, unit_axes, is_detector=True, adds_offset=rows is None)
    walk.run({ids: Content(Kind.INDICES, column=_column(graph, ids, operation.column))})
    contents = walk.outputs()
    found: tuple[str, str, str, str] | None = None
    if rows is not None and contents:
        boxes, scores, number = (node.outputs[i] for i in (rows.boxes, rows.scores, rows.number))
        found = boxes, next(iter(contents)), scores, number
    dependent = dependents(graph, node.outputs)
    return Detection(
        node=node,
        source=node.inputs[operation.classes],
        contents=contents,
        tables=tuple(walk.tables),
        rows=found if found and set(graph.outputs).issuperset(found) else None,
        dependents=tuple(name for name in graph.outputs if name in dependent),
    )


def _column(graph: Graph, tensor: str, position: int | None) -> Column:
    """Where class indices are in a tensor: in one column of its last axis, or everywhere."""
    if position is None:
        return Column(0, 1)
    width = graph.shape(tensor)[-1:] or (None,)
    return Column(position, width[0] or position + 1)


def detector_of(graph: Graph, output: str) -> Node | None:
    """The post-process that an output depends on, if there is one."""
    detectors = (node for node in graph.nodes if isinstance(node.operation, NonMaxSuppression))
    return next((node for node in detectors if output in dependents(graph, node.outputs)), None)
