"""The masks for a file with a gate: one more input, which its original does not have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from exporter.data.samples import Samples
from exporter.graph import Array, Graph
from exporter.modes.gate_branch import MASK
from exporter.modes.semantics import INPUT, INPUT_FLOAT
from exporter.remap import HeadRemap


def reads_mask(table: HeadRemap) -> bool:
    """Does the head have a gate that reads its mask from an input?"""
    return table.options["gate"] in {INPUT, INPUT_FLOAT}


def make_masks(units: int, count: int) -> Array:
    """Which units are on in each sample: (count, units) bool.

    The first four samples have all units on, none, the middle one alone, and all but the middle
    one; the others have a random half. The masks are the same in every run.
    """
    random = np.random.default_rng(0)
    masks = random.random((count, units)) < 0.5  # noqa: PLR2004 - each is on as often as off
    middle = np.arange(units) == units // 2
    first = [np.ones(units, bool), np.zeros(units, bool), middle, ~middle][:count]
    masks[: len(first)] = first
    return masks


def with_masks(
    samples: Samples, graph: Graph, tables: Iterable[HeadRemap]
) -> tuple[Samples, Array | None]:
    """The samples with the masks as a further input, and the masks; None if no gate reads them.

    Args:
        samples: for the original.
        graph: the file with the gate. An input with a default counts as a constant.
        tables: how its heads were cut.
    """
    if not any(map(reads_mask, tables)) or MASK not in graph.tensors:
        return samples, None
    lengths = tuple(length or 1 for length in graph.shape(MASK))
    masks = make_masks(lengths[-1], samples.count)
    shaped = masks.reshape(len(masks), *[1] * (len(lengths) - 1), lengths[-1])
    fed = np.broadcast_to(shaped, (len(masks), *lengths)).astype(graph.tensors[MASK].dtype)
    return replace(samples, values={**samples.values, MASK: fed}), masks
