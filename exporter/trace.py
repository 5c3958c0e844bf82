"""Find the heads of a graph: follow a labelled unit axis from an output to the linear operations.

A *label* says, for each position on one axis of a tensor, which unit it belongs to. The walk starts
with the labels 0, 1, 2, ... on one axis of an output and asks, for every node that it meets from
either side, the rule of that node's operation: given the labels on one of your inputs or outputs,
what are the labels on the others? It ends where linear operations turn labels on their output into
labels on constants. An operation without a rule, or one that mixes units, refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from exporter.activations import ACTIVATIONS
from exporter.errors import ModelError, UsageError
from exporter.graph import Graph, Node, Shape, Use
from exporter.head import Head, Junction, LabelledConstant, LabelledTensor, UnitAxis, Width
from exporter.operations import (
    Activation,
    Concat,
    Elementwise,
    Linear,
    Reduce,
    Reshape,
    Split,
    Top,
    Transpose,
)
from exporter.rules import NOT_CHANNELS, RULES
from exporter.rules.ranking import find_ranking, ranked_behind
from exporter.rules.steps import Fact, Labelled, Parts, Port, Refused, States, Step


@dataclass(frozen=True)
class Refusal:
    """Why an output has no head: the operation (None: the output itself) and the reason."""

    output: str
    operation: str | None
    reason: str

    def __str__(self) -> str:
        where = f"{self.operation}: " if self.operation else ""
        return f"output {self.output!r}: {where}{self.reason}"


@dataclass(frozen=True)
class Trace:
    """All heads of a graph, in the order of its outputs, and the outputs that have none."""

    heads: tuple[Head, ...]
    refusals: tuple[Refusal, ...]

    def head(self, name: str | None = None) -> Head:
        """The head of that name; without a name the only one, or the first of several that are one.

        Outputs that show the same units (logits and probabilities) count as one head here.

        Raises:
            ModelError: no output has a head; the message names each refusing operation.
            UsageError: several heads and no name, or no head of that name.
        """
        if not self.heads:
            others = len(self.refusals) - 1
            more = f" (and {others} more outputs are refused)" if others > 0 else ""
            raise ModelError(
                f"no head can be cut: {self.refusals[0]}{more}",
                "`exporter inspect MODEL` shows what was tried",
            )
        known = ", ".join(repr(head.name) for head in self.heads)
        first = self.heads[0]
        apart = [head for head in self.heads[1:] if head.output not in first.other_outputs]
        if name is None and not apart:
            return first
        for head in self.heads:
            if head.name == name:
                return head
        if name is None:
            raise UsageError(f"the model has several heads: {known}", "choose one with --head NAME")
        refused = [str(refusal) for refusal in self.refusals if refusal.output == name]
        raise UsageError(refused[0] if refused else f"no head is named {name!r}", f"heads: {known}")


def trace(graph: Graph) -> Trace:
    """Find the head of every output, trying each of its axes as the unit axis."""
    heads: list[Head] = []
    refusals: dict[str, Refusal] = {}
    for output in graph.outputs:
        found, refused = _trace_output(graph, output)
        heads += found
        if not found:
            refusals[output] = refused
    for output in list(refusals):
        node = ranked_behind(graph, output)
        if node is not None:
            del refusals[output]
            if not any(_shows(head, node.inputs[0]) for head in heads):
                refusals |= _trace_ranked(graph, output, node, heads)
    return Trace(tuple(heads), tuple(refusals[o] for o in graph.outputs if o in refusals))


def _trace_ranked(graph: Graph, output: str, node: Node, heads: list[Head]) -> dict[str, Refusal]:
    """The head of an output that shows ids alone: its units are those that the node ranks."""
    operation = node.operation
    assert isinstance(operation, Top)  # noqa: S101 - narrows the type; `ranked_behind` sees to it
    try:
        head = trace_axis(graph, node.inputs[0], operation.axis)
    except Refused as error:
        where = str(error.node) if error.node else None
        return {output: Refusal(output, where, error.reason)}
    heads.append(
        replace(head, name=node.name, labels=head.labels or _labels(graph, output, head.units))
    )
    return {}


def _shows(head: Head, tensor: str) -> bool:
    return any(labelled.name == tensor for labelled in head.tensors)


def trace_axis(graph: Graph, output: str, axis: int) -> Head:
    """The head whose units lie along this axis of this output.

    Raises:
        Refused: there is none; says which operation does not let the axis pass, and why.
    """
    shape = graph.shape(output)
    width = shape[axis] if axis < len(shape) else None
    if width is None:
        raise Refused(None, f"the width of axis {axis} is not known before the model runs")
    walk = _Walk(graph)
    walk.label(output, UnitAxis(axis, np.arange(width, dtype=np.int64)), None)
    walk.run()
    return _head(walk, output, axis, width)


def _trace_output(graph: Graph, output: str) -> tuple[list[Head], Refusal]:
    shape = graph.tensors[output].shape
    if shape is None:
        node, _ = graph.producers.get(output, (None, 0))
        made_by = str(node) if node else None
        return [], Refusal(output, made_by, "the shape of what it returns is not known")
    axes = [a for a, n in enumerate(shape) if n != 1 and (a > 0 or len(shape) == 1)]
    heads: list[Head] = []
    refusals = [Refusal(output, None, f"no axis of its shape {_shown(shape)} is wider than 1")]
    for axis in axes:
        try:
            heads.append(trace_axis(graph, output, axis))
        except Refused as error:
            refusals.append(Refusal(output, str(error.node) if error.node else None, error.reason))
    return _told_apart(heads), _telling(refusals)


def _telling(refusals: list[Refusal]) -> Refusal:
    """The reason that helps: an axis that runs along a linear operation's rows never had units.

    Among the others the last one's: channels stand last more often than not.
    """
    return next((r for r in reversed(refusals[1:]) if r.reason != NOT_CHANNELS), refusals[-1])


def _told_apart(heads: list[Head]) -> list[Head]:
    """One output's heads: the one whose units compete, if there is one; else each with its axis.

    Channels that are reshaped to anchors x classes have two axes that end in the same kernel; a
    softmax says which of them the classes are.
    """
    competing = [head for head in heads if any(_mixes(node, head) for node in head.tail)]
    heads = competing if len(competing) == 1 else heads
    if len(heads) == 1:
        return heads
    return [replace(head, name=f"{head.output}:{head.axis}") for head in heads]


def _shown(shape: Shape) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"


@dataclass(eq=False)
class _Walk:
    graph: Graph
    tensors: dict[str, UnitAxis] = field(default_factory=dict)
    constants: list[LabelledConstant] = field(default_factory=list)
    widths: dict[tuple[str, str | int, int | None], Width] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    junctions: dict[str, Junction] = field(default_factory=dict)
    ranking: list[Node] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    postponed: list[tuple[Node, Port, UnitAxis]] = field(default_factory=list)

    def run(self) -> None:
        while self.waiting or self.postponed:
            if not self.waiting:  # by now the other parts are labelled too
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
            raise Refused(node, getattr(node.operation, "reason", "there is no rule for it"))
        for fact in rule(Step(self.graph, node, port, labels, self.tensors)):
            self.note(fact, node)

    def note(self, fact: Fact, node: Node) -> None:
        match fact:
            case Labelled(port=Port(side=side, slot=slot)):
                ends = node.inputs if side == "input" else node.outputs
                self.mark(ends[slot], fact, node)
            case States(place=place, value=value, entry=entry):
                name = fact.node or node.name
                constant = self.input(name, place) if isinstance(place, int) else None
                self.widths[name, place, entry] = Width(
                    name, place, constant, value, entry, node.outputs[fact.output], fact.offset
                )
            case Parts(whole=whole, stops=stops):
                self.junctions[node.name] = Junction(node, whole, stops)
            case _:
                self.ranking.append(node)

    def input(self, node: str, slot: int) -> str:
        return next(each for each in self.graph.nodes if each.name == node).inputs[slot]

    def mark(self, tensor: str, fact: Labelled, node: Node) -> None:
        shape, axis, width = self.graph.shape(tensor), fact.labels.axis, len(fact.labels.units)
        if axis >= len(shape) or shape[axis] not in {width, None}:
            found = _shown(shape)  # a damaged file, or one whose stated shapes are stale
            raise Refused(node, f"{tensor!r} has the shape {found}, not {width} on axis {axis}")
        if self.graph.tensors[tensor].is_constant:
            self.mark_constant(tensor, fact, Use(node.name, fact.port.slot))
        else:
            self.label(tensor, fact.labels, node)

    def label(self, tensor: str, labels: UnitAxis, node: Node | None) -> None:
        known = self.tensors.get(tensor)
        if known is None:
            self.tensors[tensor] = labels
            self.waiting.append(tensor)
        elif not known.same(labels):
            raise Refused(node, f"two ways give the units of {tensor!r} different places")

    def mark_constant(self, name: str, fact: Labelled, use: Use) -> None:
        """Uses that agree share one entry, so that the constant is cut once for all of them."""
        for i, known in enumerate(self.constants):
            if known.name == name and use in known.uses:
                return
            if known.name == name and known.labels.same(fact.labels) and known.zero == fact.zero:
                uses = (*known.uses, use)
                self.constants[i] = LabelledConstant(
                    name, known.shape, known.dtype, known.labels, uses, known.zero
                )
                return
        tensor = self.graph.tensors[name]
        shape = tuple(n or 0 for n in tensor.shape or ())
        self.constants.append(
            LabelledConstant(name, shape, tensor.dtype, fact.labels, (use,), fact.zero)
        )


def _head(walk: _Walk, output: str, axis: int, units: int) -> Head:
    graph = walk.graph
    order = [node for node in graph.nodes if node.name in walk.nodes]
    if not any(isinstance(node.operation, Linear) for node in order):
        raise Refused(None, "no linear operation makes it")
    tail, activation, z = _tail(graph, output)
    body = _made_by(walk, z, order)
    head = Head(
        name=output,
        output=output,
        axis=axis,
        units=units,
        activation=activation,
        z=z,
        tensors=tuple(
            LabelledTensor(name, graph.shape(name), labels, graph.tensors[name].quantization)
            for name, labels in walk.tensors.items()
        ),
        constants=tuple(walk.constants),
        widths=tuple(walk.widths.values()),
        body=body,
        tail=tail,
        other_outputs=tuple(o for o in graph.outputs if o in walk.tensors and o != output),
        labels=_labels(graph, output, units),
        junctions=tuple(walk.junctions.values()),
        rankings=tuple(find_ranking(graph, node, walk.tensors) for node in walk.ranking),
    )
    for node in body:
        if _mixes(node, head):
            raise Refused(node, "it mixes the units before the last activation")
    return head


def _labels(graph: Graph, output: str, units: int) -> tuple[str, ...] | None:
    """The labels that the file has for an output, if they are those of this axis."""
    labels = graph.labels.get(output)
    return labels if labels is not None and len(labels) == units else None


def _tail(graph: Graph, output: str) -> tuple[tuple[Node, ...], str, str]:
    """The nodes from z to the output, the activation's name, and z."""
    nodes: list[Node] = []
    tensor = output
    while True:
        node, _ = graph.producers[tensor]
        if not _in_tail(graph, node):
            return (), "linear", output
        nodes.insert(0, node)
        tensor = node.inputs[0]
        if isinstance(node.operation, Activation):
            return tuple(nodes), node.operation.function, tensor


def _made_by(walk: _Walk, z: str, order: list[Node]) -> tuple[Node, ...]:
    """The labelled nodes that z depends on; what else reads a labelled tensor is left out."""
    needed, waiting = set[str](), [z]
    while waiting:
        node, _ = walk.graph.producers[waiting.pop()]
        if node.name not in needed:
            needed.add(node.name)
            waiting += [name for name in node.inputs if name in walk.tensors]
    return tuple(node for node in order if node.name in needed)


def _in_tail(graph: Graph, node: Node) -> bool:
    match node.operation:
        case Activation() | Reshape() | Transpose() | Reduce():
            return True
        case Elementwise(
            function="identity" | "quantize" | "dequantize"
        ):  # one computed input: nothing is joined here
            return (
                sum(1 for name in node.inputs if name and not graph.tensors[name].is_constant) == 1
            )
        case _:
            return False


def _mixes(node: Node, head: Head) -> bool:
    """Does the node make every unit's value depend on the others?"""
    operation = node.operation
    return (
        isinstance(operation, Activation)
        and ACTIVATIONS[operation.function].mixes
        and operation.axis == head.tensor(node.outputs[0]).labels.axis
    )
