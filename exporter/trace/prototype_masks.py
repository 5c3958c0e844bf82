"""Maps out of which a detector makes masks: channels that are no classes.

Beside its box and class values each row has as many coefficients as there are such maps; a mask is
the sum of the maps, weighted by them (YOLACT, https://arxiv.org/abs/1904.02689, and the YOLOs).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from exporter.graph import Graph
from exporter.trace.head import Head

_MAP = 4  # axes: the batch, channels, height and width


def mask_maps(graph: Graph, heads: Sequence[Head]) -> tuple[str, ...]:
    """Names of the heads of one graph whose units are maps that another head's rows weigh.

    Args:
        graph: has the heads.
        heads: of all its outputs.
    """
    maps = [head for head in heads if _is_map(graph, head)]
    widths = set[int]().union(*(_beside(head) for head in heads if head not in maps))
    return tuple(head.name for head in maps if head.units in widths)


def _is_map(graph: Graph, head: Head) -> bool:
    """Are all channels of a map units, and none of them has a name?"""
    shape = graph.shape(head.output)
    plain = not (head.axis_parts or head.labels or head.readers.detections or head.readers.rankings)
    return plain and head.output in graph.outputs and len(shape) == _MAP


def _beside(head: Head) -> set[int]:
    """The widths of what stands behind the units, or a box, where these enter one tensor."""
    return {
        stop - start
        for junction in head.junctions
        for start, stop in pairwise((0, *junction.stops))
        if start and not (junction.whole.units[start:stop] >= 0).any()
    }
