"""Token ids for a model whose vocabulary was cut at its input, and for its original.

The two can be compared on kept tokens only, so removed ids of the samples become kept ones. If the
file still takes the original ids and has an unknown token, every other removed id stays as it is
there: it has to count as that token, which the original gets in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from exporter.data.samples import Samples
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.remap import HeadRemap
from exporter.verification.gate_masks import with_masks
from exporter.verification.match import earlier_table


class PairInputs(NamedTuple):
    """The inputs of a model that was cut, and of the result.

    Attributes:
        original: with kept tokens only.
        cut: the same with the ids that the cut model takes, and with masks for a gate.
        masks: see `with_masks`.
        different: the inputs of `cut` that are not those of `original`.
    """

    original: Samples
    cut: Samples
    masks: Array | None

    @property
    def different(self) -> Mapping[str, Any]:
        before = self.original.values
        found = self.cut.values.items()
        return {name: each for name, each in found if each is not before.get(name)}


def pair_inputs(
    samples: Samples, original: Model, cut: Model, tables: Iterable[HeadRemap]
) -> PairInputs:
    """The inputs of both models.

    Args:
        samples: for the original.
        original: the model that was cut, or one of those before it in a chain of cuts.
        tables: how each head was cut.
    """
    tables = tuple(tables)
    before, after = dict(samples.values), dict(samples.values)
    for table in tables:
        tokens = table.options["vocabulary"] or {"inputs": ()}
        for name in set(tokens["inputs"]).intersection(samples.values):
            kept, new = _translations(original, table)
            before[name] = _changed(samples.values[name], kept)
            after[name] = _changed(samples.values[name], new)
    masked, masks = with_masks(replace(samples, values=after), cut.graph(), tables)
    if all(before[name] is samples.values[name] for name in before):
        return PairInputs(samples, masked, masks)
    return PairInputs(replace(samples, values=before), masked, masks)


def _translations(original: Model, table: HeadRemap) -> tuple[Array, Array]:
    """For each id of the original, a kept id, and what the cut model takes in its place."""
    tokens, earlier = table.options["vocabulary"], earlier_table(original, table)
    units = earlier.new_units if earlier else table.old_units
    kept = np.asarray(table.kept)
    here = earlier.to_new(kept) if earlier else kept
    every = np.arange(units)
    before = here[every % len(here)]
    before[here] = here
    if not tokens["keep_ids"]:
        new = np.zeros(units, np.int64)
        new[here] = table.to_new(kept)
        return before, new[before]
    after = before.copy()
    if tokens["unknown"] is not None:
        odd = (before != every) & (every % 2 == 1)
        after[odd] = every[odd]
        before[odd] = tokens["unknown"]
    return before, after


def _changed(values: Any, table: Array) -> Any:
    def change(ids: Array) -> Array:
        inside = (ids >= 0) & (ids < len(table))
        found = table[np.where(inside, ids, 0).astype(np.int64)]
        return np.where(inside, found, ids).astype(ids.dtype)

    return change(values) if isinstance(values, np.ndarray) else _Changed(values, change)


class _Changed(Sequence[Array]):
    """Values that are changed when they are read."""

    def __init__(self, values: Sequence[Array], change: Callable[[Array], Array]) -> None:
        self._values, self._change = values, change

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: Any) -> Any:
        return self._change(np.asarray(self._values[index]))
