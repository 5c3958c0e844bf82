"""Why an output has no head, and what the user can do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from exporter.graph import Graph, Node
from exporter.graph.operations import Activation, Opaque
from exporter.graph.walk import dependents
from exporter.trace.axis_parts import are_channels
from exporter.trace.head import Head
from exporter.trace.rules import NOT_CHANNELS
from exporter.trace.rules.protocol import RAW, Refused

_BOX = 4  # coordinates
_ROWS = 3  # axes of a tensor with rows: batch, boxes, values
_CLASS_ACTIVATIONS = ("sigmoid", "softmax")


@dataclass(frozen=True)
class Refusal:
    """Why an output has no head.

    Attributes:
        operation: the node that refuses; None where the output itself is the reason.
        hint: what to do about it; "" if unknown.
    """

    output: str
    operation: str | None
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.operation}: " if self.operation else ""
        return f"output {self.output!r}: {where}{self.reason}"


def refusal_of(output: str, error: Refused) -> Refusal:
    return Refusal(output, str(error.node) if error.node else None, error.reason, error.hint)


def with_outputs_to_drop(graph: Graph, output: str, error: Refused) -> Refused:
    """The refusal, with a hint if its operation computes other outputs, and not this one.

    For example the largest probability, or the entropy, next to the probabilities.
    """
    after = dependents(graph, error.node.outputs) if error.node else set[str]()
    others = [name for name in graph.outputs if name in after]
    if not others or output in after or output not in graph.outputs:
        return error
    flags = " ".join(f"--drop-output {name}" for name in others)
    return Refused(error.node, error.reason, f"{flags} removes what cannot follow the cut")


def most_helpful(refusals: list[Refusal]) -> Refusal:
    """One refusal of several axes of an output: one with a hint, otherwise of the last axis.

    An axis that no linear operation has as its channels never had units, and is not reported if
    there is another.
    """
    relevant = [r for r in reversed(refusals[1:]) if r.reason != NOT_CHANNELS]
    return next((r for r in relevant if r.hint), next(iter(relevant), refusals[-1]))


def may_be_boxes(head: Head) -> bool:
    """Has each row four values, which no labels or parts show to be classes?"""
    rows = len(head.tensor(head.output).shape) >= _ROWS
    known = head.labels or head.axis_parts or head.readers.detections
    return rows and head.units == _BOX and not known


def refusal_of_class_values(
    graph: Graph, refusal: Refusal, attempt: Callable[[str, int], object]
) -> Refusal:
    """Why the class values from which a post-process computes an output cannot be cut.

    Args:
        graph: contains the output.
        refusal: of the output itself; returned where the class values are not found.
        attempt: traces an axis of a tensor, or raises Refused.
    """
    output = refusal.output
    for node in graph.nodes:
        opaque = node.operation if isinstance(node.operation, Opaque) else Opaque()
        if opaque.hint and output in dependents(graph, node.outputs):
            return Refusal(output, str(node), opaque.reason, opaque.hint)
    for node in reversed(graph.nodes):
        computed = dependents(graph, node.outputs) if _gives_classes(node) else set[str]()
        if output not in computed or output in node.outputs:
            continue
        for error in _refused_axes(graph, node, attempt):
            where = error.node or node
            if str(where) != refusal.operation and not computed.isdisjoint(where.outputs):
                reason = f"{error.reason} (of {node.outputs[0]!r}, from which rows are computed)"
                return Refusal(output, str(where), reason, error.hint or RAW)
    return refusal


def _gives_classes(node: Node) -> bool:
    return isinstance(node.operation, Activation) and node.operation.function in _CLASS_ACTIVATIONS


def _refused_axes(
    graph: Graph, node: Node, attempt: Callable[[str, int], object]
) -> Iterator[Refused]:
    """The refusals of all axes of a node's result that may be the class axis, the last axis first.

    An axis may be if its length is unknown, the activation is over it, or it is of channels.
    """
    tensor = node.outputs[0]
    shape = graph.shape(tensor)
    if graph.tensors[tensor].shape is None:
        yield Refused(node, "the shape of its result is not known before the model runs")
    activated = getattr(node.operation, "axis", None)
    for axis in reversed([axis for axis, n in enumerate(shape) if axis and n != 1]):
        if axis == activated or shape[axis] is None or are_channels(graph, tensor, axis):
            try:
                attempt(tensor, axis)
            except Refused as error:
                yield error
