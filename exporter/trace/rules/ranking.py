"""What ranks the units of a head, and what its ids become: found behind it, and computed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import (
    Activation,
    Concat,
    Elementwise,
    Expand,
    Gather,
    GatherComputed,
    GatherConstant,
    Reshape,
    Scatter,
    ShapeOf,
    Slice,
    TopK,
    Transpose,
)
from exporter.trace.head import Ranking, UnitAxis, UnitConstant, Width
from exporter.trace.rules.floor_division import is_idle, is_never, subtracted
from exporter.trace.rules.lookup_tables import is_look_up, table_of
from exporter.trace.rules.nms_offsets import parts_boxes
from exporter.trace.rules.protocol import Refused
from exporter.trace.rules.runtime_width import is_width


def find_ranking(graph: Graph, node: Node, labeled: Mapping[str, UnitAxis]) -> Ranking:
    """Follow the results of a node that ranks labeled units.

    Args:
        graph: holds the node.
        node: its operation is a TopK along the unit axis of its first input.
        labeled: all tensors that narrow with the units.

    Raises:
        Refused: something computes with the ids, or brings the ranked values back to the units; or
            the positions that are ranked are not the units one by one.
    """
    operation = _top(node)
    units = labeled[node.inputs[0]].units
    count = int(units.max()) + 1
    if not np.array_equal(units, np.arange(len(units)) % count):
        raise Refused(node, "it ranks positions that are not the units one by one")
    flow = _Flow(graph, labeled, count, in_line=count != len(units))
    flow.follow(node, operation)
    ids = flow.ids | flow.looked_up
    if flow.in_line and ids.intersection(graph.outputs):
        raise Refused(node, "it ranks positions that are not the units one by one")
    return Ranking(
        node=node,
        source=node.inputs[0],
        stated=None if flow.in_line else _stated(graph, node, operation),
        ids=tuple(each for each in graph.nodes if each.name in {h.name for h in flow.hands}),
        outputs=tuple(n for n in graph.outputs if n in flow.ids and not flow.in_line),
        carried=tuple(name for name in graph.outputs if name in flow.carried),
        lengths=flow.lengths,
        shapes={name: graph.shape(name) for name in (*flow.lengths, *sorted(ids))},
        fixed=flow.fixed,
        divided=tuple(flow.divided),
        counts=tuple(flow.counts),
        tables=tuple(flow.tables),
        looked_up=tuple(name for name in graph.outputs if name in flow.looked_up),
    )


def top_k_of(graph: Graph, output: str) -> Node | None:
    """The node whose ids or values an output shows, if there is one."""
    tensor = output
    while tensor in graph.producers:
        node, _ = graph.producers[tensor]
        if isinstance(node.operation, TopK):
            return node
        if not (hands_on(graph, node) or is_look_up(graph, node)):
            return None
        tensor = next(name for name in node.inputs if name and not graph.tensors[name].is_constant)
    return None


def ranked_ids(
    ranking: Ranking,
    values: Array,
    k: int | None = None,
    *,
    told: Array | None = None,
    tables: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The ids that the model must return for these values of its source tensor.

    Args:
        ranking: of the model, before or after a cut.
        values: of the tensor `ranking.source`, as the model in question computes them.
        k: how many it returns; None for as many as before, or all where there are fewer.
        told: id -> what the model calls it; None where it returns ids as they are.
        tables: name of a table in which it looks them up -> what stands there for each id.

    Returns:
        Output name -> int64 ids, or what was looked up for them.
    """
    operation = _top(ranking.node)
    ids = _ranks(operation, np.asarray(values), k)
    found = {ranking.node.outputs[operation.ids]: ids if told is None else told[ids]}
    for node in ranking.ids[1:]:
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


def _ranks(operation: TopK, values: Array, k: int | None) -> Array:
    axis, width = operation.axis, values.shape[operation.axis]
    signed = values.astype(np.float64) * (-1.0 if operation.largest else 1.0)
    if operation.last:
        order = width - 1 - np.argsort(np.flip(signed, axis), axis=axis, kind="stable")
    else:
        order = np.argsort(signed, axis=axis, kind="stable")
    wanted = 1 if operation.k is None else min(operation.k if k is None else k, width)
    first = np.take(order, np.arange(wanted), axis=axis)
    return first if operation.keepdims else first.squeeze(axis)


def _top(node: Node) -> TopK:
    assert isinstance(node.operation, TopK)  # noqa: S101 - narrows the type; callers see to it
    return node.operation


def _stated(graph: Graph, node: Node, operation: TopK) -> Width | None:
    """Where the file states how many it returns."""
    if operation.k is None:
        return None
    if operation.slot is None:
        place: str | int = operation.attribute or ""
        return Width(node.name, place, None, (operation.k,), None, node.outputs[0])
    constant = node.inputs[operation.slot]
    entry = 0 if graph.shape(constant) else None
    return Width(node.name, operation.slot, constant, (operation.k,), entry, node.outputs[0])


def hands_on(graph: Graph, node: Node) -> bool:
    """Does a node only move, copy or cast what it reads?"""
    match node.operation:
        case Reshape() | Transpose():
            return True
        case Elementwise(function="identity" | "cast"):
            computed = [n for n in node.inputs if n and not graph.tensors[n].is_constant]
            return len(computed) == 1
        case _:
            return False


def carries(node: Node, slot: int) -> bool:
    """Does a node only take some of the values of an input, or put others beside them?"""
    match node.operation:
        case Concat():
            return True
        case Expand() | Gather() | GatherComputed() | GatherConstant() | Slice():
            return slot == 0
        case Scatter():
            return slot == _PUT
        case _:
            return False


_PUT = 2  # the slot of what is put


def is_rest(node: Node) -> bool:
    """Does a node tell what is left over where it divides, or is divided?"""
    return isinstance(node.operation, Elementwise) and node.operation.function in {"mod", "sub"}


def _divides(node: Node) -> bool:
    return isinstance(node.operation, Elementwise) and node.operation.function in {"div", "mod"}


class _Flow:
    """All that depends on what a TopK returns."""

    def __init__(
        self, graph: Graph, labeled: Mapping[str, UnitAxis], units: int, *, in_line: bool
    ) -> None:
        """What ranks the units of several rows, all in one line, ranks no ids of units: they are
        what is left of its results when these are divided by the number of units.
        """
        self.graph = graph
        self.labeled = labeled
        self.units = units
        self.in_line = in_line
        self.divided: list[Node] = []
        self.counts: list[Width] = []
        self.tables: list[UnitConstant] = []
        self.looked_up = set[str]()
        self.hands: list[Node] = []
        self.ids = set[str]()
        self.carried = set[str]()
        self.lengths: dict[str, int] = {}
        self.fixed: Node | None = None
        self._met = set[str]()

    def follow(self, node: Node, operation: TopK) -> None:
        self.hands.append(node)
        self.ids.add(node.outputs[operation.ids])
        if operation.k is not None:
            self.lengths.update((name, operation.axis) for name in node.outputs if name)
        waiting = [name for name in node.outputs if name]
        while waiting:
            tensor = waiting.pop()
            for consumer, _ in self.graph.consumers.get(tensor, ()):
                waiting += self._pass(consumer, tensor)

    def _pass(self, node: Node, tensor: str) -> Iterator[str]:
        if any(name in self.labeled for name in node.outputs):
            raise Refused(node, "it brings values of other units to each unit")
        never = is_never(self.graph, node.outputs[0], self.ids) or is_idle(
            self.graph, node, self.ids
        )
        if not (self.in_line and never):
            self._note(node, tensor)
            new = [name for name in node.outputs if name and name not in self._met]
            self._met.update(new)
            yield from new

    def _note(self, node: Node, tensor: str) -> None:
        """What a node makes of a tensor with ids, or values, of what is ranked."""
        taken = subtracted(self.graph, node, self.ids)
        if tensor in self.looked_up:
            self._hand_on(node, self.looked_up)
        elif tensor in self.ids and self.in_line and _divides(node):
            self._restate(node, 1)
            self.divided.append(node)
            self.carried.update(node.outputs if is_rest(node) else ())
        elif tensor in self.ids and self.in_line and taken is not None:
            self._restate(*taken)
            self.divided.append(node)
            self.carried.update(node.outputs)
        elif tensor in self.ids and not self.in_line and is_look_up(self.graph, node):
            self.tables.append(table_of(self.graph, node, self.units))
            self.looked_up.update(node.outputs)
            self.hands.append(node)
        elif tensor in self.ids and hands_on(self.graph, node):
            self._hand_on(node, self.ids)
        elif tensor in self.ids or tensor in self.carried:
            if hands_on(self.graph, node) or carries(node, node.inputs.index(tensor)):
                self.carried.update(node.outputs)
            elif not (isinstance(node.operation, ShapeOf) or parts_boxes(self.graph, node)):
                raise Refused(node, "it computes with the ids of units, which a cut changes")
        if tensor in self.lengths:
            self._lengthen(node, tensor)

    def _hand_on(self, node: Node, found: set[str]) -> None:
        if not hands_on(self.graph, node):
            raise Refused(node, "it computes with what a table has for ids of units")
        found.update(node.outputs)
        self.hands.append(node)

    def _restate(self, node: Node, slot: int) -> None:
        """Divided by the number of units, stated or measured: what is left over is an id."""
        if is_width(self.graph, node.inputs[slot], self.labeled):
            return
        tensor = self.graph.tensors[node.inputs[slot]]
        values = None if tensor.read is None else np.ravel(tensor.read())
        if values is None or values.tolist() != [self.units]:
            raise Refused(node, "it divides the places of units by another number than theirs")
        entry = 0 if self.graph.shape(tensor.name) else None
        units = np.arange(self.units)
        single = next(n for n, each in self.labeled.items() if np.array_equal(each.units, units))
        self.counts.append(Width(node.name, slot, tensor.name, (self.units,), entry, single))

    def _lengthen(self, node: Node, tensor: str) -> None:
        axis, shape = self.lengths[tensor], self.graph.shape(tensor)
        same = isinstance(node.operation, Elementwise | Activation | Gather) and all(
            self.graph.shape(name) == shape for name in node.outputs
        )
        if same:
            self.lengths.update((name, axis) for name in node.outputs)
        else:
            self.fixed = self.fixed or node
