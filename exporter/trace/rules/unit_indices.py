"""The walk over the consumers of unit indices: finds tensors with indices that a cut changes.

A ranking (TopK over the units) or the post-process of a detector returns unit indices. The walk
visits all nodes that depend on them, in the order in which they run. INDEX_RULES lists the rules of
each operation. The walk tries them in turn; a rule returns the content of the node's results, or
None if it does not apply. If no rule applies, the node computes with indices, and is refused.

The two sources of indices differ:

1. Verification computes the indices of a ranking again. So a table may be indexed only with all
   indices of a ranking, in their original order (`Content.exact`).
2. A constant may be added to the class indices of a post-process, to count a background class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.graph import Array, Graph, Node, Use
from exporter.graph.operations import (
    Concat,
    Elementwise,
    Expand,
    Gather,
    GatherComputed,
    GatherConstant,
    NonMaxSuppression,
    Operation,
    Reshape,
    Scatter,
    ShapeOf,
    Slice,
    Transpose,
)
from exporter.graph.walk import applies, dependents, moves_one_input
from exporter.trace.readers import Content, Kind
from exporter.trace.rules.floor_division import is_always_zero, is_unused, remainder
from exporter.trace.rules.index_columns import move_column
from exporter.trace.rules.protocol import RAW, Refused
from exporter.trace.rules.runtime_width import is_width
from exporter.trace.unit_axis import UnitAxis, UnitConstant, Width

_OTHER = Content(Kind.OTHER)
_POSITIONS = {Kind.FLAT, Kind.BLOCKS}


@dataclass(eq=False)
class IndexWalk:
    """One walk, and its results.

    Attributes:
        units: the number of units.
        unit_axes: tensor -> its unit axis.
        is_detector: the indices come from a post-process, not from a ranking.
        adds_offset: a constant may be added to the indices.
        ranked: the units of the positions that are ranked.
        contents: tensor that depends on the indices -> its content.
        copies: nodes that move all indices without a change of their order, or look them up.
        tables: constants in which indices are looked up.
        divisions, counts: see `Ranking`.
    """

    graph: Graph
    units: int
    unit_axes: Mapping[str, UnitAxis]
    is_detector: bool = False
    adds_offset: bool = False
    ranked: Array = field(default_factory=lambda: np.empty(0, np.int64))
    contents: dict[str, Content] = field(default_factory=dict)
    copies: list[Node] = field(default_factory=list)
    tables: list[UnitConstant] = field(default_factory=list)
    divisions: list[Node] = field(default_factory=list)
    counts: list[Width] = field(default_factory=list)

    def run(self, contents: Mapping[str, Content]) -> None:
        """Visit all nodes that depend on these tensors (raises Refused)."""
        self.contents.update(contents)
        for node in self.graph.nodes:
            for slot, name in enumerate(node.inputs):
                if name in self.contents and not self._is_correction(node):
                    self._record(node, self._result(node, slot, self.contents[name]))

    def outputs(self) -> dict[str, Content]:
        """The outputs of the model that contain indices, or table entries for them."""
        contents = {n: self.contents[n] for n in self.graph.outputs if n in self.contents}
        return {name: each for name, each in contents.items() if each.kind is not Kind.OTHER}

    def _is_correction(self, node: Node) -> bool:
        """Does a node correct the sign of a floor division? No position is negative: it adds 0."""
        flat = self.positions()
        return bool(flat) and (
            is_always_zero(self.graph, node.outputs[0], flat) or is_unused(self.graph, node, flat)
        )

    def positions(self) -> set[str]:
        """The tensors with positions among all that are ranked."""
        return {name for name, each in self.contents.items() if each.kind in _POSITIONS}

    def _record(self, node: Node, content: Content) -> None:
        for name in node.outputs:
            if name and (content.kind is not Kind.OTHER or name not in self.contents):
                self.contents[name] = content

    def _result(self, node: Node, slot: int, content: Content) -> Content:
        if not self.is_detector and not self.unit_axes.keys().isdisjoint(node.outputs):
            raise Refused(node, "it gives each unit values of other units")
        if content.kind is Kind.OTHER:
            return _OTHER
        for rule in INDEX_RULES.get(type(node.operation), ()):
            result = rule(self, node, slot, content)
            if result is not None:
                return result
        if content.kind is Kind.ENTRIES and not self.is_detector:
            raise Refused(node, "it computes with values that a table contains for unit indices")
        if content.kind is not Kind.ENTRIES and not self._is_harmless(node):
            name, hint = ("class", RAW) if self.is_detector else ("unit", "")
            raise Refused(node, f"it computes with {name} indices, which a cut changes", hint)
        return _OTHER

    def _is_harmless(self, node: Node) -> bool:
        return isinstance(node.operation, ShapeOf) or separates_boxes(self.graph, node)

    @property
    def _is_in_blocks(self) -> bool:
        return any(each.kind is Kind.BLOCKS for each in self.contents.values())

    def moved(self, node: Node, slot: int, content: Content) -> Content:
        """The content of the result of a node that moves values of one input."""
        column = move_column(self.graph, node, slot, content.column)
        return _OTHER if column is None else replace(content, column=column)

    def check_divisor(self, node: Node, slot: int) -> None:
        """Refuse a division by a number other than the number of units, or the size of a map.

        The model measures that number at run time, or a constant contains it.
        """
        tensor = self.graph.tensors[node.inputs[slot]]
        value = [] if tensor.read is None else np.ravel(tensor.read()).tolist()
        if self._is_in_blocks:
            if value != [len(self.ranked) // self.units]:
                reason = "it divides positions by a number other than the size of a class map"
                raise Refused(node, reason)
            return
        if is_width(self.graph, tensor.name, self.unit_axes):
            return
        if value != [self.units]:
            reason = "it divides positions by a number other than the number of units"
            raise Refused(node, reason)
        entry = 0 if self.graph.shape(tensor.name) else None
        units = np.arange(self.units)
        source = next(n for n, a in self.unit_axes.items() if np.array_equal(a.units, units))
        self.counts.append(Width(node.name, slot, tensor.name, (self.units,), entry, source))


def separates_boxes(graph: Graph, node: Node) -> bool:
    """Are all results of a node used only as box coordinates that a post-process compares?

    To suppress boxes of all classes together, a model moves each box by its class index, times a
    factor that is larger than any box. Boxes of different classes then never overlap. Changed
    indices have the same effect.
    """

    def is_suppression(consumer: Node, slot: int) -> bool:
        operation = consumer.operation
        return isinstance(operation, NonMaxSuppression) and slot == operation.boxes

    computed = dependents(graph, node.outputs, lambda *use: not is_suppression(*use))
    uses = (use for name in computed for use in graph.consumers.get(name, ()))
    return computed.isdisjoint(graph.outputs) and any(is_suppression(*use) for use in uses)


def added_constant(graph: Graph, node: Node) -> int | None:
    """The integer that a node adds to its other input; None if it does something else."""
    if not applies(node, "add", "sub") or len(node.inputs) != 2:  # noqa: PLR2004 - operands
        return None
    first, second = (_integer(graph, name) for name in node.inputs)
    if applies(node, "sub"):
        return -second if first is None and second is not None else None
    return (first if second is None else second) if None in {first, second} else None


def _integer(graph: Graph, name: str) -> int | None:
    read = graph.tensors[name].read
    value = np.ravel(read()) if read is not None else np.empty(0)
    return int(value[0]) if value.size == 1 and value[0] == np.rint(value[0]) else None


def is_look_up(graph: Graph, node: Node, slot: int = 1) -> bool:
    """Does a node use the values of an input as row indices of a constant?"""
    operation = node.operation
    is_index = isinstance(operation, Gather) and operation.axis == 0 and slot == 1
    return is_index and graph.tensors[node.inputs[0]].is_constant


def _table(walk: IndexWalk, node: Node, offset: int) -> UnitConstant:
    """The constant in which a node looks up indices; its row `offset` is the entry of unit 0."""
    tensor = walk.graph.tensors[node.inputs[0]]
    shape = tuple(n or 0 for n in tensor.shape or ())
    if offset < 0 or shape[0] < offset + walk.units:
        raise Refused(node, f"its table has no entry for some of the {walk.units} classes")
    rows = np.arange(shape[0], dtype=np.int64) - offset
    unit_axis = UnitAxis(0, np.where((rows >= 0) & (rows < walk.units), rows, -1))
    return UnitConstant(tensor.name, shape, tensor.dtype, unit_axis, (Use(node.name, 0),), None)


# --- the rules ----------------------------------------------------------------------------------


def _move(walk: IndexWalk, node: Node, slot: int, content: Content) -> Content | None:
    """The node moves, copies or casts all values."""
    if not moves_one_input(walk.graph, node, "cast"):
        return None
    if content.exact:
        walk.copies.append(node)
    return walk.moved(node, slot, content)


def _mix_from(*slots: int) -> IndexRule:
    """The node selects some values of the inputs at these slots (of all inputs if none are given),
    or puts other values next to them.
    """

    def mix(walk: IndexWalk, node: Node, slot: int, content: Content) -> Content | None:
        if (slots and slot not in slots) or (content.kind is Kind.ENTRIES and not walk.is_detector):
            return None
        if content.kind in _POSITIONS:  # selected ones are positions too; next to others, unknown
            return replace(content, exact=False) if slots else None
        return replace(walk.moved(node, slot, content), exact=False)

    return mix


def _look_up(walk: IndexWalk, node: Node, slot: int, content: Content) -> Content | None:
    """The node looks up each index in a table, which is cut with the units."""
    allowed = content.kind is Kind.INDICES and (content.exact or walk.is_detector)
    if not allowed or not is_look_up(walk.graph, node, slot):
        return None
    walk.tables.append(_table(walk, node, content.column.offset))
    walk.copies.append(node)
    return Content(Kind.ENTRIES)


def _add(walk: IndexWalk, node: Node, _: int, content: Content) -> Content | None:
    """The node adds a constant to each index, for example to count a background class."""
    allowed = walk.adds_offset or (walk.is_detector and content.kind is Kind.ENTRIES)
    added = added_constant(walk.graph, node)
    if not allowed or added is None or not content.column.is_whole:
        return None
    column = content.column._replace(offset=content.column.offset + added)
    return replace(content, column=column)


def _gather_units(walk: IndexWalk, node: Node, slot: int, content: Content) -> Content | None:
    """The node gathers by index from a tensor of units, which is cut: the new indices fit it."""
    is_index = content.kind is Kind.INDICES and not content.column.offset
    applies_here = walk.is_detector and is_index and slot == 1 and node.inputs[0] in walk.unit_axes
    return _OTHER if applies_here else None


def _divide(walk: IndexWalk, node: Node, _: int, content: Content) -> Content | None:
    """The node divides positions: in joined rows of units by the number of units, so that the
    remainder is a unit index; or in joined maps by their size, so that the quotient is.
    """
    if content.kind not in _POSITIONS or not applies(node, "div", "mod"):
        return None
    walk.check_divisor(node, 1)
    walk.divisions.append(node)
    if not applies(node, "mod" if content.kind is Kind.FLAT else "div"):
        return _OTHER
    if content.kind is Kind.BLOCKS and not _is_rounded(walk.graph, node):
        raise Refused(node, "its result is a class index and a fraction, which nothing rounds")
    return Content(Kind.INDICES, exact=False)


def _is_rounded(graph: Graph, node: Node) -> bool:
    """Does a division return integers, or do only conversions to integers read its result?"""
    (result,) = node.outputs
    readers = [reader for reader, _ in graph.consumers.get(result, ())]
    is_read = bool(readers) and result not in graph.outputs
    only_converted = is_read and all(applies(reader, "cast") for reader in readers)
    return _is_whole(graph, result) or (
        only_converted and all(_is_whole(graph, reader.outputs[0]) for reader in readers)
    )


def _is_whole(graph: Graph, tensor: str) -> bool:
    return graph.tensors[tensor].dtype.startswith(("int", "uint"))


def _subtract(walk: IndexWalk, node: Node, _: int, content: Content) -> Content | None:
    """The node computes the same remainder as a - a // b * b."""
    is_position = content.kind in _POSITIONS
    product = remainder(walk.graph, node, walk.positions()) if is_position else None
    if product is None:
        return None
    walk.check_divisor(*product)
    walk.divisions.append(node)
    return Content(Kind.INDICES, exact=False) if content.kind is Kind.FLAT else _OTHER


def _gather_ranked(walk: IndexWalk, node: Node, slot: int, content: Content) -> Content | None:
    """The node gathers by position from a tensor that is cut in the same way as the ranked one."""
    axis = walk.unit_axes.get(node.inputs[0])
    alike = axis is not None and np.array_equal(axis.units, walk.ranked)
    return _OTHER if alike and slot == 1 and content.kind in _POSITIONS else None


IndexRule = Callable[[IndexWalk, Node, int, Content], Content | None]

_UPDATES = 2  # slot of the values that Scatter writes into its first input

INDEX_RULES: Mapping[type[Operation], tuple[IndexRule, ...]] = {
    Reshape: (_move,),
    Transpose: (_move,),
    Elementwise: (_divide, _subtract, _add, _move),
    Gather: (_look_up, _mix_from(0)),
    GatherComputed: (_gather_units, _gather_ranked, _mix_from(0)),
    GatherConstant: (_mix_from(0),),
    Slice: (_mix_from(0),),
    Expand: (_mix_from(0),),
    Concat: (_mix_from(),),
    Scatter: (_mix_from(_UPDATES),),
}
