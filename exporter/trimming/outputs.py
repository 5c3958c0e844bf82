"""How much the outputs of a network differ from those of the network that it was made from.

Both run on the same samples, batch after batch. Of each batch only sums are kept, so that any
number of samples, and outputs of any size, take the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array, Graph
from exporter.trace import trace
from exporter.trace.head import Head
from exporter.trimming.network import batches, values_of

_NOT_FINITE = 1e6  # larger than any error of finite values
_KEPT_BYTES = 64 << 20  # of the original's outputs; larger ones are computed again


@dataclass(frozen=True, eq=False)
class First:
    """Where the first unit of a head is shown.

    Attributes:
        tensor: an output with the units, or one with unit indices, the best one first.
        axis: of the units, or of the ranks; None if each value is the index of the best unit.
        indices: the tensor contains indices.
    """

    head: Head
    tensor: str
    axis: int | None
    indices: bool

    @property
    def name(self) -> str:
        return self.head.name

    def of(self, values: Array) -> Array:
        """Index of the first unit: (rows, places) int64; -1 where a value is NaN."""
        values = np.asarray(values)
        if self.indices:
            found = values if self.axis is None else values.take(0, self.axis)
        else:
            found = values.argmax(self.axis)
            found = np.where(np.isnan(values).any(self.axis), -1, found)
        found = np.atleast_1d(found).astype(np.int64)
        return found.reshape(len(found), -1)


@dataclass(frozen=True, eq=False)
class Observed:
    """What is compared.

    Attributes:
        firsts: one for each head whose first unit the outputs show.
        tensors: compared by value: the logits of heads, and the outputs that show no units.
        others: these outputs: no agreement counts them.
        softmax: tensor -> the unit axis, of logits before a softmax.
    """

    firsts: tuple[First, ...]
    tensors: tuple[str, ...]
    others: tuple[str, ...]
    softmax: Mapping[str, int]

    @classmethod
    def of(cls, graph: Graph) -> Observed:
        heads = trace(graph).heads
        firsts = tuple(first for head in heads if (first := _first(graph, head)))
        known = {first.tensor for first in firsts}
        logits: dict[str, int | None] = {}
        for head in heads:
            known.update((head.output, *head.other_outputs, *head.readers.id_outputs))
            seen = next((n for n in (head.z, head.output) if n not in graph.hidden), None)
            if seen is not None:
                normalized = seen == head.z and head.activation == "softmax"
                logits[seen] = head.tensor(seen).unit_axis.axis if normalized else None
        others = tuple(name for name in graph.outputs if name not in known)
        softmax = {name: axis for name, axis in logits.items() if axis is not None}
        return cls(firsts, tuple(dict.fromkeys((*logits, *others))), others, softmax)

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.tensors, *(first.tensor for first in self.firsts))))


def _first(graph: Graph, head: Head) -> First | None:
    if head.output in graph.outputs:
        axis = head.tensor(head.output).unit_axis.axis
        return First(head, head.output, axis, indices=False)
    for ranking in head.readers.rankings:
        for name in ranking.outputs:
            if ranking.node.operation.largest:  # type: ignore[union-attr]
                return First(head, name, ranking.rank_axes.get(name), indices=True)
    return None


@dataclass(frozen=True, eq=False)
class Difference:
    """How much a network differs from the reference.

    Attributes:
        error: mean squared difference as a share of the variance; the mean of all tensors. A number
            that is added to all logits of a softmax does not count. Large for NaN.
        sqnr_db: of each tensor; infinite if nothing differs.
        shares: head -> of each row of the batches, the share of places with the same first unit:
            (rows,). NaN agrees with nothing.
        places: the most places of a row.
        is_finite: the network returns no NaN and no infinite value.
    """

    error: float
    sqnr_db: Mapping[str, float]
    shares: Mapping[str, Array]
    places: int
    is_finite: bool

    @property
    def worst_sqnr_db(self) -> float:
        return min(self.sqnr_db.values(), default=np.inf)

    @property
    def agreement(self) -> float | None:
        """The share of samples (of places, if there are several) with the same first unit, of the
        head with the fewest; None without a head.
        """
        return None if self.worst is None else float(self.worst.mean())

    @cached_property
    def worst(self) -> Array | None:
        """The shares of the head with the smallest agreement."""
        return min(self.shares.values(), key=lambda each: float(each.mean()), default=None)


class Reference:
    """The network that others are compared with, on samples.

    Attributes:
        is_finite: it returns no NaN and no infinite value.
        counts: head -> how often each unit is the first one.

    Raises:
        ModelError: the shape of an output depends on the values of the samples.
    """

    def __init__(
        self, model: Model, observed: Observed, samples: Samples, options: RunOptions
    ) -> None:
        self.observed = observed
        self._model, self._samples, self._options = model, samples, options
        self._kept: list[dict[str, Array]] | None = []
        self.counts = {each.name: np.zeros(each.head.units, np.int64) for each in observed.firsts}
        self.is_finite = True
        spreads = {name: _Spread() for name in observed.tensors}
        size = 0
        for values in self._values(model):
            self.is_finite &= _all_finite(values.values())
            for name, spread in spreads.items():
                spread.add(name, self._relative(name, np.asarray(values[name], np.float64)))
            for each in observed.firsts:
                found = each.of(values[each.tensor]).ravel()
                units = each.head.units
                found = found[(found >= 0) & (found < units)]
                self.counts[each.name] += np.bincount(found, minlength=units)
            size += sum(each.nbytes for each in values.values())
            if size > _KEPT_BYTES:
                self._kept = None
            elif self._kept is not None:
                self._kept.append(values)
        self._variances = {name: each.variance for name, each in spreads.items()}

    def _values(self, model: Model) -> Iterator[dict[str, Array]]:
        feeds = batches(self._samples, model.graph())
        return values_of(model, self.observed.all, feeds, self._options)

    def compare(self, model: Model) -> Difference:
        """Run another network on the same samples."""
        names = self.observed.tensors
        noise, signal, error, count = (dict.fromkeys(names, 0.0) for _ in range(4))
        shares: dict[str, list[Array]] = {each.name: [] for each in self.observed.firsts}
        is_finite, places = True, 1
        own = self._values(self._model) if self._kept is None else self._kept
        for known, values in zip(own, self._values(model), strict=True):
            is_finite &= _all_finite(values.values())
            for name in names:
                expected, actual = _same_shape(name, known[name], values[name])
                noise[name] += float(np.square(actual - expected).sum())
                signal[name] += float(np.square(expected).sum())
                error[name] += float(np.square(self._relative(name, actual - expected)).sum())
                count[name] += expected.size
            for each in self.observed.firsts:
                expected, actual = (each.of(n[each.tensor]) for n in (known, values))
                if expected.shape != actual.shape:
                    raise _varies(each.tensor)
                same = (expected == actual) & (actual >= 0)
                shares[each.name].append(same.mean(1))
                places = max(places, same.shape[1])
        errors = [error[n] / max(count[n], 1) / (self._variances[n] or 1.0) for n in names]
        return Difference(
            error=float(np.mean(errors or [0.0])) if is_finite else _NOT_FINITE,
            sqnr_db={name: _decibels(signal[name], noise[name]) for name in names},
            shares={name: np.concatenate(each) for name, each in shares.items()},
            places=places,
            is_finite=is_finite,
        )

    def _relative(self, name: str, values: Array) -> Array:
        """Values without what a softmax ignores: a number that is added to all units."""
        axis = self.observed.softmax.get(name)
        return values if axis is None else np.asarray(values - values.mean(axis, keepdims=True))


class _Spread:
    """The variance of a tensor over the samples, the mean of all its places."""

    def __init__(self) -> None:
        self._first: Array | None = None  # the values are summed as differences from it
        self._sums: Array | float = 0.0
        self._squares: Array | float = 0.0
        self._count = 0

    def add(self, name: str, values: Array) -> None:
        rows = np.atleast_1d(values)
        if self._first is None:
            self._first = rows[:1]
        if rows.shape[1:] != self._first.shape[1:]:
            raise _varies(name)
        moved = rows - self._first
        self._sums = self._sums + moved.sum(0)
        self._squares = self._squares + np.square(moved).sum(0)
        self._count += len(rows)

    @property
    def variance(self) -> float:
        count = max(self._count, 1)
        spread = np.asarray(self._squares) / count - np.square(np.asarray(self._sums) / count)
        return max(float(np.mean(spread)), 0.0) if spread.size else 0.0


def _all_finite(values: Iterable[Array]) -> bool:
    return all(np.isfinite(each).all() for each in values if each.dtype.kind == "f")


def _same_shape(name: str, expected: Array, actual: Array) -> tuple[Array, Array]:
    if expected.shape != actual.shape:
        raise _varies(name)
    return np.asarray(expected, np.float64), np.asarray(actual, np.float64)


def _decibels(signal: float, noise: float) -> float:
    if not np.isfinite(noise):
        return -np.inf
    if not noise:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal else -np.inf


def _varies(name: str) -> ModelError:
    return ModelError(
        f"the shape of {name!r} depends on the values of the samples, so that trimmed networks "
        "cannot be compared by it",
        "trim the part of the model before the selection of its results",
    )
