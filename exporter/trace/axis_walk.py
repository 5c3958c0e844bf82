"""The walk of a unit axis through a graph: it applies the rules, and notes the facts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from exporter.graph import Graph, Node, Shape, Use
from exporter.graph.operations import Concat, Slice, Split
from exporter.trace.rules import RULES
from exporter.trace.rules.protocol import FIRST_INPUT, Fact, Port, Reading, Refused, UnitsAt, Visit
from exporter.trace.unit_axis import Junction, UnitAxis, UnitConstant, UnitTensor, Width


@dataclass(eq=False)
class AxisWalk:
    """One walk, and its results.

    Attributes:
        units: how many units the first tensor has.
        tensors: computed tensor -> its unit axis.
        widths: keyed by node, place and entry.
        nodes: the visited nodes by name.
        junctions: by name of their node.
        readers: the nodes that read the units, in the order of the walk.
    """

    graph: Graph
    units: int = 0
    tensors: dict[str, UnitAxis] = field(default_factory=dict)
    constants: list[UnitConstant] = field(default_factory=list)
    widths: dict[tuple[str, str | int, int | None], Width] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    junctions: dict[str, Junction] = field(default_factory=dict)
    readers: dict[Reading, list[Node]] = field(default_factory=lambda: {r: [] for r in Reading})
    _waiting: list[str] = field(default_factory=list)
    _postponed: list[tuple[Node, Port, UnitAxis]] = field(default_factory=list)

    def run(
        self,
        tensor: str,
        unit_axis: UnitAxis,
        lookups: Iterable[Node] = (),
        *,
        backward: bool = True,
    ) -> None:
        """Visit every node that the units of a tensor lead to (raises Refused).

        Args:
            tensor: the walk starts there.
            unit_axis: of the tensor.
            lookups: nodes with a Gather from tables whose rows are the units too.
            backward: visit the node that computes the tensor too, not only what reads it.
        """
        first = tensor
        self.units = int(unit_axis.units.max()) + 1
        self._note_tensor(tensor, unit_axis, None)
        for node in lookups:
            axis: int = getattr(node.operation, "axis", 0)
            self._visit(node, FIRST_INPUT, UnitAxis(axis, np.arange(self.units)))
        while self._waiting or self._postponed:
            if not self._waiting:
                self._visit(*self._postponed.pop(0))
                continue
            tensor = self._waiting.pop()
            if tensor not in self.graph.producers:
                raise Refused(None, f"the axis leads to the model's input {tensor!r}")
            node, slot = self.graph.producers[tensor]
            if backward or tensor != first:
                self._meet(node, Port("output", slot), self.tensors[tensor])
            for consumer, slot in self.graph.consumers.get(tensor, ()):
                self._meet(consumer, Port("input", slot), self.tensors[tensor])

    @cached_property
    def unit_tensors(self) -> tuple[UnitTensor, ...]:
        """The computed tensors with a unit axis, after the walk."""
        found = ((self.graph.tensors[name], axis) for name, axis in self.tensors.items())
        return tuple(
            UnitTensor(each.name, each.shape or (), each.dtype, axis, each.quantization)
            for each, axis in found
        )

    def _meet(self, node: Node, port: Port, unit_axis: UnitAxis) -> None:
        """Postpone a visit from a part: the units of the other parts may become known first."""
        kinds = Concat if port.side == "input" else Split | Slice
        if isinstance(node.operation, kinds):
            self._postponed.append((node, port, unit_axis))
        else:
            self._visit(node, port, unit_axis)

    def _visit(self, node: Node, port: Port, unit_axis: UnitAxis) -> None:
        self.nodes[node.name] = node
        rule = RULES.get(type(node.operation))
        if rule is None:
            reason = getattr(node.operation, "reason", "there is no rule for it")
            raise Refused(node, reason, getattr(node.operation, "hint", ""))
        visit = Visit(self.graph, node, port, unit_axis, self.tensors)
        for fact in rule(visit, node.operation):
            self._note(fact, node)

    def _note(self, fact: Fact, node: Node) -> None:
        match fact:
            case UnitsAt():
                self._note_units(fact, node)
            case Width():
                self.widths[fact.node, fact.place, fact.entry] = fact
            case Junction():
                self.junctions[node.name] = fact
            case _:
                self.readers[fact].append(node)

    def _note_units(self, fact: UnitsAt, node: Node) -> None:
        side, slot = fact.port
        tensor = (node.inputs if side == "input" else node.outputs)[slot]
        shape, axis, width = (
            self.graph.shape(tensor),
            fact.unit_axis.axis,
            len(fact.unit_axis.units),
        )
        if axis >= len(shape) or shape[axis] not in {width, None}:
            # the file is damaged, or the shapes that it states are not those of its values
            reason = f"{tensor!r} has the shape {format_shape(shape)}, not {width} on axis {axis}"
            raise Refused(node, reason)
        if self.graph.tensors[tensor].is_constant:
            self._note_constant(tensor, fact, Use(node.name, slot))
        else:
            self._note_tensor(tensor, fact.unit_axis, node)

    def _note_tensor(self, tensor: str, unit_axis: UnitAxis, node: Node | None) -> None:
        known = self.tensors.get(tensor)
        if known is None:
            self.tensors[tensor] = unit_axis
            self._waiting.append(tensor)
        elif not known.same(unit_axis):
            raise Refused(node, f"two paths give the units of {tensor!r} different positions")

    def _note_constant(self, name: str, fact: UnitsAt, use: Use) -> None:
        """Uses with the same unit axis share one entry, so that the constant is cut once."""
        for i, known in enumerate(self.constants):
            is_seen = known.name == name and use in known.uses
            if is_seen and known.unit_axis.axis == fact.unit_axis.axis:
                return  # a kernel may have the same units on two axes: y = x + conv(x)
            alike = known.name == name and known.zero == fact.zero
            if alike and known.unit_axis.same(fact.unit_axis):
                self.constants[i] = replace(known, uses=(*known.uses, use))
                return
        tensor = self.graph.tensors[name]
        shape = tuple(n or 0 for n in tensor.shape or ())
        axis, zero = fact.unit_axis, fact.zero
        self.constants.append(
            UnitConstant(name, shape, tensor.dtype, axis, (use,), zero, tensor.quantization)
        )


def format_shape(shape: Shape) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
