"""Cuts of a detector: its class indices, and modes that it does not allow."""

from __future__ import annotations

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Graph, Tensor
from exporter.graph.edits import Compute, ComputeStep, Edit, Insert
from exporter.planning.special_units import BACKGROUND
from exporter.remap import HeadRemap
from exporter.remap.head_remap import originals
from exporter.trace.head import Head
from exporter.trace.readers import Column

_NO_CLASS = {"???", "n/a"}


def without_background_label(head: Head, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels of the units: label files often name the background first, even if it is no unit."""
    outside = any(part.name == "background" for part in head.axis_parts)
    named = bool(labels) and labels[0].strip().lower() in BACKGROUND | _NO_CLASS
    return labels[1:] if outside and named and len(labels) == head.units + 1 else labels


def check_zero(head: Head) -> None:
    """ModelError for a detector: a class value of 0 is a score, so that rows would return it."""
    if head.readers.detections:
        node = head.readers.detections[0].node
        raise ModelError(
            f"{node} would return removed classes: their values of 0 are valid scores",
            "use --mode slice",
        )


def check_merge(head: Head) -> None:
    """ModelError for a detector: the original has no rows of a group to compare with."""
    ranked = [each.node for each in head.readers.rankings if each.divisions]
    for node in (*(each.node for each in head.readers.detections), *ranked):
        raise ModelError(
            f"{node} makes rows of one class each, and the original has no row of a group",
            "leave out --merge, and give the classes of a group one name where the rows are read",
        )


_LEAVE_OUT = "leave out restore_ids; the remap contains the old and new indices"


def restore_class_indices(graph: Graph, head: Head, table: HeadRemap) -> tuple[Edit, ...]:
    """Edits after which class indices are those of the first original.

    None are needed where the model looks them up in a table of its own, which is cut with the
    classes.

    Raises:
        UsageError: no output of a post-process has class indices at known positions, or one is also
            read inside the model.
    """
    if any(detection.tables for detection in head.readers.detections):
        return ()
    columns, detected = head.readers.columns, head.readers.detector_outputs
    found = [name for name in graph.outputs if name in columns and name in detected]
    read = next((name for name in found if name in graph.consumers), None)
    if read is not None:
        reason = f"the class indices in output {read!r} are also read inside the model"
        raise UsageError(reason, _LEAVE_OUT)
    if not found:
        reason = f"head {head.name!r} has no output with the class indices of a post-process"
        raise UsageError(reason, _LEAVE_OUT)
    offset = min(columns[name].offset for name in found)
    if offset < 0:
        reason = f"the model subtracts {-offset} from the class indices of head {head.name!r}"
        raise UsageError(reason, _LEAVE_OUT)
    old = originals(table)
    return tuple(_look_up(graph.tensors[name], columns[name], old) for name in found)


def _look_up(tensor: Tensor, column: Column, old: Array) -> Edit:
    """Replace the new indices in one column by old ones."""
    shifted = np.concatenate([np.arange(column.offset), old + column.offset])
    indices, attributes = shifted.astype(tensor.dtype), {"dtype": tensor.dtype}
    if column.is_whole:
        return Insert("look_up", tensor.name, (indices,), attributes)
    shape = tensor.shape or ()
    rows, width = shape[:-1], column.width
    last = {"axis": len(shape) - 1}
    order = np.arange(width, dtype=np.int32)
    order[column.position] = width
    selected = np.array([column.position], np.int32)
    return Compute(
        tensor.name,
        (
            ComputeStep("gather", (0,), (selected,), last, (*rows, 1)),
            ComputeStep("look_up", (1,), (indices,), attributes, (*rows, 1)),
            ComputeStep("concat", (0, 2), (), last, (*rows, width + 1)),
            ComputeStep("gather", (3,), (order,), last, (*rows, width)),
        ),
    )
