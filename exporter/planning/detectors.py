"""What a cut of a detector minds beside its classes: the background, and class numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exporter.errors import ModelError, NotAllowedError, UsageError
from exporter.graph import Array, Graph, Tensor
from exporter.graph.edits import Compute, ComputeStep, Edit, Insert
from exporter.remap import HeadRemap
from exporter.remap.head_remap import originals
from exporter.selection import Selection
from exporter.trace.axis_parts import boxes_elsewhere
from exporter.trace.head import Head
from exporter.trace.readers import Column

_BACKGROUND = {"background", "__background__", "bg"}
_NAMELESS = {"???", "n/a"}


def for_units(head: Head, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels without the background's, where that is no unit: label files often name it first."""
    outside = any(part.name == "background" for part in head.axis_parts)
    named = bool(labels) and labels[0].strip().lower() in _BACKGROUND | _NAMELESS
    return labels[1:] if outside and named and len(labels) == head.units + 1 else labels


def refuse_zero(head: Head) -> None:
    """ModelError where values of 0 would not remove a class, but return it for every box."""
    if head.readers.detections:
        node = head.readers.detections[0].node
        raise ModelError(
            f"{node} would return removed classes, whose values of 0 are scores of their own",
            "use --mode slice",
        )


def refuse_merge(head: Head) -> None:
    """ModelError where rows are made of classes: what a row of a group is nobody can say."""
    ranked = [each.node for each in head.readers.rankings if each.divisions]
    for node in (*(each.node for each in head.readers.detections), *ranked):
        raise ModelError(
            f"{node} makes rows of classes, each of one, and a group has none in the original",
            "leave out --merge, and give the classes of a group one name where the rows are read",
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
    within = bool(head.axis_parts or head.readers.detections)
    return within or boxes_elsewhere(graph, head.output, head.axis)


def restored_ids(graph: Graph, head: Head, table: HeadRemap) -> tuple[Edit, ...]:
    """Edits behind which class numbers are those of the first original.

    A file in which they are looked up already has its table cut with the classes.

    Raises:
        UsageError: no output of a post-process holds class numbers at places that are clear, or one
            is read inside the model too.
    """
    if any(detection.tables for detection in head.readers.detections):
        return ()
    columns = head.readers.columns
    found = {
        name: column for name, column in columns.items() if name in head.readers.detector_outputs
    }
    read = next((name for name in found if name in graph.consumers), None)
    if read is not None or not found:
        why = f"the class numbers in output {read!r} are read inside the model too"
        raise UsageError(
            why
            if read
            else f"head {head.name!r} has no output with the class numbers of a post-process",
            "leave out restore_ids; the remap tells old and new indices apart",
        )
    shift = min(column.offset for column in found.values())
    if shift < 0:
        raise UsageError(
            f"the class numbers of head {head.name!r} are returned less {-shift}",
            "leave out restore_ids; the remap tells old and new indices apart",
        )
    old = originals(table)
    return tuple(_looked_up(graph.tensors[name], column, old) for name, column in found.items())


def _looked_up(tensor: Tensor, column: Column, old: Array) -> Edit:
    """Old numbers in place of the new ones, whatever stands beside them."""
    shifted = np.concatenate([np.arange(column.offset), old + column.offset])
    numbers, told = shifted.astype(tensor.dtype), {"dtype": tensor.dtype}
    if column.is_whole:
        return Insert("look_up", tensor.name, (numbers,), told)
    shape = tensor.shape or ()
    rows, width = shape[:-1], column.width
    last = {"axis": len(shape) - 1}
    order = np.arange(width, dtype=np.int32)
    order[column.position] = width
    taken = np.array([column.position], np.int32)
    return Compute(
        tensor.name,
        (
            ComputeStep("gather", (0,), (taken,), last, (*rows, 1)),
            ComputeStep("look_up", (1,), (numbers,), told, (*rows, 1)),
            ComputeStep("concat", (0, 2), (), last, (*rows, width + 1)),
            ComputeStep("gather", (3,), (order,), last, (*rows, width)),
        ),
    )
