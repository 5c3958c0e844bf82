"""Rows that a model's own operators put together behind the values of its classes.

Nothing but the model says what such rows are: which columns they have, where boxes are dropped, how
many stay. So the original itself says it: a copy of it is given, in place of the class values that
it computes, those that the pruned model computes, which are compared on their own, and for removed
classes a value so low that nothing is ever chosen for it. What it then returns must be what the
pruned model returns: the same boxes with the same scores, under the classes' new numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from exporter.graph import Array, Graph
from exporter.graph.edits import AddInput, Edit, Insert
from exporter.graph.walk import ancestors
from exporter.trace.head import Head
from exporter.trace.rules.class_ids import Column

Answer = Mapping[str, Array]  # tensor -> (...) of one sample

LOWEST = -1e4  # 0 behind a sigmoid or softmax, below every threshold, and finite in float16
TIE = 1e-6  # of the larger one: how far values may be apart that count as equal


@dataclass(frozen=True, eq=False)
class Replay:
    """What the original makes of the values that the pruned model gives a head's classes.

    Attributes:
        name: of the head, by which reports call the rows.
        head: of the original.
        outputs: of the model, all behind the head's post-processes.
        sources: the labeled tensors in front of them.
        places: the units that have a place in the result, in the original's indices.
        numbers: number of such a class in the original -> its number in the result.
        columns: output -> where numbers of classes stand in it.
    """

    name: str
    head: Head
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    places: tuple[int, ...]
    numbers: Mapping[int, int]
    columns: Mapping[str, Column]

    def edits(self) -> tuple[Edit, ...]:
        """What makes the original take the sources' values from further inputs."""
        return tuple(edit for name in self.sources for edit in self._given(name))

    def _given(self, name: str) -> Iterator[Edit]:
        tensor = self.head.tensor(name)
        own = np.zeros((1,) * len(tensor.shape), bool)
        yield AddInput(input_of(name), tensor.shape, tensor.dtype)
        yield Insert("where", name, (own, input_of(name)))

    def feed(self, answer: Answer) -> dict[str, Array]:
        """What those inputs are given for one sample.

        Args:
            answer: of the pruned model; with the sources.
        """
        return {input_of(name): self._widened(name, answer[name]) for name in self.sources}

    def _widened(self, name: str, values: Array) -> Array:
        """Values at the old width; removed classes rank last."""
        tensor = self.head.tensor(name)
        labels = tensor.unit_axis
        lowest = LOWEST
        if tensor.quantization is not None:
            lowest = tensor.quantization.low
        shape = list(values.shape)
        shape[labels.axis] = len(labels.units)
        wide = np.full(shape, lowest, values.dtype)
        where: list[slice | Array] = [slice(None)] * len(shape)
        where[labels.axis] = labels.positions(self.places)
        wide[tuple(where)] = values
        return wide

    def differing(self, expected: Iterable[Answer], actual: Iterable[Answer]) -> tuple[int, int]:
        """How many rows are lost, and how many are foreign, over all samples.

        Args:
            expected: of the original, with what `feed` gave.
            actual: of the pruned model.
        """
        lost = foreign = 0
        for left, right in zip(expected, actual, strict=True):
            wanted, given = self._rows(left), self._rows(right)
            stay = np.isin(wanted.numbers, list(self.numbers)).all(axis=1)
            stay &= ~wanted.fills
            missing, more = unmatched(self._renumbered(wanted)[stay], given.values[~given.fills])
            if len(wanted.values) == len(given.values):
                missing += self._differ_beside(left, right, len(wanted.values))
            lost, foreign = lost + missing, foreign + more
        return lost, foreign

    def _rows(self, answer: Answer) -> _Rows:
        """One sample's: what each output holds of them, one beside the other."""
        parts, places = list[Array](), list[int]()
        count = self._count(answer)
        for name in self._in_rows(answer, count):
            part = np.array(answer[name], np.float64).reshape(count, -1)
            if name in self.columns:
                column = self.columns[name]
                places.append(sum(part.shape[1] for part in parts) + column.place)
                part[:, column.place] -= column.more
            parts.append(part)
        values = np.concatenate(parts, axis=1) if parts else np.empty((0, 0))
        return _Rows(values, tuple(places))

    def _in_rows(self, answer: Answer, count: int) -> list[str]:
        sizes = {name: answer[name].size for name in self.outputs}
        return [name for name, size in sizes.items() if size and not size % max(1, count)]

    def _count(self, answer: Answer) -> int:
        """How many rows there are."""
        first = self.outputs[0]
        last = answer[first].shape[-1] if answer[first].ndim else 1
        name, column = next(iter(self.columns.items()), (first, Column(0, last)))
        return int(answer[name].size) // column.width

    def _renumbered(self, rows: _Rows) -> Array:
        """The rows under the new numbers; those of removed classes are not asked for."""
        known = {float(before): after for before, after in self.numbers.items()}
        result = rows.values.copy()
        for place in rows.places:
            result[:, place] = [known.get(number, -1) for number in result[:, place].tolist()]
        return result

    def _differ_beside(self, left: Answer, right: Answer, count: int) -> int:
        """How many outputs that hold no rows, such as their number, are not the same."""
        beside = set(self.outputs).difference(self._in_rows(left, count))
        return sum(not np.array_equal(left[name], right[name]) for name in beside)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one sample, and the columns in which numbers of classes stand."""

    values: Array  # (rows, columns)
    places: tuple[int, ...]

    @property
    def numbers(self) -> Array:
        return np.asarray(self.values[:, list(self.places)])

    @property
    def fills(self) -> Array:
        """Which rows fill room that nothing was found for: zeros, or a removed class's value."""
        rest = np.delete(self.values, list(self.places), axis=1)
        return np.asarray((rest == 0).all(axis=1) | (rest <= LOWEST / 2).any(axis=1))


def input_of(tensor: str) -> str:
    """The name of the input that stands in for a tensor."""
    return f"{tensor}__given"


def unmatched(expected: Array, actual: Array) -> tuple[int, int]:
    """How many rows of the one are not in the other, and the other way round."""
    if expected.shape[1:] != actual.shape[1:]:
        return len(expected), len(actual)
    if len(expected) == len(actual) and _same(expected, actual).all():
        return 0, 0
    free = np.ones(len(actual), bool)
    lost = 0
    for row in expected:
        fits = free & _same(actual, row)
        lost += not fits.any()
        free[np.flatnonzero(fits)[:1]] = False
    return lost, int(free.sum())


def _same(rows: Array, others: Array) -> Array:
    """Row by row."""
    size = np.maximum(1.0, np.maximum(np.abs(rows), np.abs(others)))
    return np.asarray((np.abs(rows - others) <= TIE * size).all(axis=-1))


def sources_of(graph: Graph, head: Head, outputs: Iterable[str]) -> tuple[str, ...]:
    """The labeled tensors from which on outputs are no more the units one by one; of several that
    lie behind each other the first.
    """
    labeled = {tensor.name for tensor in head.tensors}
    wanted = ancestors(graph, outputs)
    found = [
        tensor.name
        for tensor in head.tensors
        for node, _ in graph.consumers.get(tensor.name, ())
        if not labeled.intersection(node.outputs) and wanted.intersection(node.outputs)
    ]
    unique = tuple(dict.fromkeys(found))
    return tuple(each for each in unique if not ancestors(graph, [each]) & (set(unique) - {each}))
