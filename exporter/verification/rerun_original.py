"""Rows that a model's own operators compute from the scores of its classes.

Only the model defines such rows: their columns, which boxes are dropped, how many are returned. So
the original itself computes what they must be. A copy of it reads the class scores of the pruned
model, which are compared on their own, in place of its own scores; removed classes get a score so
low that they are never chosen. The copy must then return the rows of the pruned model: the same
boxes with the same scores, and the classes' new indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.graph import Array, Graph
from exporter.graph.edits import AddInput, Edit, Insert, Plan
from exporter.graph.walk import ancestors
from exporter.trace.head import Head
from exporter.trace.readers import Column
from exporter.verification.roles import Answers, Comparer, Runs, WrongRows

LOWEST = -1e4  # 0 after a sigmoid or softmax, below every threshold, and finite in float16
TIE = 1e-6  # relative to the larger value: values at most this far apart are equal


@dataclass(frozen=True, eq=False)
class RerunOriginal(Comparer):
    """Compares rows with those that the original computes from the pruned model's scores.

    Attributes:
        name: of the head; reports call the rows by it.
        head: of the original.
        outputs: of the model; all depend on the head's post-processing.
        sources: the tensors with class scores that this post-processing reads.
        present: the units that have a position in the pruned model, in the original's indices.
        new_index: class index in the original -> in the pruned model, for these units.
        columns: output -> where it contains class indices.
        ordered: the rows are in a fixed order, such as steps of a text; not those of a detector.
    """

    name: str
    head: Head
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    present: tuple[int, ...]
    new_index: Mapping[int, int]
    columns: Mapping[str, Column]
    ordered: bool = False

    def tensors(self) -> tuple[Iterable[str], Iterable[str]]:
        return (), self.sources

    def compare(self, runs: Runs) -> Iterator[WrongRows]:
        """Lost rows, and rows that the rerun does not return."""
        answers = runs.pruned_samples
        if not set(answers[0]).issuperset((*self.sources, *self.outputs)):
            yield WrongRows(self.name, "rows", None)
            return
        lost = foreign = 0
        reruns = runs.rerun(self.plan, map(self.feed, answers))
        for expected, actual in zip(reruns, answers, strict=True):
            more = self._differences(expected, actual)
            lost, foreign = lost + more[0], foreign + more[1]
        yield WrongRows(self.name, "rows", lost)
        yield WrongRows(self.name, "classes", foreign)

    @cached_property
    def plan(self) -> Plan:
        """The original reads the sources from further inputs."""
        return Plan(tuple(edit for name in self.sources for edit in self._edits(name)))

    def _edits(self, name: str) -> tuple[Edit, ...]:
        """Replace a tensor of the original by a further input."""
        tensor = self.head.tensor(name)
        never = np.zeros((1,) * len(tensor.shape), bool)
        given = _input_name(name)
        return (
            AddInput(given, tensor.shape, tensor.dtype),
            Insert("where", name, (never, given)),
        )

    def feed(self, answer: Answers) -> dict[str, Array]:
        """The values of the further inputs in one sample, from the pruned model's answer."""
        return {_input_name(name): self._widen(name, answer[name]) for name in self.sources}

    def _widen(self, name: str, values: Array) -> Array:
        """The values at the original width; removed classes rank last."""
        tensor = self.head.tensor(name)
        axis, known = tensor.unit_axis, tensor.quantization
        shape = list(values.shape)
        shape[axis.axis] = len(axis.units)
        wide = np.full(shape, LOWEST if known is None else known.low, values.dtype)
        where: list[slice | Array] = [slice(None)] * len(shape)
        where[axis.axis] = axis.positions(self.present)
        wide[tuple(where)] = values
        return wide

    def _differences(self, expected: Answers, actual: Answers) -> tuple[int, int]:
        """How many rows of one sample are lost, and how many the rerun does not return."""
        wanted, found = self._rows(expected), self._rows(actual)
        known = np.isin(wanted.class_indices, list(self.new_index)).all(axis=1)
        rows = self._with_new_indices(wanted)[known & ~wanted.empty]
        if self.ordered:
            lost, foreign = _apart(self._with_new_indices(wanted), found.values), 0
        else:
            lost, foreign = unmatched(rows, found.values[~found.empty])
        count = len(wanted.values)
        if count == len(found.values):
            others = set(self.outputs).difference(self._row_outputs(expected, count))
            lost += sum(not np.array_equal(expected[name], actual[name]) for name in others)
        return lost, foreign

    def _rows(self, answer: Answers) -> _Rows:
        """The rows of one sample: the columns of all outputs that have one entry for each row."""
        parts, columns = list[Array](), list[int]()
        count = self._count(answer)
        for name in self._row_outputs(answer, count):
            part = np.array(answer[name], np.float64).reshape(count, -1)
            if name in self.columns:
                column = self.columns[name]
                columns.append(sum(part.shape[1] for part in parts) + column.position)
                part[:, column.position] -= column.offset
            parts.append(part)
        values = np.concatenate(parts, axis=1) if parts else np.empty((0, 0))
        return _Rows(values, columns)

    def _row_outputs(self, answer: Answers, count: int) -> list[str]:
        """The outputs with rows; others, such as the number of rows, have no entry for each."""
        sizes = {name: answer[name].size for name in self.outputs}
        return [name for name, size in sizes.items() if size and not size % max(1, count)]

    def _count(self, answer: Answers) -> int:
        """How many rows there are."""
        first = self.outputs[0]
        last = answer[first].shape[-1] if answer[first].ndim else 1
        name, column = next(iter(self.columns.items()), (first, Column(0, last)))
        return int(answer[name].size) // column.width

    def _with_new_indices(self, rows: _Rows) -> Array:
        """The rows with new class indices; rows of removed classes get any."""
        known = {float(before): after for before, after in self.new_index.items()}
        result = rows.values.copy()
        for column in rows.columns:
            result[:, column] = [known.get(index, -1) for index in result[:, column].tolist()]
        return result


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of one sample, and the columns with class indices."""

    values: Array  # (rows, columns)
    columns: list[int]

    @property
    def class_indices(self) -> Array:
        return np.asarray(self.values[:, self.columns])

    @property
    def empty(self) -> Array:
        """Which rows are padding: all zeros, or with the score of a removed class."""
        rest = np.delete(self.values, self.columns, axis=1)
        return np.asarray((rest == 0).all(axis=1) | (rest <= LOWEST / 2).any(axis=1))


def _input_name(tensor: str) -> str:
    """The name of the input that replaces a tensor."""
    return f"{tensor}__given"


def _apart(expected: Array, actual: Array) -> int:
    """How many rows differ from the row at the same place."""
    if expected.shape != actual.shape:
        return len(expected)
    return int(np.count_nonzero(~_same(expected, actual)))


def unmatched(expected: Array, actual: Array) -> tuple[int, int]:
    """How many expected rows are not among the actual ones, and the other way round."""
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
    """Which rows are equal."""
    size = np.maximum(1.0, np.maximum(np.abs(rows), np.abs(others)))
    return np.asarray((np.abs(rows - others) <= TIE * size).all(axis=-1))


def sources_of(graph: Graph, head: Head, outputs: Iterable[str]) -> tuple[str, ...]:
    """The last tensors on the way to these outputs that still have one position for each unit.

    If one of them is computed from another, the first.
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
