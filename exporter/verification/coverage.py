"""Which features and units of a head the samples reach.

A weight is compared only if its feature is not zero in some sample, and an argmax only where its
unit comes first. Noise leaves 83 of the 256 features of a MobileNet V1 at zero, so that a third of
the head's weights could have any value. Such weights need the probe of `exporter.proof`, or other
inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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


def coverage_of(
    head: Head, kept: Sequence[int], graph: Graph, samples: Iterable[Answers]
) -> Coverage:
    """Count the active features and the first units of a head.

    Args:
        head: of the original.
        kept: the units that are kept, in the original's indices.
        graph: of the original.
        samples: of each, the tensors of `features_of` and the logits. Shapes may differ, for
            example with the number of boxes.
    """
    active: dict[str, Array] = {}
    first: set[int] = set()
    for answers in samples:
        for name, seen in _active(head, graph, answers):
            active[name] = active.get(name, False) | seen
        first |= _first_units(head, graph, answers)
    return Coverage(
        head=head.name,
        features=sum(map(len, active.values())),
        active_features=int(sum(each.sum() for each in active.values())),
        units=head.units,
        first_units=len(first),
        kept_units=len(kept),
        first_kept_units=len(first.intersection(kept)),
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
