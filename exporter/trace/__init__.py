"""Find the heads of a graph: follow a labelled unit axis from an output to the linear operations.

A *label* says, for each position on one axis of a tensor, which unit it belongs to. The walk starts
with the labels 0, 1, 2, ... on one axis of an output and asks, for every node that it meets from
either side, the rule of that node's operation: given the labels on one of your inputs or outputs,
what are the labels on the others? It ends where linear operations turn labels on their output into
labels on constants. An operation without a rule, or one that mixes units, refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph, Node
from exporter.head import Head, UnitAxis
from exporter.operations import Top
from exporter.rules import NOT_CHANNELS
from exporter.rules.ranking import ranked_behind
from exporter.rules.steps import Refused
from exporter.trace.assembly import head_of, labels_of, mixes
from exporter.trace.walk import Walk, shown


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
        replace(head, name=node.name, labels=head.labels or labels_of(graph, output, head.units))
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
    walk = Walk(graph)
    walk.label(output, UnitAxis(axis, np.arange(width, dtype=np.int64)), None)
    walk.run()
    return head_of(walk, output, axis, width)


def _trace_output(graph: Graph, output: str) -> tuple[list[Head], Refusal]:
    shape = graph.tensors[output].shape
    if shape is None:
        node, _ = graph.producers.get(output, (None, 0))
        made_by = str(node) if node else None
        return [], Refusal(output, made_by, "the shape of what it returns is not known")
    axes = [a for a, n in enumerate(shape) if n != 1 and (a > 0 or len(shape) == 1)]
    heads: list[Head] = []
    refusals = [Refusal(output, None, f"no axis of its shape {shown(shape)} is wider than 1")]
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
    competing = [head for head in heads if any(mixes(node, head) for node in head.tail)]
    heads = competing if len(competing) == 1 else heads
    if len(heads) == 1:
        return heads
    return [replace(head, name=f"{head.output}:{head.axis}") for head in heads]
