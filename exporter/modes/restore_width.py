"""Edits after the output: the original width around a narrow head, or some units of a whole head.

A pad adds the value of removed units as one more position, and a gather then reads the positions.
Both only move values, so they are exact for floats and quantized values, for any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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


def fill_value(head: Head) -> float | None:
    """The output of removed units: the lowest value; None for 0, if they are probabilities.

    Raises:
        ModelError: some parts of the output are probabilities, and others are not.
    """
    zero = returns_probabilities(head) or joins_probabilities_of_parts(head)
    if head.normalized and not zero:
        raise ModelError(
            f"head {head.name!r} joins probabilities and other values: one value for all removed "
            "units cannot be 0 for the probabilities and the lowest for the others",
            "use --mode slice without --restore-width",
        )
    return None if zero else lowest_value(head, head.output)


def check_single_output(head: Head) -> None:
    """Raise ModelError if anything but the output returns or ranks the units.

    Another consumer would see the width of the head instead of the width of the output.
    """
    inside = {name for node in (*head.body, *head.tail) for name in node.outputs}
    inside |= {name for factor in head.factors.values() for name in factor.tensors}
    inside |= head.readers.looked_up  # it is read by token ids, which have a table of their own
    others = [tensor.name for tensor in head.tensors if tensor.name not in inside]
    others += head.other_outputs
    readers = (*head.readers.rankings, *head.readers.detections)
    nodes = [reader.node for reader in readers if reader.source != head.output]
    if others or nodes:
        found = repr(others[0]) if others else str(nodes[0])
        raise ModelError(
            f"head {head.name!r} and its output cannot have different widths: {found} reads the "
            "units too",
            "use --mode slice or --mode zero, without --restore-width and without --probabilities "
            "absolute",
        )


def output_edits(head: Head, kept: Sequence[int], semantics: Semantics) -> tuple[Edit, ...]:
    """Pad and gather after the output, if its units are not those that the head computes.

    1. A narrow head and the original width: removed positions read the padded value.
    2. A whole head (absolute) and the original width: the same, although the head computes them.
    3. A whole head, of which the output contains the kept units only.
    """
    axis = head.tensor(head.output).unit_axis
    positions = axis.positions(kept)
    if not semantics.restore_width:
        return (_gather(head, positions),) if semantics.absolute else ()
    computed = np.arange(len(axis.units)) if semantics.absolute else positions
    fill = 0.0 if semantics.floor is None else semantics.floor
    source = np.full(len(axis.units), len(computed), np.int64)  # the padded position
    source[computed] = np.arange(len(computed))
    source[axis.removed(kept)] = len(computed)
    shape = head.tensor(head.output).with_width(len(computed) + 1)
    pad = Insert("pad", head.output, (), {"axis": axis.axis, "value": fill}, shape)
    return pad, _gather(head, source)


def gather_edits(head: Head, kept: Sequence[int]) -> tuple[Insert, ...]:
    """Take the kept units of a head with a Gather (`Head.gather`)."""
    taken = _gather(head, head.tensor(head.output).unit_axis.positions(kept))
    return (replace(taken, only_output=head.gather == "output"),)


def _gather(head: Head, positions: Array) -> Insert:
    output = head.tensor(head.output)
    shape, attributes = output.with_width(len(positions)), {"axis": output.unit_axis.axis}
    return Insert("gather", head.output, (positions.astype(np.int32),), attributes, shape)
