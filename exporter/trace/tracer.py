"""Find the heads of a graph.

The walk starts with the units 0, 1, 2, ... on one axis of an output. For each node that it meets,
from an output or an input, it asks the rule of the operation: where are the units on the other
inputs and outputs? It ends at the kernels and biases of linear operations. An operation without a
rule, or one that mixes units, refuses.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from exporter.errors import ModelError
from exporter.graph import Graph, Shape
from exporter.graph.operations import Linear, Reshape
from exporter.graph.walk import dependents
from exporter.remap import HeadRemap
from exporter.trace.axis_parts import Undecided, find_axis_parts, stated_axis_parts
from exporter.trace.axis_walk import AxisWalk, format_shape
from exporter.trace.build_head import build_head, labels_of
from exporter.trace.class_boxes import boxes_of_classes
from exporter.trace.class_maps import find_class_maps
from exporter.trace.found_heads import Trace
from exporter.trace.gathered_heads import (
    gathered_head,
    gathered_heads,
    offer_gather,
    others_of_gathered,
)
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


def trace(graph: Graph, units: tuple[int, int] | None = None) -> Trace:
    """Find the head of every output, trying each of its axes as the unit axis.

    Args:
        graph: of any kind of model.
        units: start and stop of the units on the axis of an output, if the user gave them; None to
            find them in the graph.
    """
    key = trace, units
    if key not in graph.derived:
        graph.derived[key] = _traced(graph, units)
    found: Trace = graph.derived[key]
    return found


def _traced(graph: Graph, units: tuple[int, int] | None) -> Trace:
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
        head = _hidden_head(graph, hidden)
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


def _hidden_head(graph: Graph, hidden: HiddenUnits) -> Head:
    """The head on the first of the axes that has one.

    Raises:
        Refused: none has. An error at the ranking or after it shows that the units reached it.
    """
    errors: list[Refused] = []
    for axis in hidden.axes:
        try:
            return trace_axis(graph, hidden.tensor, axis, hidden.units)
        except Refused as error:
            errors.append(error)
    ranked = {hidden.node.inputs[0], *dependents(graph, hidden.node.outputs)}
    after = (e for e in errors if e.node is not None and not ranked.isdisjoint(e.node.inputs))
    raise next(after, errors[0])


def trace_recorded(
    graph: Graph, tables: Iterable[tuple[HeadRemap, tuple[int, int] | None]]
) -> Trace:
    """All heads of a graph, with the ranges of their units that a remap records.

    Args:
        graph: of a model that was cut, or that is compared with one.
        tables: of a head, with start and stop of its units on the axis; None for the whole axis.
    """
    found = trace(graph)
    for table, units in tables:
        name = table.name
        if table.options["gather"] and table.output in graph.producers:
            others = [head for head in found.heads if head.name != name]
            gathered = _recorded_gather(graph, table, units)
            found = replace(found, heads=(*others, gathered))
        elif units is not None and not _with_range(found, name, units):
            stated = _with_range(trace(graph, units), name, units)
            others = [head for head in found.heads if head.name != name]
            found = replace(found, heads=(*others, *stated)) if stated else found
    return found


def with_offers(graph: Graph, found: Trace, names: Collection[str] = ()) -> Trace:
    """The heads, and refusals whose hints offer a Gather where it is possible.

    Args:
        graph: that was traced.
        found: its heads.
        names: of the outputs that are cut; () for all that are refused.
    """
    asked = [each for each in found.refusals if not names or each.output in names]
    offered = {each.output: offer_gather(graph, each) for each in asked}
    refusals = (offered.get(each.output, each) for each in found.refusals)
    return replace(found, refusals=tuple(refusals))


def _recorded_gather(graph: Graph, table: HeadRemap, units: tuple[int, int] | None) -> Head:
    try:
        return gathered_head(graph, table.output, table.axis, units, table.name)
    except Refused as error:
        raise ModelError(f"the units of {table.output!r} cannot be gathered: {error}") from error


def with_gathered(
    graph: Graph, found: Trace, units: tuple[int, int] | None, names: Collection[str]
) -> Trace:
    """The heads, and those of other outputs whose units a Gather can take.

    Args:
        graph: that was traced.
        found: its heads.
        units: the range of the units, if the user gave it.
        names: of the heads that are cut; () for the only one. A head that cannot be cut with all
            that shows its units is gathered too.
    """
    outputs = [each.output for each in found.refusals]
    only = not names and not found.choices
    for head in [h for h in found.heads if only or h.name in names]:
        try:
            heads_cut_together(graph, found, head)
        except ModelError:
            outputs.append(head.output)
            found = replace(found, heads=tuple(h for h in found.heads if h is not head))
    return replace(found, gathered=tuple(gathered_heads(graph, outputs, units)))


def _with_range(found: Trace, name: str, units: tuple[int, int]) -> list[Head]:
    """The head of that name, if its units are in that range."""
    heads = [head for head in found.heads if head.name == name]
    return [head for head in heads if (head.unit_range or (0, head.units)) == units]


def heads_cut_together(graph: Graph, found: Trace, head: Head) -> tuple[Head, ...]:
    """The head, and the heads of the other outputs that show the same units, or their boxes.

    Raises:
        ModelError: such an output shows the units in a way that cannot be cut.
    """
    if head.gather:
        return (head, *others_of_gathered(head))
    others = [_other_head(graph, found, head, output) for output in head.other_outputs]
    boxes = [replace(each, labels=head.labels) for each in found.boxes.get(head.name, ())]
    return (head, *others, *boxes)


def _other_head(graph: Graph, found: Trace, head: Head, output: str) -> Head:
    unit_axis = head.tensor(output).unit_axis
    drop = f"--drop-output {output} removes that output"
    if not unit_axis.shows(head.units):
        raise ModelError(
            f"output {output!r} shows only some units of head {head.name!r}, or another order", drop
        )
    for other in found.heads:
        if other.output == output and other.tensor(output).unit_axis.same(unit_axis):
            return other
    try:
        return replace(trace_unit_axis(graph, output, unit_axis), labels=head.labels)
    except Refused as error:
        reason = refusal_of(output, error)
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
    refusals = [_no_axis(graph, output, shape)]
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


def _no_axis(graph: Graph, output: str, shape: Shape) -> Refusal:
    """The refusal of an output without an axis of units.

    skl2onnx reshapes several targets of an MLPRegressor to [-1, 1]: each sample has several rows.
    """
    node, _ = graph.producers.get(output, (None, 0))
    if node and isinstance(node.operation, Reshape) and shape[:1] == (None,):
        before = graph.tensors[node.inputs[0]].shape or ()
        sizes = [math.prod(n or 1 for n in each[1:]) for each in (before, shape)]
        if sizes[0] > sizes[1]:
            reason = f"it joins the samples and their values: {format_shape(before)} becomes "
            hint = "remove it from the file, or export one value per column"
            return Refusal(output, str(node), reason + format_shape(shape), hint)
    return Refusal(output, None, f"no axis of its shape {format_shape(shape)} is wider than 1")


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
    products = [head for head in heads if any(isinstance(n.operation, Linear) for n in head.body)]
    likely = (competing, with_parts, products)
    heads = next((each for each in likely if len(each) == 1), heads)
    if len(heads) == 1:
        return heads
    return [replace(head, name=f"{head.output}:{head.axis}") for head in heads]
