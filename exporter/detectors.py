"""What a cut of a detector minds beside its classes: the background, and class numbers."""

from __future__ import annotations

from dataclasses import replace

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.graph import Graph
from exporter.head import Detection, Head
from exporter.operations import Detect
from exporter.plan import Insert
from exporter.remap import HeadRemap
from exporter.remap.table import originals
from exporter.selection import Selection
from exporter.trace.sharing import boxes_elsewhere

_BACKGROUND = {"background", "__background__", "bg"}
_NAMELESS = {"???", "n/a"}


def for_units(head: Head, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels without the background's, where that is no unit: label files often name it first."""
    outside = any(part.name == "background" for part in head.parts)
    named = bool(labels) and labels[0].strip().lower() in _BACKGROUND | _NAMELESS
    return labels[1:] if outside and named and len(labels) == head.units + 1 else labels


def refuse_zero(head: Head) -> None:
    """ModelError where values of 0 would not remove a class, but return it for every box."""
    if head.detections:
        node = head.detections[0].node
        raise ModelError(
            f"{node} would return removed classes, whose values of 0 are scores of their own",
            "use --mode slice",
        )


def with_background(graph: Graph, head: Head, selection: Selection, *, removed: bool) -> Selection:
    """The selection with the background of a detector in it.

    Args:
        graph: holds the head.
        head: of the classes.
        selection: its labels name the background, if there is one among the units.
        removed: the user named the units that go, not those that stay.

    Raises:
        NotAllowedError: the user named the background among those that go.
    """
    labels = selection.labels or ()
    found = {unit for unit, label in enumerate(labels) if label.strip().lower() in _BACKGROUND}
    lost = sorted(found.difference(selection.kept)) if _beside_boxes(graph, head) else []
    if not lost:
        return selection
    if removed:
        raise NotAllowedError(
            f"unit {lost[0]}, {labels[lost[0]]!r}, is what a detector says where nothing is",
            "--allow-remove-special removes it all the same",
        )
    kept = (*lost, *selection.kept)
    ascending = selection.kept == tuple(sorted(selection.kept))
    note = f"unit {lost[0]}, {labels[lost[0]]!r}, stays: a detector needs it"
    return replace(
        selection,
        kept=tuple(sorted(kept)) if ascending else kept,
        notes=(*selection.notes, note),
    )


def _beside_boxes(graph: Graph, head: Head) -> bool:
    within = bool(head.parts or head.detections)
    return within or boxes_elsewhere(graph, head.output, head.axis)


def _are_alone(detection: Detection) -> bool:
    """Does the post-process return class numbers as an output of their own?"""
    operation = detection.node.operation
    return isinstance(operation, Detect) and operation.column is None


def restored_ids(graph: Graph, head: Head, table: HeadRemap) -> tuple[Insert, ...]:
    """Edits behind which class numbers are those of the first original.

    A file in which they are looked up already has its table cut with the classes.

    Raises:
        UsageError: no output holds class numbers that a post-process returns, and nothing else.
    """
    if not any(detection.ids and _are_alone(detection) for detection in head.detections):
        raise UsageError(
            f"head {head.name!r} has no output with the class numbers of a post-process",
            "leave out restore_ids; the remap tells old and new indices apart",
        )
    old = originals(table)
    return tuple(
        Insert("look_up", name, (old.astype(tensor.dtype),), {"dtype": tensor.dtype})
        for detection in head.detections
        if not detection.tables and _are_alone(detection)
        for name in detection.ids
        if (tensor := graph.tensors[name])
    )
