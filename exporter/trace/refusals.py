"""Why an output has no head: what is told of it, and what to do."""

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
_ROWS = 3  # axes of what returns rows: batch, boxes, values
_ANSWERS = ("sigmoid", "softmax")  # what values of classes end in


@dataclass(frozen=True)
class Refusal:
    """Why an output has no head: the operation (None: the output itself) and the reason.

    Attributes:
        hint: what to do about it; "" where nothing more is known.
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


def which_helps(refusals: list[Refusal]) -> Refusal:
    """The reason that helps: an axis that runs along a linear operation's rows never had units.

    Among the others one that comes with a hint, or the last one's: channels stand last more often
    than not.
    """
    telling = [r for r in reversed(refusals[1:]) if r.reason != NOT_CHANNELS]
    return next((r for r in telling if r.hint), next(iter(telling), refusals[-1]))


def may_be_boxes(head: Head) -> bool:
    """Are a head's values four a row, and no labels or parts say that they are classes?"""
    rows = len(head.tensor(head.output).shape) >= _ROWS
    return (
        rows
        and head.units == _BOX
        and not (head.labels or head.axis_parts or head.readers.detections)
    )


def of_class_values(
    graph: Graph, refusal: Refusal, attempt: Callable[[str, int], object]
) -> Refusal:
    """What keeps the values of classes, out of which a post-process makes an output, from a cut.

    Args:
        refusal: what stands in the way from the output on.
        attempt: traces an axis of a tensor, or raises Refused.
    """
    for node in graph.nodes:
        match node.operation:
            case Opaque(reason=reason, hint=hint) if hint and refusal.output in dependents(
                graph, node.outputs
            ):
                return Refusal(refusal.output, str(node), reason, hint)
    for node in reversed(graph.nodes):
        behind = dependents(graph, node.outputs) if _answers(node) else set[str]()
        inner = refusal.output in behind and refusal.output not in node.outputs
        for error in _refused(graph, node, attempt) if inner else ():
            where = error.node or node
            if str(where) != refusal.operation and not behind.isdisjoint(where.outputs):
                reason = f"{error.reason} (of {node.outputs[0]!r}, out of which rows are made)"
                return Refusal(refusal.output, str(where), reason, error.hint or RAW)
    return refusal


def _answers(node: Node) -> bool:
    return isinstance(node.operation, Activation) and node.operation.function in _ANSWERS


def _refused(graph: Graph, node: Node, attempt: Callable[[str, int], object]) -> Iterator[Refused]:
    """What each axis of a node's result is refused for that may be one of classes, the last first:
    one of channels, or of a length that nobody knows.
    """
    tensor = node.outputs[0]
    shape = graph.shape(tensor)
    if graph.tensors[tensor].shape is None:
        yield Refused(node, "the shape of what it computes is not known before the model runs")
    competing = getattr(node.operation, "axis", None)
    for axis in reversed([axis for axis, n in enumerate(shape) if axis and n != 1]):
        if axis == competing or shape[axis] is None or are_channels(graph, tensor, axis):
            try:
                attempt(tensor, axis)
            except Refused as error:
                yield error
