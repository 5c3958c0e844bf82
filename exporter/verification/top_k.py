"""Outputs that show which units rank first, and their values: what they must hold after a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array, Graph, Node
from exporter.graph.operations import Reshape, TopK, Transpose
from exporter.graph.walk import dependents, upstream
from exporter.remap.head_remap import HeadRemap, originals
from exporter.trace.head import Head, Ranking
from exporter.trace.rules.ranking import ranked_ids, top_k_of

Answers = Mapping[str, Array]  # tensor -> (samples, ...)


@dataclass(frozen=True, eq=False)
class Names:
    """What stands for the ids that the pruned model's positions give.

    Attributes:
        places: the unit of the original that each position shows; of a group its lowest member.
        restored: the first original's id, where the outputs speak those; None where they do not.
    """

    places: tuple[int, ...]
    restored: Array | None


class EmittedIds:
    """The output with ids that a cut has added, which the original does not have.

    Attributes:
        output: its name.
        source: the tensor of the pruned model whose units are ranked.
    """

    def __init__(self, table: HeadRemap, graph: Graph) -> None:
        """Read from the table what was asked for.

        Args:
            table: its option `emit` is set.
            graph: of the pruned model.
        """
        emit = table.options["emit"]
        self.output = str(emit["output"])
        self._count, self._axis = emit["count"], table.axis
        self._originals = originals(table)
        node = top_k_of(graph, self.output) if self.output in graph.outputs else None
        self.source = node.inputs[0] if node else None
        self._graph = graph

    def expected(self, right: Answers) -> Array:
        """(samples, ...) ids of the first original; nothing if the model ranks nothing there.

        They are held against the values that are ranked, and these are compared themselves.
        """
        if self.source is None:
            return np.empty(0)
        axis = self._axis + 1
        order = np.argsort(-right[self.source].astype(np.float64), axis=axis, kind="stable")
        first = np.take(order, np.arange(self._count or 1), axis=axis)
        return self._originals[first.squeeze(axis) if self._count is None else first]


class RankedOutput:
    """One output that shows ids or values of the units that rank first.

    It is held against the values that the pruned model ranks, which are compared themselves: values
    that differ by rounding may rank differently, and rightly so.

    Attributes:
        output: its name in both models.
        source: the tensor of the pruned model whose units are ranked; None where nothing is ranked.
    """

    def __init__(
        self, ranking: Ranking, output: str, graphs: tuple[Graph, Graph], names: Names
    ) -> None:
        """Find what is ranked.

        Args:
            ranking: of the original.
            output: shows ids of the ranking, or values.
            graphs: of the original, and of what became of it.
            names: what ids of the pruned model are called.
        """
        self.output = output
        self._names = names
        self._ranking = ranking
        self._graph = graphs[0]
        node = top_k_of(graphs[1], output) if output in graphs[1].outputs else None
        self.source = node.inputs[0] if node else None

    def expected(self, right: Answers) -> Array:
        """(samples, ...) ids, or values as the runtime gives them; nothing if it ranks nothing."""
        if self.source is None:
            return np.empty(0)
        sources = right[self.source]
        if self.output in (*self._ranking.outputs, *self._ranking.looked_up):
            tables = {table.name: self._looked_up(table.name) for table in self._ranking.tables}
            told = None if tables else self._names.restored
            found = (ranked_ids(self._ranking, z, told=told, tables=tables) for z in sources)
            return np.stack([each[self.output] for each in found])
        return np.stack([self._values(each) for each in sources])

    def _looked_up(self, table: str) -> Array:
        """What the original's table has for each unit that has a place."""
        tensor = self._graph.tensors[table]
        assert tensor.read is not None  # noqa: S101 - narrows the type; a table is a constant
        return np.asarray(tensor.read())[list(self._names.places)]

    def _values(self, source: Array) -> Array:
        """The first values in order, on the way that the original's take."""
        operation = self._ranking.node.operation
        assert isinstance(operation, TopK)  # noqa: S101 - narrows the type; a ranking has one
        ascending = np.sort(source, axis=operation.axis)
        ranked = np.flip(ascending, operation.axis) if operation.largest else ascending
        count = min(operation.k or 1, source.shape[operation.axis])
        values = np.take(ranked, np.arange(count), axis=operation.axis)
        for node in self._way():
            match node.operation:
                case Transpose(permutation=permutation):
                    values = values.transpose(permutation)
                case Reshape():
                    values = values.reshape([n or -1 for n in self._graph.shape(node.outputs[0])])
        return values

    def _way(self) -> list[Node]:
        """The nodes from the ranking to the output, in running order; they only move values."""
        last = self._ranking.node.name
        way = upstream(
            self._graph.producers,
            self.output,
            lambda node: None if node.name == last else node.inputs[0],
        )
        return [node for node, _ in way if node.name != last][::-1]


def ranked_outputs(
    head: Head, graphs: tuple[Graph, Graph], outputs: set[str], names: Names
) -> Iterator[RankedOutput]:
    """Those of the outputs that show what the head's units rank like.

    Args:
        graphs: of the original, and of what became of it.
        outputs: of the original.
        names: what ids of the pruned model are called.

    Raises:
        ModelError: something computes with the ranked values on their way to an output.
    """
    for ranking in head.readers.rankings:
        for output in sorted(outputs & dependents(graphs[0], ranking.node.outputs)):
            if top_k_of(graphs[0], output) != ranking.node:
                raise ModelError(
                    f"output {output!r} is computed from what {ranking.node} returns, and nothing "
                    "says what it must be after a cut",
                    "leave out the check",
                )
            yield RankedOutput(ranking, output, graphs, names)
