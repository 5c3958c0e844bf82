"""Find the heads of a graph.

The walk starts with the units 0, 1, 2, ... on one axis of an output. For each node that it meets,
from an output or an input, it asks the rule of the operation: where are the units on the other
inputs and outputs? It ends at the kernels and biases of linear operations. An operation without a
rule, or one that mixes units, refuses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph
from exporter.graph.walk import dependents
from exporter.trace.axis_parts import Undecided, find_axis_parts, stated_axis_parts
from exporter.trace.axis_walk import AxisWalk, format_shape
from exporter.trace.build_head import build_head, labels_of
from exporter.trace.class_boxes import boxes_of_classes, without_boxes
from exporter.trace.class_maps import ClassMaps, find_class_maps
from exporter.trace.head import Head
from exporter.trace.hidden_heads import HiddenUnits, find_hidden_units
from exporter.trace.prototype_masks import mask_maps
from exporter.trace.refusals import (
    Refusal,
    may_be_boxes,
    most_helpful,
    refusal_of,
    refusal_of_class_values,
    with_outputs_to_drop,
)
from exporter.trace.rules.protocol import RAW, Refused
from exporter.trace.rules.rankings import top_k_of
from exporter.trace.unit_axis import UnitAxis

_WIDE = 1 << 20  # positions of an axis that cost little memory


@dataclass(frozen=True)
class Trace:
    """All heads of a graph, in the order of its outputs, and the outputs without one.

    Attributes:
        masks: names of heads that must be chosen by name; see `mask_maps`.
        maps: groups of heads that are cut together; see `find_class_maps`.
        boxes: name of a head -> the boxes of its classes, which are cut with them.
    """

    heads: tuple[Head, ...]
    refusals: tuple[Refusal, ...]
    masks: tuple[str, ...] = ()
    maps: tuple[ClassMaps, ...] = ()
    boxes: Mapping[str, tuple[Head, ...]] = field(default_factory=dict)

    def head(self, name: str | None = None) -> Head:
        """The head of that name; without a name the only one.

        Outputs that show the same units (logits and probabilities) count as one head, and so do the
        class maps of a detector.

        Raises:
            ModelError: no output has a head; the message names the refusing operation.
            UsageError: there are several heads and no name, or no head has that name; or the only
                head may be boxes.
        """
        if not self.heads:
            raise self._no_head()
        for head in self.heads:
            if head.name == name:
                return head
        known = ", ".join(repr(head.name) for head in self.heads)
        if name is not None:
            refused = next((each for each in self.refusals if each.output == name), None)
            if refused is None:
                raise UsageError(f"no head is named {name!r}", f"heads: {known}")
            raise UsageError(str(refused), refused.hint or f"heads: {known}")
        if self.choices:
            raise UsageError(
                f"the model has several heads: {known}",
                "choose one with --head NAME, or several with --cut NAME=SPEC for each",
            )
        first = self._default()[0]
        if self.refusals and may_be_boxes(first):
            raise UsageError(
                f"the only head is {first.name!r}, whose 4 values in each row may be a box; "
                f"refused is {self.refusals[0]}",
                f"--head {first.name} cuts it anyway",
            )
        return first

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of the heads of which the user has to choose; () if they count as one."""
        heads = self._default()
        is_one = all(head.output in heads[0].other_outputs for head in heads[1:])
        return () if is_one else tuple(head.name for head in heads)

    def _default(self) -> tuple[Head, ...]:
        """The heads that may be cut if the user names none: of class maps the first."""
        boxes = [each for of_head in self.boxes.values() for each in of_head]
        heads = without_boxes([h for h in self.heads if h.name not in self.masks], boxes)
        found = [maps for maps in self.maps if all(map(maps.covers, heads))]
        best = [maps for maps in found if maps.known == max(each.known for each in found)]
        return (self.head(best[0].names[0]),) if len(best) == 1 else heads

    def cut_with(self, name: str) -> tuple[str, ...]:
        """The names of the heads that are cut together with a head, that head first."""
        maps = next((each.names for each in self.maps if name in each.names), ())
        return (name, *(other for other in maps if other != name))

    def _no_head(self) -> ModelError:
        count = len(self.refusals) - 1
        more = f" (and {count} more outputs are refused)" if count > 0 else ""
        named = [each for each in self.refusals if each.operation] or [self.refusals[0]]
        shown = next((each for each in self.refusals if each.hint), named[0])
        return ModelError(
            f"no head can be cut: {shown}{more}",
            shown.hint or "`exporter inspect MODEL` shows what was tried",
        )


def trace(graph: Graph, units: tuple[int, int] | None = None) -> Trace:
    """Find the head of every output, trying each of its axes as the unit axis.

    Args:
        graph: of any kind of model.
        units: start and stop of the units on the axis of an output, if the user gave them; None to
            find them in the graph.
    """
    heads: list[Head] = []
    refusals: dict[str, Refusal] = {}
    walks: list[AxisWalk] = []
    for output in graph.outputs:
        found, refused = _trace_output(graph, output, units, walks)
        heads += found
        if not found:
            refusals[output] = refused
    with_hidden = set[str]()
    for output in list(refusals):
        hidden = find_hidden_units(graph, output)
        if hidden is not None:
            del refusals[output]
            with_hidden.add(output)
            shown = {tensor.name for head in heads for tensor in head.tensors}
            if hidden.tensor not in shown:
                refusals |= _trace_hidden(graph, output, hidden, heads)
    attempt = partial(trace_axis, graph)
    refused_outputs = [o for o in graph.outputs if o in refusals and not _follows(graph, heads, o)]
    for output in refused_outputs if all(map(may_be_boxes, heads)) else ():
        if output not in with_hidden:
            refusals[output] = refusal_of_class_values(graph, refusals[output], attempt)
    boxes = {head.name: boxes_of_classes(graph, head, trace_unit_axis) for head in heads}
    boxes = {name: found for name, found in boxes.items() if found}
    followed = {each.output for found in boxes.values() for each in found}
    remaining = tuple(refusals[output] for output in refused_outputs if output not in followed)
    maps = find_class_maps(graph, heads)
    return Trace(tuple(heads), remaining, mask_maps(graph, heads), maps, boxes)


def _follows(graph: Graph, heads: list[Head], output: str) -> bool:
    """Does an output follow a head, although it alone does not show its units?

    It is computed from a ranking of them, or shows one position of no unit next to them, such as a
    background.
    """
    ranks = (n for head in heads for each in head.readers.rankings for n in each.node.outputs)
    if output in dependents(graph, ranks):
        return True
    head = next((head for head in heads if output in head.other_outputs), None)
    others = 0 if head is None else int((head.tensor(output).unit_axis.units < 0).sum())
    if head is None or not (head.axis_parts or others == 1):
        return False
    try:
        trace_unit_axis(graph, output, head.tensor(output).unit_axis)
    except Refused:
        return False
    return True


def _trace_hidden(
    graph: Graph, output: str, hidden: HiddenUnits, heads: list[Head]
) -> dict[str, Refusal]:
    """Add the head of units that no output shows, or return why it is refused.

    The hint to export without the post-process fits only rows of a detector, not an argmax.
    """
    try:
        head = trace_axis(graph, hidden.tensor, hidden.axis, hidden.units)
    except Refused as error:
        refusal = refusal_of(output, error)
        rows = error.node is not None and top_k_of(graph, output) is None
        return {output: replace(refusal, hint=refusal.hint or RAW * rows)}
    ids = (output, *(name for each in head.readers.detections for name in each.ids))
    named = (labels_of(graph, name, head.units) for name in ids)
    labels = head.labels or next((each for each in named if each), None)
    parts = head.axis_parts
    if hidden.units is not None:
        parts = tuple(p if p.name == "classes" else p._replace(name="background") for p in parts)
    heads.append(replace(head, name=hidden.node.name, labels=labels, axis_parts=parts))
    return {}


def trace_recorded(graph: Graph, ranges: Iterable[tuple[str, tuple[int, int] | None]]) -> Trace:
    """All heads of a graph, with the ranges of their units that a remap records.

    Args:
        graph: of a model that was cut, or that is compared with one.
        ranges: name of a head -> start and stop of its units on its axis; None for the whole axis.
    """
    found = trace(graph)
    for name, units in ranges:
        if units is not None and not _with_range(found, name, units):
            stated = _with_range(trace(graph, units), name, units)
            others = [head for head in found.heads if head.name != name]
            found = replace(found, heads=(*others, *stated)) if stated else found
    return found


def _with_range(found: Trace, name: str, units: tuple[int, int]) -> list[Head]:
    """The head of that name, if its units are in that range."""
    heads = [head for head in found.heads if head.name == name]
    return [head for head in heads if (head.unit_range or (0, head.units)) == units]


def heads_cut_together(graph: Graph, found: Trace, head: Head) -> tuple[Head, ...]:
    """The head, and the heads of the other outputs that show the same units, or their boxes.

    Raises:
        ModelError: such an output shows the units in a way that cannot be cut.
    """
    others = [_other_head(graph, found, head, output) for output in head.other_outputs]
    boxes = [replace(each, labels=head.labels) for each in found.boxes.get(head.name, ())]
    return (head, *others, *boxes)


def _other_head(graph: Graph, found: Trace, head: Head, output: str) -> Head:
    unit_axis = head.tensor(output).unit_axis
    for other in found.heads:
        if other.output == output and other.tensor(output).unit_axis.same(unit_axis):
            return other
    try:
        return replace(trace_unit_axis(graph, output, unit_axis), labels=head.labels)
    except Refused as error:
        reason = refusal_of(output, error)
        drop = f"--drop-output {output} removes that output"
        raise ModelError(
            f"head {head.name!r} narrows another output too, but {reason}",
            f"{error.hint}; or {drop}" if error.hint else drop,
        ) from error


def trace_axis(
    graph: Graph,
    output: str,
    axis: int,
    units: tuple[int, int] | None = None,
    walks: list[AxisWalk] | None = None,
) -> Head:
    """The head with its units on this axis of this output.

    Args:
        graph: contains the output, or an inner tensor of that name.
        output: its name.
        axis: tried as the unit axis.
        units: their range on the axis; None to find it in the graph.
        walks: see `trace_unit_axis`.

    Raises:
        Refused: there is none; with the operation that does not let the axis pass, and the reason.
    """
    shape = graph.shape(output)
    width = shape[axis] if axis < len(shape) else None
    if width is None:
        raise Refused(None, f"the width of axis {axis} is not known before the model runs")
    if width == 0:
        raise Refused(None, f"axis {axis} has no positions")
    if width > _WIDE and width > _count_weights(graph):
        raise Refused(None, f"axis {axis} has {width:,} positions, more than the model has weights")
    if units is None:
        parts = find_axis_parts(graph, output, axis)
    else:
        parts = stated_axis_parts(shape, axis, units)
    start, stop = next(((p.start, p.stop) for p in parts if p.name == "classes"), (0, width))
    positions = np.full(width, -1, np.int64)
    positions[start:stop] = np.arange(stop - start)
    head = trace_unit_axis(graph, output, UnitAxis(axis, positions), walks)
    return replace(head, axis_parts=parts)


def _count_weights(graph: Graph) -> int:
    """How many values the constants of a graph have; each unit has one at least."""
    constants = (tensor for tensor in graph.tensors.values() if tensor.is_constant)
    return sum(math.prod(n or 1 for n in tensor.shape or ()) for tensor in constants)


def trace_unit_axis(
    graph: Graph, output: str, unit_axis: UnitAxis, walks: list[AxisWalk] | None = None
) -> Head:
    """The head with this unit axis on its output (raises Refused).

    Args:
        graph: contains the output.
        output: its name.
        unit_axis: of the output.
        walks: earlier ones in the graph; extended. Outputs that show the same units share a walk,
            which visits each of their nodes once. A walk of more units, of which an output shows
            some, is another one: it does not show where the others are fixed.
    """
    walks = [] if walks is None else walks
    units = int(unit_axis.units.max()) + 1
    for walk in walks:
        known = walk.tensors.get(output)
        if known is not None and known.same(unit_axis) and walk.units == units:
            break
    else:
        walk = AxisWalk(graph)
        try:
            walk.run(output, unit_axis)
        except Refused as error:
            raise with_outputs_to_drop(graph, output, error) from error
        walks.append(walk)
    return build_head(walk, output, unit_axis.axis, units)


def _trace_output(
    graph: Graph, output: str, units: tuple[int, int] | None, walks: list[AxisWalk]
) -> tuple[list[Head], Refusal]:
    shape = graph.tensors[output].shape
    if shape is None:
        return [], _unknown_shape(graph, output)
    axes = [a for a, n in enumerate(shape) if n != 1 and (a > 0 or len(shape) == 1)]
    heads: list[Head] = []
    refusals = [
        Refusal(output, None, f"no axis of its shape {format_shape(shape)} is wider than 1")
    ]
    undecided: list[Refusal] = []
    for axis in axes:
        try:
            heads.append(trace_axis(graph, output, axis, units, walks))
        except Undecided as error:
            undecided.append(refusal_of(output, error))
        except Refused as error:
            refusals.append(refusal_of(output, error))
    if undecided and not any(head.axis_parts for head in heads):
        return [], undecided[-1]
    return _distinguished(heads), most_helpful(refusals)


def _unknown_shape(graph: Graph, output: str) -> Refusal:
    node, _ = graph.producers.get(output, (None, 0))
    reason = "its shape is not known"
    details = getattr(node.operation, "reason", "") if node else ""
    return Refusal(output, str(node) if node else None, reason + f" ({details})" * bool(details))


def _distinguished(heads: list[Head]) -> list[Head]:
    """The head of one output if a softmax, or boxes on its axis, decides; otherwise all of them.

    Channels that are reshaped to anchors x classes have two axes that lead to the same kernel. A
    softmax is over the classes. Heads that remain are named with their axes.
    """
    competing = [head for head in heads if head.competes]
    with_parts = [head for head in heads if head.axis_parts]
    heads = next((each for each in (competing, with_parts) if len(each) == 1), heads)
    if len(heads) == 1:
        return heads
    return [replace(head, name=f"{head.output}:{head.axis}") for head in heads]
