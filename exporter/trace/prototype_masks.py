"""Maps from which a detector computes instance masks: their channels are not classes.

Each row of such a detector has box values, class values and one coefficient for each map; a mask is
the sum of the maps, weighted by the coefficients (YOLACT, https://arxiv.org/abs/1904.02689).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from exporter.graph import Graph
from exporter.trace.head import Head

_MAP = 4  # axes: batch, channels, height, width


def mask_maps(graph: Graph, heads: Sequence[Head]) -> tuple[str, ...]:
    """Names of the heads whose units are maps that the rows of another head weight.

    Args:
        graph: contains the heads.
        heads: of all its outputs.
    """
    maps = [head for head in heads if _is_map(graph, head)]
    widths = set[int]().union(*(_other_widths(head) for head in heads if head not in maps))
    return tuple(head.name for head in maps if head.units in widths)


def _is_map(graph: Graph, head: Head) -> bool:
    """Are all channels of a map units without labels?"""
    known = head.axis_parts or head.labels or head.readers.detections or head.readers.rankings
    return not known and head.output in graph.outputs and len(graph.shape(head.output)) == _MAP


def _other_widths(head: Head) -> set[int]:
    """The widths of parts without units that are joined after the units, or after a box."""
    return {
        stop - start
        for junction in head.junctions
        for start, stop in pairwise((0, *junction.stops))
        if start and not (junction.whole.units[start:stop] >= 0).any()
    }
