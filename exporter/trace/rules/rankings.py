"""Argmaxes, top-ks and maxima over the units: what depends on them, and the indices that they
return.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import (
    Activation,
    Elementwise,
    Gather,
    Linear,
    Reduce,
    Reshape,
    TopK,
    Transpose,
)
from exporter.graph.walk import computed_inputs, dependents, moves_one_input, upstream
from exporter.trace.readers import Content, Kind, Ranking
from exporter.trace.rules.protocol import Refused
from exporter.trace.rules.unit_indices import IndexWalk, is_look_up
from exporter.trace.unit_axis import UnitAxis, Width


def find_ranking(graph: Graph, node: Node, unit_axes: Mapping[str, UnitAxis]) -> Ranking:
    """Follow the results of a node that ranks units.

    Args:
        graph: contains the node.
        node: its operation is a TopK or a maximum along the unit axis of its first input.
        unit_axes: all tensors with a unit axis.

    Raises:
        Refused: something computes with the indices, or gives each unit ranked values; or the
            positions that are ranked are not the units in order; or a layer reads a maximum.
    """
    if isinstance(node.operation, Reduce):
        _check_maximum(graph, node, unit_axes)
        return Ranking(node, node.inputs[0], {}, (), None, (), {}, {})
    operation = _operation(node)
    units = unit_axes[node.inputs[0]].units
    count = int(units.max()) + 1
    out_of_order = Refused(node, "it ranks positions that are not the units in order")
    kind = _kind_of_ids(units, count)
    if kind is None:
        raise out_of_order
    is_flat = kind is not Kind.INDICES
    walk = IndexWalk(graph, count, unit_axes, copies=[node], ranked=units)
    ids = Content(kind)
    kinds = {node.outputs[operation.ids]: ids}
    walk.run({name: kinds.get(name, Content(Kind.OTHER)) for name in node.outputs if name})
    contents = walk.outputs()
    if shown := [name for name, each in contents.items() if each.kind in {Kind.FLAT, Kind.BLOCKS}]:
        raise Refused(node, f"{shown[0]!r} returns positions among all units, which a cut changes")
    rank_axes, fixed = _rank_axes(graph, node)
    copied = [name for name, each in walk.contents.items() if each.kind is not Kind.OTHER]
    return Ranking(
        node=node,
        source=node.inputs[0],
        contents=contents,
        tables=tuple(walk.tables),
        stated=None if is_flat else _stated(graph, node),
        copies=tuple(walk.copies),
        rank_axes=rank_axes,
        shapes={name: graph.shape(name) for name in (*rank_axes, *copied)},
        fixed=fixed,
        divisions=tuple(walk.divisions),
        counts=tuple(walk.counts),
        positions=frozenset(walk.positions()),
    )


def _kind_of_ids(units: Array, count: int) -> Kind | None:
    """What the index of a position is: of a unit; or in joined rows of units, or maps of each unit.

    None if the positions are not the units in order.
    """
    everything = np.arange(len(units))
    if np.array_equal(units, everything % count):
        return Kind.INDICES if count == len(units) else Kind.FLAT
    size, rest = divmod(len(units), count)
    in_blocks = not rest and np.array_equal(units, everything // size)
    return Kind.BLOCKS if in_blocks else None


def _check_maximum(graph: Graph, node: Node, unit_axes: Mapping[str, UnitAxis]) -> None:
    """Refuse a maximum that the network computes with: its results must be for the user."""
    computed = dependents(graph, node.outputs)
    if not computed.isdisjoint(unit_axes):
        raise Refused(node, "it gives each unit values of other units")
    for each in graph.nodes:
        if isinstance(each.operation, Linear) and not computed.isdisjoint(each.inputs):
            raise Refused(node, f"it mixes the units, and {each} reads the result")


def _rank_axes(graph: Graph, node: Node) -> tuple[dict[str, int], Node | None]:
    """Tensor -> its axis of ranks, and the first consumer that needs their number."""
    operation = _operation(node)
    if operation.k is None:
        return {}, None
    axes = {name: operation.axis for name in node.outputs if name}
    fixed: Node | None = None
    for consumer in graph.nodes:
        for name in axes.keys() & set(consumer.inputs):
            shape = graph.shape(name)
            keeps = isinstance(consumer.operation, Elementwise | Activation | Gather)
            if keeps and all(graph.shape(each) == shape for each in consumer.outputs):
                axes |= dict.fromkeys(consumer.outputs, axes[name])
            else:
                fixed = fixed or consumer
    return axes, fixed


def _stated(graph: Graph, node: Node) -> Width | None:
    """Where the file states how many units are returned."""
    operation = _operation(node)
    if operation.k is None:
        return None
    stated = (operation.k,)
    if operation.slot is None:
        return Width(node.name, operation.attribute or "", None, stated, None, node.outputs[0])
    constant = node.inputs[operation.slot]
    entry = 0 if graph.shape(constant) else None
    return Width(node.name, operation.slot, constant, stated, entry, node.outputs[0])


def top_k_of(graph: Graph, output: str) -> Node | None:
    """The TopK whose indices or values an output shows, if there is one."""
    node = ranking_of(graph, output)
    return node if node and isinstance(node.operation, TopK) else None


def ranking_of(graph: Graph, output: str) -> Node | None:
    """The TopK or the maximum whose results an output shows, if there is one."""

    def follow(node: Node) -> str | None:
        ranks = isinstance(node.operation, TopK | Reduce)
        shows = moves_one_input(graph, node, "cast") or is_look_up(graph, node)
        return computed_inputs(graph, node)[0] if shows and not ranks else None

    *_, (last, _) = ((None, 0), *upstream(graph.producers, output, follow))
    return last if last and isinstance(last.operation, TopK | Reduce) else None


def ranked_ids(
    ranking: Ranking,
    values: Array,
    *,
    names: Array | None = None,
    tables: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The indices that the model must return for these values of its source tensor.

    Args:
        ranking: of the model, before or after a cut.
        values: of the tensor `ranking.source`, as the model in question computes them.
        names: index -> the index that the model returns for it; None for the same.
        tables: name of a table in which indices are looked up -> its entry for each index.

    Returns:
        Output name -> int64 indices, or table entries.
    """
    operation = _operation(ranking.node)
    ids = _ranks(operation, np.asarray(values))
    found = {ranking.node.outputs[operation.ids]: ids if names is None else names[ids]}
    for node in ranking.copies[1:]:
        source = found[next(name for name in node.inputs if name in found)]
        (result,) = node.outputs
        match node.operation:
            case Reshape():
                shape = [-1 if n is None else n for n in ranking.shapes[result]]
                found[result] = source.reshape(shape)
            case Transpose(permutation=permutation):
                found[result] = source.transpose(permutation)
            case Gather():
                found[result] = (tables or {})[node.inputs[0]][source]
            case _:
                found[result] = source
    return {name: found[name] for name in (*ranking.outputs, *ranking.looked_up)}


def _ranks(operation: TopK, values: Array) -> Array:
    """The k indices along the axis, or all where there are fewer."""
    axis, width = operation.axis, values.shape[operation.axis]
    signed = values.astype(np.float64) * (-1.0 if operation.largest else 1.0)
    if operation.last:
        order = width - 1 - np.argsort(np.flip(signed, axis), axis=axis, kind="stable")
    else:
        order = np.argsort(signed, axis=axis, kind="stable")
    wanted = 1 if operation.k is None else min(operation.k, width)
    first = np.take(order, np.arange(wanted), axis=axis)
    return first if operation.keepdims else first.squeeze(axis)


def _operation(node: Node) -> TopK:
    assert isinstance(node.operation, TopK)  # noqa: S101 - narrows the type; the callers ensure it
    return node.operation
