"""The masks that a file with a gate is fed: one more input, that its original does not have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from exporter.data.samples import Samples
from exporter.graph import Array, Graph
from exporter.modes.gate_branch import MASK
from exporter.modes.semantics import INPUT, INPUT_FLOAT
from exporter.remap import HeadRemap


def masks_of(units: int, count: int) -> Array:
    """Which units are on in each sample: (count, units) bool.

    All and none first, then one alone and all but one, then a random half; the same every time.
    """
    random = np.random.default_rng(0)
    masks = random.random((count, units)) < 0.5  # noqa: PLR2004 - each is on as often as off
    known = [np.ones(units, bool), np.zeros(units, bool)]
    known += [np.arange(units) == units // 2, np.arange(units) != units // 2]
    for place, mask in zip(range(count), known, strict=False):
        masks[place] = mask
    return masks


def with_masks(
    samples: Samples, graph: Graph, tables: Iterable[HeadRemap]
) -> tuple[Samples, Array | None]:
    """The samples with masks besides, and the masks; None where no gate asks for them.

    Args:
        samples: of the original.
        graph: of the file with the gate. Where an input has a default it counts as a constant.
        tables: how its heads were cut.
    """
    asked = any(table.options["gate"] in {INPUT, INPUT_FLOAT} for table in tables)
    if not asked or MASK not in graph.tensors:
        return samples, None
    lengths = tuple(length or 1 for length in graph.shape(MASK))
    masks = masks_of(lengths[-1], samples.count)
    shaped = masks.reshape(len(masks), *[1] * (len(lengths) - 1), lengths[-1])
    fed = np.broadcast_to(shaped, (len(masks), *lengths)).astype(graph.tensors[MASK].dtype)
    return replace(samples, values={**samples.values, MASK: fed}), masks
