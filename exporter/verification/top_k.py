"""Outputs that show which units rank first, and their values: the values that a cut must return.

They are compared with the values that the pruned model itself ranks, and those are compared on
their own: values that differ by rounding may rank differently without an error.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import Reduce, Reshape, TopK, Transpose
from exporter.graph.walk import dependents, upstream
from exporter.remap.head_remap import HeadRemap, originals
from exporter.trace.head import Head
from exporter.trace.readers import Ranking
from exporter.trace.rules.rankings import ranked_ids, ranking_of
from exporter.verification.roles import Comparer, Comparison, Runs, as_numbers


class _RankingOutput(Comparer):
    """An output that is computed from the ranking of one tensor.

    Attributes:
        output: its name.
        source: the tensor of the pruned model that is ranked; None if it ranks none for the output.
    """

    def __init__(self, output: str, pruned: Graph) -> None:
        self.output = output
        node = ranking_of(pruned, output) if output in pruned.outputs else None
        self.source = node.inputs[0] if node else None

    def tensors(self) -> tuple[Iterable[str], Iterable[str]]:
        return (), (self.source,) if self.source else ()

    def compare(self, runs: Runs) -> Iterator[Comparison]:
        nothing = np.empty(0)  # has no expected shape: it fails
        expected = self.expected(runs.pruned[self.source]) if self.source else nothing
        actual = runs.pruned.get(self.output, nothing)
        if "O" in {expected.dtype.kind, actual.dtype.kind}:
            expected, actual = as_numbers(expected, actual)
        yield Comparison(self.output, expected, actual, 0, "ids")

    @abstractmethod
    def expected(self, values: Array) -> Array:
        """The output, (samples, ...), if these values, (samples, ...), are ranked."""


class EmittedIds(_RankingOutput):
    """The output with unit indices that a cut has added (`--emit ids`)."""

    def __init__(self, table: HeadRemap, pruned: Graph) -> None:
        """Read the output's name and count from a table with the option `emit`."""
        emit = table.options["emit"]
        super().__init__(str(emit["output"]), pruned)
        self._count, self._axis = emit["count"], table.axis
        self._originals = originals(table)

    def expected(self, values: Array) -> Array:
        axis = self._axis + 1
        order = np.argsort(-values.astype(np.float64), axis=axis, kind="stable")
        first = np.take(order, np.arange(self._count or 1), axis=axis)
        return self._originals[first.squeeze(axis) if self._count is None else first]


class RankedOutput(_RankingOutput):
    """An output of the original with indices or values of the units that rank first."""

    def __init__(
        self,
        ranking: Ranking,
        output: str,
        graphs: tuple[Graph, Graph],
        units: Sequence[int],
        restored: Array | None,
    ) -> None:
        """Find the tensor that is ranked (for the arguments see `ranked_outputs`)."""
        super().__init__(output, graphs[1])
        self._ranking, self._graph = ranking, graphs[0]
        self._units, self._restored = list(units), restored

    def expected(self, values: Array) -> Array:
        if self.output not in (*self._ranking.outputs, *self._ranking.looked_up):
            return np.stack([self._first_values(each) for each in values])
        tables = {table.name: self._table(table.name) for table in self._ranking.tables}
        restored = None if tables else self._restored
        found = (ranked_ids(self._ranking, each, names=restored, tables=tables) for each in values)
        return np.stack([each[self.output] for each in found])

    def _table(self, name: str) -> Array:
        """The entries of a lookup table of the original, for each position of the pruned model."""
        tensor = self._graph.tensors[name]
        assert tensor.read is not None  # noqa: S101 - narrows the type; a table is a constant
        return np.asarray(tensor.read())[self._units]

    def _first_values(self, values: Array) -> Array:
        """The first values in order, moved as the original moves them on the way to the output."""
        first: Array
        operation = self._ranking.node.operation
        if isinstance(operation, Reduce):
            first = np.max(values, axis=operation.axes, keepdims=operation.keepdims)
        else:
            assert isinstance(operation, TopK)  # noqa: S101 - narrows the type
            axis = operation.axis
            ascending = np.sort(values, axis=axis)
            ranked = np.flip(ascending, axis) if operation.largest else ascending
            count = min(operation.k or 1, values.shape[axis])
            first = np.take(ranked, np.arange(count), axis=axis)
        for node in self._moves():
            match node.operation:
                case Transpose(permutation=permutation):
                    first = first.transpose(permutation)
                case Reshape():
                    first = first.reshape([n or -1 for n in self._graph.shape(node.outputs[0])])
        return np.asarray(first)

    def _moves(self) -> list[Node]:
        """The nodes from the ranking to the output, in running order; they only move values."""
        last = self._ranking.node.name
        way = upstream(
            self._graph.producers,
            self.output,
            lambda node: None if node.name == last else node.inputs[0],
        )
        return [node for node, _ in way if node.name != last][::-1]


def ranked_outputs(
    head: Head,
    graphs: tuple[Graph, Graph],
    outputs: set[str],
    units: Sequence[int],
    restored: Array | None,
) -> Iterator[RankedOutput]:
    """Those of the outputs that show how the head's units rank, as the ranking returns it.

    Others are computed from its results, and have to be computed again (see `RerunOriginal`).

    Args:
        graphs: of the original and of the pruned model.
        outputs: of the original.
        units: of the original, one for each position of the pruned model; of a merged unit, its
            lowest member.
        restored: the index in the first original of each position, if the outputs return those;
            None if they return new indices.
    """
    for ranking in head.readers.rankings:
        for output in sorted(outputs & dependents(graphs[0], ranking.node.outputs)):
            if ranking_of(graphs[0], output) == ranking.node:
                yield RankedOutput(ranking, output, graphs, units, restored)
