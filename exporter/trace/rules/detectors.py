"""Post-processes of detectors: the classes' values that enter them, and what depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from exporter.graph import Graph, Node, Shape
from exporter.graph.operations import (
    DetectionSlots,
    GatherComputed,
    GatherConstant,
    NonMaxSuppression,
    ShapeOf,
    Slice,
)
from exporter.graph.walk import dependents
from exporter.trace.head import Detection, UnitAxis, UnitConstant
from exporter.trace.rules.class_ids import shift_of
from exporter.trace.rules.lookup_tables import is_look_up, table_of
from exporter.trace.rules.nms_offsets import parts_boxes
from exporter.trace.rules.protocol import RAW, Detects, Fact, Port, Refused, States, Visit
from exporter.trace.rules.ranking import carries, hands_on


def detect(step: Visit) -> Iterator[Fact]:
    """The units are the classes; what else enters (boxes, anchors) has other axes."""
    operation = step.node.operation
    assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - narrows the type; RULES guarantees it
    if step.port != Port("input", operation.classes) or step.unit_axis.axis != operation.axis:
        raise step.refuse("it ranks boxes by what is no axis of classes")
    if not step.unit_axis.same(class_axis(operation, len(step.unit_axis.units))):
        first = operation.background
        raise step.refuse(f"its classes are not the units one by one from position {first} on")
    yield Detects()
    if operation.count is not None and operation.attribute is not None:
        offset = -operation.background
        stated = (operation.count,)
        yield States(operation.attribute, stated, None, offset, input=operation.classes)


def class_axis(operation: NonMaxSuppression, width: int) -> UnitAxis:
    """The labels of what enters a post-process: -1 for the background."""
    units = np.arange(-operation.background, width - operation.background, dtype=np.int64)
    return UnitAxis(operation.axis, np.maximum(units, -1))


def find_detection(
    graph: Graph, node: Node, classes: int, labeled: Mapping[str, UnitAxis]
) -> Detection:
    """What depends on a post-process.

    Args:
        graph: holds the node.
        node: its operation is a NonMaxSuppression.
        classes: how many it is given.
        labeled: all tensors that narrow with them.

    Raises:
        Refused: something computes with the class numbers.
    """
    operation = node.operation
    assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - the rule that noted the node saw to it
    numbers = _Numbers(graph, classes, labeled, shifts=operation.rows is None)
    numbers.follow(node.outputs[operation.ids], column=operation.column)
    ids = tuple(name for name in graph.outputs if name in numbers.found)
    behind = dependents(graph, node.outputs)
    return Detection(
        node=node,
        source=node.inputs[operation.classes],
        ids=ids,
        rows=_rows(graph, node, operation.rows, ids),
        behind=tuple(name for name in graph.outputs if name in behind),
        tables=tuple(numbers.tables),
    )


def _rows(
    graph: Graph, node: Node, rows: DetectionSlots | None, ids: tuple[str, ...]
) -> tuple[str, str, str, str] | None:
    if rows is None or not ids:
        return None
    boxes, scores, count = (node.outputs[slot] for slot in (rows.boxes, rows.scores, rows.number))
    found = boxes, ids[0], scores, count
    return found if set(graph.outputs).issuperset(found) else None


class _Numbers:
    """All that holds class numbers, and the tables in which they are looked up."""

    def __init__(
        self, graph: Graph, classes: int, labeled: Mapping[str, UnitAxis], *, shifts: bool
    ) -> None:
        """With `shifts` a number may be added to all of them: of the background, say."""
        self.graph = graph
        self.classes = classes
        self.labeled = labeled
        self.shifts = shifts
        self.more = dict[str, int]()  # what was added to the numbers in a tensor
        self.found = set[str]()
        self.tables: list[UnitConstant] = []

    def follow(self, tensor: str, *, looked_up: bool = False, column: int | None = None) -> None:
        """Whatever reads a tensor with class numbers.

        Args:
            looked_up: they stand in a table: the same before and after a cut, whoever reads them.
            column: of the last axis, where other numbers share it.
        """
        self.found.add(tensor)
        for node, slot in self.graph.consumers.get(tensor, ()):
            if column is not None and _leaves_out(node, column, self.graph.shape(tensor)):
                continue
            more = self.more.get(tensor, 0)
            shift = shift_of(self.graph, node) if self.shifts and column is None else None
            if shift is not None and not looked_up:
                self.more[node.outputs[0]] = more + shift
                self.follow(node.outputs[0])
            elif hands_on(self.graph, node) or carries(node, slot):
                self.more[node.outputs[0]] = more
                self.follow(node.outputs[0], looked_up=looked_up, column=_left(node, column))
            elif is_look_up(self.graph, node, slot) and not looked_up:
                self.tables.append(table_of(self.graph, node, self.classes, more))
                self.follow(node.outputs[0], looked_up=True)
            elif not (looked_up or self._is_harmless(node, slot, tensor)):
                raise Refused(node, "it computes with the class numbers, which a cut changes", RAW)

    def _is_harmless(self, node: Node, slot: int, tensor: str) -> bool:
        """Do new numbers serve as well as the old ones?"""
        fetched = self._is_fetch(node, slot) and not self.more.get(tensor)
        return fetched or isinstance(node.operation, ShapeOf) or parts_boxes(self.graph, node)

    def _is_fetch(self, node: Node, slot: int) -> bool:
        """Values that are cut with the classes are found under the new numbers."""
        return (
            isinstance(node.operation, GatherComputed)
            and slot == 1
            and node.inputs[0] in self.labeled
        )


def _leaves_out(node: Node, column: int, shape: Shape) -> bool:
    """Does a node take other columns of the last axis alone?"""
    last = len(shape) - 1
    match node.operation:
        case GatherConstant(axis=axis, positions=positions) if axis == last:
            return column not in [place % (shape[last] or 1) for place in positions]
        case Slice(axes=axes, starts=starts, stops=stops) if last in axes:
            index = axes.index(last)
            return column not in range(shape[last] or 0)[starts[index] : stops[index]]
        case _:
            return False


def _left(node: Node, column: int | None) -> int | None:
    """The column where it still stands among others; None where the numbers stand alone."""
    return None if isinstance(node.operation, GatherConstant | Slice) else column


def detector_of(graph: Graph, output: str) -> Node | None:
    """The post-process that an output depends on, if there is one."""
    for node in graph.nodes:
        if isinstance(node.operation, NonMaxSuppression) and output in dependents(
            graph, node.outputs
        ):
            return node
    return None
