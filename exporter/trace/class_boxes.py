"""Boxes of each class, next to the classes: they are cut with them.

A detector of two stages, such as Faster R-CNN, returns for each region the probabilities of its
C classes and a box for each class: another output [regions, C, 4], [regions, 4, C] or
[regions, 4 C]. Without this
rule a cut leaves the boxes of removed classes, and the class indices point to wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from exporter.graph import Graph
from exporter.graph.operations import Linear
from exporter.trace.head import Head
from exporter.trace.rules.protocol import Refused
from exporter.trace.unit_axis import UnitAxis

_BOX = 4  # coordinates
_NAMED = re.compile(r"box|bbox|delta|(^|[^a-z])(reg|loc)([^a-z]|$)", re.IGNORECASE)

TraceUnits = Callable[[Graph, str, UnitAxis], Head]


def boxes_of_classes(graph: Graph, head: Head, trace_units: TraceUnits) -> tuple[Head, ...]:
    """The heads of the outputs with a box for each class of a head.

    1. The classes compete, and the boxes have no activation.
    2. Both have the same rows, and are computed from the same features.
    3. [..., 4 C] is no box where nothing is named so: it may be any other regression.

    Args:
        graph: contains the head.
        head: its units may be classes.
        trace_units: see `trace_unit_axis`.
    """
    if head.activation != "softmax" or head.output not in graph.outputs:
        return ()
    found: list[Head] = []
    for output in graph.outputs:
        if output in (head.output, *head.other_outputs):
            continue
        for unit_axis in _axes(graph, head, output):
            try:
                boxes = trace_units(graph, output, unit_axis)
            except Refused:
                continue
            if boxes.activation == "linear" and _features(boxes) == _features(head):
                found.append(boxes)
    return tuple(found)


def _axes(graph: Graph, head: Head, output: str) -> Iterator[UnitAxis]:
    """How the classes may be on the axes of an output with boxes."""
    rows = tuple(graph.shape(head.output)[:-1])
    shape, classes = tuple(graph.shape(output)), np.arange(head.units, dtype=np.int64)
    if head.axis != len(rows) or shape[: len(rows)] != rows:
        return
    if shape[len(rows) :] == (head.units, _BOX):
        yield UnitAxis(len(rows), classes)
    elif shape[len(rows) :] == (_BOX, head.units):
        yield UnitAxis(len(rows) + 1, classes)
    elif shape[len(rows) :] == (_BOX * head.units,) and _is_named(graph, output):
        yield UnitAxis(len(rows), np.repeat(classes, _BOX))


def _is_named(graph: Graph, output: str) -> bool:
    node, _ = graph.producers.get(output, (None, 0))
    return any(
        _NAMED.search(name) for name in (output, *((node.name, *node.inputs) if node else ()))
    )


def _features(head: Head) -> set[str]:
    return {node.inputs[0] for node in head.body if isinstance(node.operation, Linear)}


def without_boxes(heads: Sequence[Head], boxes: Sequence[Head]) -> tuple[Head, ...]:
    """The heads that are no boxes of another one."""
    outputs = {each.output for each in boxes}
    return tuple(head for head in heads if head.output not in outputs)
