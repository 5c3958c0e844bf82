"""Behind the output: the old width around a narrow head, or some of a whole head's units.

The fill is padded on as one more position, and positions are then gathered: both only move values,
which is exact for floats and codes in every kernel, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.graph.edits import Edit, Insert
from exporter.modes.mask_value import (
    joins_probabilities_of_parts,
    lowest_value,
    returns_probabilities,
)
from exporter.modes.semantics import Semantics
from exporter.trace.head import Head
from exporter.trace.unit_axis import UnitAxis


def fill_value(head: Head) -> float | None:
    """What removed units shall answer: the lowest value; None for 0, where it is a probability."""
    zero = returns_probabilities(head) or joins_probabilities_of_parts(head)
    return None if zero else lowest_value(head, head.output)


def check_single_output(head: Head) -> None:
    """Refuse a head whose output is not all that shows or ranks its units.

    Whatever else reads them would see the width inside, not the one outside.
    """
    inside = {name for node in (*head.body, *head.tail) for name in node.outputs}
    inside |= {name for factor in head.factors.values() for name in factor.tensors}
    others = [tensor.name for tensor in head.tensors if tensor.name not in inside]
    others += head.other_outputs
    nodes = [each.node for each in head.readers.rankings if each.source != head.output]
    nodes += [each.node for each in head.readers.detections if each.source != head.output]
    if others or nodes:
        found = repr(others[0]) if others else str(nodes[0])
        raise ModelError(
            f"head {head.name!r} cannot have another width inside than outside: {found} reads its "
            "units too",
            "use --mode slice or --mode zero, and neither --restore-width nor --probabilities "
            "absolute",
        )


def output_edits(head: Head, kept: Sequence[int], semantics: Semantics) -> tuple[Edit, ...]:
    """What stands behind the output, where it does not show what the head makes.

    1. A narrow head and the old width: removed positions read the fill.
    2. A whole head (absolute) and the old width: likewise, although their values are there.
    3. A whole head and kept units alone.
    """
    labels = head.tensor(head.output).unit_axis
    inside = np.arange(len(labels.units)) if semantics.absolute else labels.positions(kept)
    if semantics.restore_width:
        fill = 0.0 if semantics.floor is None else semantics.floor
        order = _order(labels, kept, inside)
        return _padded(head, len(inside) + 1, fill), _gathered(head, order)
    return (_gathered(head, labels.positions(kept)),) if semantics.absolute else ()


def _order(labels: UnitAxis, kept: Sequence[int], inside: Array) -> Array:
    """For each position outside the one inside that it reads; the last one is the fill."""
    order = np.full(len(labels.units), len(inside), np.int64)
    order[inside] = np.arange(len(inside))
    order[labels.removed(kept)] = len(inside)
    return order


def _padded(head: Head, width: int, fill: float) -> Insert:
    axis = head.tensor(head.output).unit_axis.axis
    attributes = {"axis": axis, "value": fill}
    return Insert("pad", head.output, (), attributes, _with_width(head, width))


def _gathered(head: Head, order: Array) -> Insert:
    axis = head.tensor(head.output).unit_axis.axis
    shape = _with_width(head, len(order))
    return Insert("gather", head.output, (order.astype(np.int32),), {"axis": axis}, shape)


def _with_width(head: Head, width: int) -> tuple[int | None, ...]:
    tensor = head.tensor(head.output)
    shape = list(tensor.shape)
    shape[tensor.unit_axis.axis] = width
    return tuple(shape)
