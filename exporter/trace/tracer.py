"""Find the heads of a graph: follow a labeled unit axis from an output to the linear operations.

A *label* says, for each position on one axis of a tensor, which unit it belongs to. The walk starts
with the labels 0, 1, 2, ... on one axis of an output and asks, for every node that it meets from
either side, the rule of that node's operation: given the labels on one of your inputs or outputs,
what are the labels on the others? It ends where linear operations turn labels on their output into
labels on constants. An operation without a rule, or one that mixes units, refuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph
from exporter.trace.axis_parts import Undecided, parts_of, stated_parts
from exporter.trace.build_head import head_of, labels_of, mixes
from exporter.trace.head import Head, UnitAxis
from exporter.trace.hidden_heads import Source, source_of
from exporter.trace.prototype_masks import mask_maps
from exporter.trace.refusals import Refusal, may_be_boxes, of_class_values, refusal_of, which_helps
from exporter.trace.rules.protocol import RAW, Refused
from exporter.trace.rules.ranking import top_k_of
from exporter.trace.walk import Walk, shown


@dataclass(frozen=True)
class Trace:
    """All heads of a graph, in the order of its outputs, and the outputs that have none.

    Attributes:
        masks: names of the heads that are left aside where none is named; see `mask_maps`.
    """

    heads: tuple[Head, ...]
    refusals: tuple[Refusal, ...]
    masks: tuple[str, ...] = ()

    def head(self, name: str | None = None) -> Head:
        """The head of that name; without a name the only one, or the first of several that are one.

        Outputs that show the same units (logits and probabilities) count as one head here; maps out
        of which a detector makes masks count only where they are named.

        Raises:
            ModelError: no output has a head; the message names each refusing operation.
            UsageError: several heads and no name, or no head of that name; or only one
                that may be boxes.
        """
        if not self.heads:
            count = len(self.refusals) - 1
            more = f" (and {count} more outputs are refused)" if count > 0 else ""
            telling = next((each for each in self.refusals if each.hint), self.refusals[0])
            raise ModelError(
                f"no head can be cut: {telling}{more}",
                telling.hint or "`exporter inspect MODEL` shows what was tried",
            )
        known = ", ".join(repr(head.name) for head in self.heads)
        first, *others = (head for head in self.heads if head.name not in self.masks)
        apart = [head for head in others if head.output not in first.other_outputs]
        if name is None and not apart:
            if self.refusals and may_be_boxes(first):
                raise UsageError(
                    f"the only head is {first.name!r}, whose 4 values a row may be those of boxes; "
                    f"refused is {self.refusals[0]}",
                    f"--head {first.name} takes it all the same",
                )
            return first
        for head in self.heads:
            if head.name == name:
                return head
        if name is None:
            raise UsageError(f"the model has several heads: {known}", "choose one with --head NAME")
        refused = [str(refusal) for refusal in self.refusals if refusal.output == name]
        raise UsageError(refused[0] if refused else f"no head is named {name!r}", f"heads: {known}")


def trace(graph: Graph, units: tuple[int, int] | None = None) -> Trace:
    """Find the head of every output, trying each of its axes as the unit axis.

    Args:
        graph: of any kind of model.
        units: where the units stand on an output's axis, from the first to behind the last, if the
            user said it; None to tell from the graph.
    """
    heads: list[Head] = []
    refusals: dict[str, Refusal] = {}
    for output in graph.outputs:
        found, refused = _trace_output(graph, output, units)
        heads += found
        if not found:
            refusals[output] = refused
    inner = set[str]()
    for output in list(refusals):
        source = source_of(graph, output)
        if source is not None:
            del refusals[output]
            inner.add(output)
            if not any(_shows(head, source.tensor) for head in heads):
                refusals |= _trace_inner(graph, output, source, heads)
    attempt = partial(trace_axis, graph)
    left = [o for o in graph.outputs if o in refusals and not _follows(graph, heads, o)]
    for output in left if all(map(may_be_boxes, heads)) else ():
        if output not in inner:
            refusals[output] = of_class_values(graph, refusals[output], attempt)
    return Trace(tuple(heads), tuple(refusals[o] for o in left), mask_maps(graph, heads))


def _follows(graph: Graph, heads: list[Head], output: str) -> bool:
    """Is the output cut along with a detector's head, though nothing tells its own units?"""
    head = next((head for head in heads if output in head.other_outputs), None)
    if head is None or not head.axis_parts:
        return False
    try:
        trace_labels(graph, output, head.tensor(output).unit_axis)
    except Refused:
        return False
    return True


def _trace_inner(
    graph: Graph, output: str, source: Source, heads: list[Head]
) -> dict[str, Refusal]:
    """The head of an output that shows ids alone: its units are those that the node ranks.

    Rows that a detector puts together cannot follow where this is refused; an argmax alone can.
    """
    try:
        head = trace_axis(graph, source.tensor, source.axis, source.units)
    except Refused as error:
        refusal = refusal_of(output, error)
        rows = error.node is not None and top_k_of(graph, output) is None
        return {output: replace(refusal, hint=refusal.hint or RAW * rows)}
    ids = (output, *(name for each in head.readers.detections for name in each.ids))
    named = (labels_of(graph, name, head.units) for name in ids)
    labels = head.labels or next((each for each in named if each), None)
    parts = head.axis_parts
    if source.units is not None:
        parts = tuple(p if p.name == "classes" else p._replace(name="background") for p in parts)
    heads.append(replace(head, name=source.node.name, labels=labels, axis_parts=parts))
    return {}


def _shows(head: Head, tensor: str) -> bool:
    return any(labeled.name == tensor for labeled in head.tensors)


def trace_recorded(graph: Graph, parts: Iterable[tuple[str, tuple[int, int] | None]]) -> Trace:
    """All heads of a graph, with the units where a table says that they stand.

    Args:
        graph: of a model that was cut, or is to be compared with one.
        parts: name of a head -> where its units stand on its axis; None where they are all of it.
    """
    found = trace(graph)
    for name, part in parts:
        if part is not None and not _standing(found, name, part):
            stated = _standing(trace(graph, part), name, part)
            others = [head for head in found.heads if head.name != name]
            found = replace(found, heads=(*others, *stated)) if stated else found
    return found


def _standing(found: Trace, name: str, part: tuple[int, int]) -> list[Head]:
    """The head of that name, if its units stand there."""
    heads = [head for head in found.heads if head.name == name]
    return [head for head in heads if (head.unit_range or (0, head.units)) == part]


def heads_beside(graph: Graph, found: Trace, head: Head) -> tuple[Head, ...]:
    """The head, and the heads of the outputs that narrow with it: the same units, shown again.

    Raises:
        ModelError: such an output shows the units in a way that cannot be cut.
    """
    return (head, *(_beside(graph, found, head, output) for output in head.other_outputs))


def _beside(graph: Graph, found: Trace, head: Head, output: str) -> Head:
    labels = head.tensor(output).unit_axis
    for other in found.heads:
        if other.output == output and other.tensor(output).unit_axis.same(labels):
            return other
    try:
        return replace(trace_labels(graph, output, labels), labels=head.labels)
    except Refused as error:
        reason = refusal_of(output, error)
        raise ModelError(
            f"head {head.name!r} narrows another output too, but {reason}", error.hint
        ) from error


def trace_axis(graph: Graph, output: str, axis: int, units: tuple[int, int] | None = None) -> Head:
    """The head whose units lie along this axis of this output.

    Args:
        units: where on the axis they stand; None to tell from the graph.

    Raises:
        Refused: there is none; says which operation does not let the axis pass, and why.
    """
    shape = graph.shape(output)
    width = shape[axis] if axis < len(shape) else None
    if width is None:
        raise Refused(None, f"the width of axis {axis} is not known before the model runs")
    if width == 0:
        raise Refused(None, f"axis {axis} has no positions")
    parts = parts_of(graph, output, axis) if units is None else stated_parts(shape, axis, units)
    start, stop = next(((p.start, p.stop) for p in parts if p.name == "classes"), (0, width))
    labels = np.full(width, -1, np.int64)
    labels[start:stop] = np.arange(stop - start)
    return replace(trace_labels(graph, output, UnitAxis(axis, labels)), axis_parts=parts)


def trace_labels(graph: Graph, output: str, labels: UnitAxis) -> Head:
    """The head whose units stand in these places (raises as `trace_axis` does)."""
    walk = Walk(graph)
    walk.label(output, labels, None)
    walk.run()
    return head_of(walk, output, labels.axis, int(labels.units.max()) + 1)


def _trace_output(
    graph: Graph, output: str, units: tuple[int, int] | None
) -> tuple[list[Head], Refusal]:
    shape = graph.tensors[output].shape
    if shape is None:
        node, _ = graph.producers.get(output, (None, 0))
        made_by = str(node) if node else None
        known = getattr(node.operation, "reason", "") if node else ""
        reason = "the shape of what it returns is not known"
        return [], Refusal(output, made_by, f"{reason} ({known})" if known else reason)
    axes = [a for a, n in enumerate(shape) if n != 1 and (a > 0 or len(shape) == 1)]
    heads: list[Head] = []
    refusals = [Refusal(output, None, f"no axis of its shape {shown(shape)} is wider than 1")]
    undecided: list[Refusal] = []
    for axis in axes:
        try:
            heads.append(trace_axis(graph, output, axis, units))
        except Undecided as error:
            undecided.append(refusal_of(output, error))
        except Refused as error:
            refusals.append(refusal_of(output, error))
    if undecided and not any(head.axis_parts for head in heads):
        return [], undecided[-1]
    return _told_apart(heads), which_helps(refusals)


def _told_apart(heads: list[Head]) -> list[Head]:
    """One output's heads: the one whose units compete, or stand beside boxes, if there is one; else
    each with its axis.

    Channels that are reshaped to anchors x classes have two axes that end in the same kernel; a
    softmax says which of them the classes are.
    """
    competing = [head for head in heads if any(mixes(node, head) for node in head.tail)]
    parted = [head for head in heads if head.axis_parts]
    heads = next((each for each in (competing, parted) if len(each) == 1), heads)
    if len(heads) == 1:
        return heads
    return [replace(head, name=f"{head.output}:{head.axis}") for head in heads]
