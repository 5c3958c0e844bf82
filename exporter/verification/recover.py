"""Recover how a file without a remap was cut, from the rows of its heads.

Each row of a head's kernel is one unit. The rows of the cut file are looked for among those of the
original. Rows of a quantized file are near, not equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from exporter.formats.model import Model
from exporter.graph import Array, Graph
from exporter.graph.operations import Linear
from exporter.graph.walk import applies
from exporter.remap import HeadRemap
from exporter.remap.head_remap import OPTIONS
from exporter.trace import trace
from exporter.trace.head import Head

_APART = 0.05  # of the length of a row: more is another unit
_CLEAR = 0.5  # of the distance to the second nearest row: less is one unit without doubt


def recover_tables(original: Model, cut: Model) -> Iterator[HeadRemap]:
    """The table of each head that has fewer units, if all its rows are rows of the original."""
    graphs = original.graph(), cut.graph()
    after = {head.output: head for head in trace(graphs[1]).heads}
    for head in trace(graphs[0]).heads:
        narrow = after.get(head.output)
        if narrow is None or narrow.units >= head.units:
            continue
        kept = _same_rows(_rows(graphs[0], head), _rows(graphs[1], narrow))
        if kept is not None:
            yield HeadRemap(
                name=head.name,
                output=head.output,
                axis=head.axis,
                part=None if head.unit_range is None else narrow.unit_range,
                mode="slice",
                activation=head.activation,
                logits=None,
                old_units=head.units,
                new_units=len(kept),
                kept=kept,
                new_to_old=kept,
                labels=narrow.labels,
                options=dict.fromkeys(OPTIONS),
            )


def _rows(graph: Graph, head: Head) -> Array:
    """(units, values) all weights of each unit, in float64."""
    parts = []
    for constant in head.constants:
        tensor = graph.tensors[constant.name]
        is_real = "float" in tensor.dtype or tensor.quantization is not None
        if tensor.read is None or not is_real or _is_scale(graph, constant.name):
            continue
        axis, units = constant.unit_axis.axis, constant.unit_axis.units
        values = np.moveaxis(tensor.dequantize(tensor.read()), axis, 0)
        of_units = values[np.argsort(units, kind="stable")][(units < 0).sum() :]
        parts.append(of_units.reshape(head.units, -1))
    parts.sort(key=lambda part: -part.shape[1])  # kernels before biases
    return np.concatenate(parts, axis=1) if parts else np.empty((head.units, 0))


def _is_scale(graph: Graph, constant: str) -> bool:
    """Is it a scale or zero point, which other files do not have?"""
    for node, slot in graph.consumers.get(constant, ()):
        operation = node.operation
        if isinstance(operation, Linear) and slot in {each.slot for each in operation.along}:
            return True
        if applies(node, "dequantize", "quantize") and slot:
            return True
    return False


def _same_rows(rows: Array, narrow: Array) -> tuple[int, ...] | None:
    """The index of each narrow row among the rows; None if one has no clear counterpart."""
    if rows.shape[1] != narrow.shape[1] or not rows.shape[1]:
        return None
    found = []
    for row in narrow:
        apart = np.linalg.norm(rows - row, axis=1)
        nearest, second = np.partition(apart, 1)[:2]
        if nearest > _APART * np.linalg.norm(row) or nearest > _CLEAR * second:
            return None
        found.append(int(np.argmin(apart)))
    return tuple(found) if len(set(found)) == len(found) else None
