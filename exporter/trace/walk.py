"""The walk of a labeled unit axis through a graph: which rule is asked next, and what is noted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from exporter.graph import Graph, Node, Shape, Use
from exporter.graph.operations import Concat, Split
from exporter.trace.head import Junction, UnitAxis, UnitConstant, Width
from exporter.trace.rules import RULES
from exporter.trace.rules.protocol import (
    Detects,
    Fact,
    Fetches,
    Parts,
    Port,
    Ranks,
    Refused,
    States,
    UnitsAt,
    Visit,
)


@dataclass(eq=False)
class Walk:
    graph: Graph
    tensors: dict[str, UnitAxis] = field(default_factory=dict)
    constants: list[UnitConstant] = field(default_factory=list)
    widths: dict[tuple[str, str | int, int | None], Width] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    junctions: dict[str, Junction] = field(default_factory=dict)
    ranking: list[Node] = field(default_factory=list)
    detecting: list[Node] = field(default_factory=list)
    fetching: list[Node] = field(default_factory=list)
    peaks: list[Node] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    postponed: list[tuple[Node, Port, UnitAxis]] = field(default_factory=list)

    def run(self) -> None:
        while self.waiting or self.postponed:
            if not self.waiting:  # by now the other parts are labeled too
                self.visit(*self.postponed.pop(0))
                continue
            tensor = self.waiting.pop()
            if tensor not in self.graph.producers:
                raise Refused(None, f"the axis leads to the model's input {tensor!r}")
            node, index = self.graph.producers[tensor]
            self.meet(node, Port("output", index), self.tensors[tensor])
            for consumer, slot in self.graph.consumers.get(tensor, ()):
                self.meet(consumer, Port("input", slot), self.tensors[tensor])

    def meet(self, node: Node, port: Port, labels: UnitAxis) -> None:
        """A part says less than the whole, which another way may lead to."""
        part = Concat if port.side == "input" else Split
        if isinstance(node.operation, part):
            self.postponed.append((node, port, labels))
        else:
            self.visit(node, port, labels)

    def visit(self, node: Node, port: Port, labels: UnitAxis) -> None:
        self.nodes[node.name] = node
        rule = RULES.get(type(node.operation))
        if rule is None:
            reason = getattr(node.operation, "reason", "there is no rule for it")
            raise Refused(node, reason, getattr(node.operation, "hint", ""))
        for fact in rule(Visit(self.graph, node, port, labels, self.tensors)):
            self.note(fact, node)

    def note(self, fact: Fact, node: Node) -> None:
        match fact:
            case UnitsAt(port=Port(side=side, slot=slot)):
                ends = node.inputs if side == "input" else node.outputs
                self.mark(ends[slot], fact, node)
            case States(place=place, value=value, entry=entry):
                name = fact.node or node.name
                constant = self.input(name, place) if isinstance(place, int) else None
                of = node.outputs[fact.output] if fact.input is None else node.inputs[fact.input]
                self.widths[name, place, entry] = Width(
                    name, place, constant, value, entry, of, fact.offset
                )
            case Parts(whole=whole, stops=stops):
                self.junctions[node.name] = Junction(node, whole, stops)
            case Ranks():
                self.ranking.append(node)
            case Detects():
                self.detecting.append(node)
            case Fetches():
                self.fetching.append(node)
            case _:
                self.peaks.append(node)

    def input(self, node: str, slot: int) -> str:
        return next(each for each in self.graph.nodes if each.name == node).inputs[slot]

    def mark(self, tensor: str, fact: UnitsAt, node: Node) -> None:
        shape, axis, width = (
            self.graph.shape(tensor),
            fact.unit_axis.axis,
            len(fact.unit_axis.units),
        )
        if axis >= len(shape) or shape[axis] not in {width, None}:
            found = shown(shape)  # a damaged file, or one whose stated shapes are stale
            raise Refused(node, f"{tensor!r} has the shape {found}, not {width} on axis {axis}")
        if self.graph.tensors[tensor].is_constant:
            self.mark_constant(tensor, fact, Use(node.name, fact.port.slot))
        else:
            self.label(tensor, fact.unit_axis, node)

    def label(self, tensor: str, labels: UnitAxis, node: Node | None) -> None:
        known = self.tensors.get(tensor)
        if known is None:
            self.tensors[tensor] = labels
            self.waiting.append(tensor)
        elif not known.same(labels):
            raise Refused(node, f"two ways give the units of {tensor!r} different places")

    def mark_constant(self, name: str, fact: UnitsAt, use: Use) -> None:
        """Uses that agree share one entry, so that the constant is cut once for all of them."""
        for i, known in enumerate(self.constants):
            if known.name == name and use in known.uses:
                return
            if (
                known.name == name
                and known.unit_axis.same(fact.unit_axis)
                and known.zero == fact.zero
            ):
                uses = (*known.uses, use)
                self.constants[i] = replace(known, uses=uses)
                return
        tensor = self.graph.tensors[name]
        shape = tuple(n or 0 for n in tensor.shape or ())
        self.constants.append(
            UnitConstant(
                name, shape, tensor.dtype, fact.unit_axis, (use,), fact.zero, tensor.quantization
            )
        )


def shown(shape: Shape) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
