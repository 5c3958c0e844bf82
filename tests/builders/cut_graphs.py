"""Apply a plan to a neutral graph and check a slice in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from exporter.graph import Array, Graph
from exporter.graph.edits import Edit, Fill, Replace, SetAttribute, SetShape, Take
from exporter.modes import MODES
from exporter.trace.head import Head
from tests.builders.graphs import run

# --- slice and zero, in NumPy --------------------------------------------------------------------


def apply(graph: Graph, edits: Sequence[Edit]) -> Graph:
    """Apply the edits to a neutral graph, as each format applies them to its files."""
    tensors = dict(graph.tensors)
    for edit in edits:
        match edit:
            case Take() | Fill():
                values = _edited(tensors[edit.constant].read, edit)
                tensors[edit.constant] = replace(
                    tensors[edit.constant], shape=values.shape, read=partial(np.array, values)
                )
            case SetShape():
                tensors[edit.tensor] = replace(tensors[edit.tensor], shape=edit.shape)
            case SetAttribute() | Replace():
                continue  # the shapes of the neutral graph contain the change
            case _:
                raise AssertionError(edit)
    return replace(graph, tensors=tensors)


def _edited(read: Callable[[], Array] | None, edit: Take | Fill) -> Array:
    assert read is not None
    if isinstance(edit, Take):
        return np.take(read(), edit.positions, axis=edit.axis)
    values = np.moveaxis(np.array(read()), edit.axis, 0)
    values[edit.positions] = edit.value
    return np.moveaxis(values, 0, edit.axis)


def feeds(graph: Graph, seed: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    shapes = {name: graph.shape(name) for name in graph.inputs}
    return {
        name: random.normal(size=[2 if n is None else n for n in s]) for name, s in shapes.items()
    }


def check_slice(graph: Graph, head: Head, kept: list[int], seed: int = 0) -> None:
    values = feeds(graph, seed)
    before = run(graph, values)
    after = run(apply(graph, MODES["slice"].edits(head, kept)), values)
    expected = np.take(before[head.z], kept, axis=head.tensor(head.z).unit_axis.axis)
    np.testing.assert_allclose(after[head.z], expected, rtol=1e-12)
    oracle = MODES["slice"].oracle(head, kept, before[head.z])
    np.testing.assert_allclose(oracle.z, after[head.z], rtol=1e-12)
    np.testing.assert_allclose(oracle.y, after[head.output], rtol=1e-9, atol=1e-12)
