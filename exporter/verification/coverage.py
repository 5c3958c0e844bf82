"""Which features and units of a head the samples reach.

A weight is compared only if its feature is not zero in some sample, and an argmax only where its
unit comes first. Noise leaves 83 of the 256 features of a MobileNet V1 at zero, so that a third of
the head's weights could have any value. Such weights need the probe of `exporter.proof`, or other
inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import Linear
from exporter.records import Coverage
from exporter.trace.head import Head
from exporter.verification.roles import Answers


def features_of(head: Head) -> list[str]:
    """The computed tensors that the products of a head read."""
    found = (_read_by(node) for node in head.body if isinstance(node.operation, Linear))
    return list(dict.fromkeys(found))


def _read_by(node: Node) -> str:
    """The input of a product that is not its kernel."""
    operation = node.operation
    assert isinstance(operation, Linear)  # noqa: S101 - narrows the type
    return node.inputs[1 if operation.kernel == 0 else 0]


class Covered:
    """Counts the active features and the first units of a head.

    Args:
        head: of the original.
        kept: the units that are kept, in the original's indices.
        graph: of the original.
    """

    def __init__(self, head: Head, kept: Sequence[int], graph: Graph) -> None:
        self._head, self._kept, self._graph = head, kept, graph
        self._active: dict[str, Array] = {}
        self._first: set[int] = set()

    def add(self, answers: Answers) -> None:
        """Count one sample.

        Args:
            answers: the tensors of `features_of` and the logits. Shapes may differ from sample to
                sample, for example with the number of boxes.
        """
        for name, seen in _active(self._head, self._graph, answers):
            self._active[name] = self._active.get(name, False) | seen
        self._first |= _first_units(self._head, self._graph, answers)

    @property
    def coverage(self) -> Coverage:
        """Of all samples so far."""
        active = self._active.values()
        return Coverage(
            head=self._head.name,
            features=sum(map(len, active)),
            active_features=int(sum(each.sum() for each in active)),
            units=self._head.units,
            first_units=len(self._first),
            kept_units=len(self._kept),
            first_kept_units=len(self._first.intersection(self._kept)),
        )


def _active(head: Head, graph: Graph, answers: Answers) -> Iterator[tuple[str, Array]]:
    """For each tensor that a product reads, which of its features are not zero in one sample."""
    for node in head.body:
        operation = node.operation
        if not isinstance(operation, Linear):
            continue
        name, axis = _read_by(node), operation.output_axis
        values = graph.tensors[name].dequantize(answers[name])  # (batch, ...)
        if values.ndim != len(graph.shape(node.outputs[0])):  # the product flattens what it reads
            values, axis = values.reshape(len(values), -1), 1
        yield name, (values != 0).any(axis=tuple(i for i in range(values.ndim) if i != axis))


def _first_units(head: Head, graph: Graph, answers: Answers) -> set[int]:
    """The units that come first in one sample, at any place."""
    logits = graph.tensors[head.z].dequantize(answers[head.z])
    unit_axis = head.tensor(head.z).unit_axis
    positions = np.flatnonzero(unit_axis.units >= 0)
    of_units = np.take(logits, positions, axis=unit_axis.axis)
    if not of_units.size:
        return set()
    best = of_units.argmax(axis=unit_axis.axis)
    return set(unit_axis.units[positions][best].ravel().tolist())
