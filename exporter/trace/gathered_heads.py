"""Heads whose units a Gather takes after they are computed, because they are mixed before.

For example, the mean of the probabilities of several networks: the softmax of each network is over
all units, so that no kernel may lose rows. What reads the tensor follows the cut if it can;
otherwise only the output of the model is narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from exporter.graph import Graph
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation
from exporter.graph.walk import ancestors
from exporter.trace.axis_parts import Undecided, find_axis_parts, stated_axis_parts
from exporter.trace.axis_walk import AxisWalk
from exporter.trace.build_head import labels_of, readers_of
from exporter.trace.head import Head, mixes_units
from exporter.trace.hidden_heads import find_hidden_units
from exporter.trace.refusals import Refusal, may_be_boxes
from exporter.trace.rules.protocol import RAW, Refused
from exporter.trace.unit_axis import UnitAxis

_WIDE = 1 << 20  # positions of an axis; more are no classes


def gathered_heads(
    graph: Graph, outputs: Iterable[str], units: tuple[int, int] | None = None
) -> Iterator[Head]:
    """The heads of outputs that have none: each axis that may be the unit axis.

    The head of the axis that is most likely has the name of the output; others have its name, ":"
    and the axis. The head of an output with indices, such as an argmax, has the name of the node
    that ranks the units.

    Args:
        graph: contains the outputs.
        outputs: without a head.
        units: their range on the axis, if the user gave it.
    """
    seen = set(graph.outputs)
    for output in outputs:
        hidden = find_hidden_units(graph, output)
        if hidden is None:
            for axis, name in _axes(graph, output):
                yield from _attempt(graph, output, axis, units, name)
        elif hidden.tensor not in seen:
            seen.add(hidden.tensor)
            found = _attempt(
                graph, hidden.tensor, hidden.axis, units or hidden.units, hidden.node.name
            )
            yield from (head for head in found if head.gather == "tensor")


def gathered_head(
    graph: Graph,
    tensor: str,
    axis: int,
    units: tuple[int, int] | None = None,
    name: str | None = None,
) -> Head:
    """The head with its units on an axis of a tensor, which a Gather after it takes.

    Args:
        graph: contains the tensor.
        tensor: an output of the model, or an inner tensor.
        axis: of the units.
        units: their range on the axis; None to find it in the graph.
        name: of the head; None for the name of the tensor.

    Raises:
        Refused: the number of units is not known; or an inner tensor is read by an operation that
            cannot follow.
    """
    shape = graph.shape(tensor)
    is_known = axis < len(shape) and axis not in graph.open_axes.get(tensor, ())
    width = shape[axis] if is_known else None
    if not width or width > _WIDE or tensor not in graph.producers:
        raise Refused(None, f"axis {axis} of {tensor!r} does not have a known number of units")
    parts = stated_axis_parts(shape, axis, units) if units else find_axis_parts(graph, tensor, axis)
    start, stop = next(((p.start, p.stop) for p in parts if p.name == "classes"), (0, width))
    positions = np.full(width, -1, np.int64)
    positions[start:stop] = np.arange(stop - start)
    unit_axis = UnitAxis(axis, positions)
    try:
        walk, gather = _walk_after(graph, tensor, unit_axis), "tensor"
        readers = readers_of(walk, walk.units)
    except Refused:
        if tensor not in graph.outputs:
            raise
        walk, gather = AxisWalk(graph, units=stop - start, tensors={tensor: unit_axis}), "output"
        readers = readers_of(walk, walk.units)
    others = (o for o in graph.outputs if o in walk.tensors and o != tensor)
    counts = (width for each in readers.rankings for width in each.counts)
    return Head(
        name=name or tensor,
        output=tensor,
        axis=axis,
        units=stop - start,
        activation="linear",
        z=tensor,
        tensors=walk.unit_tensors,
        constants=(*walk.constants, *readers.tables),
        widths=(*walk.widths.values(), *counts),
        body=(),
        tail=(),
        other_outputs=tuple(others),
        labels=labels_of(graph, tensor, stop - start),
        junctions=tuple(walk.junctions.values()),
        readers=readers,
        axis_parts=parts,
        gather=gather,
    )


def offer_gather(graph: Graph, refusal: Refusal) -> Refusal:
    """The refusal, with a hint if a Gather could take the units and nothing better is known."""
    hint = "" if refusal.hint.startswith(f"--drop-output {refusal.output} ") else refusal.hint
    if "--" in hint or hint == RAW or refusal.operation is None:
        return refusal
    found = gathered_heads(graph, [refusal.output])
    if all(map(may_be_boxes, filter(is_likely, found))):
        return refusal
    offer = "--allow-gather takes the kept units from the output, at no gain in size"
    return replace(refusal, hint=f"{hint}; or {offer}" if hint else offer)


def is_likely(head: Head) -> bool:
    """Are the units on the axis of the output that is most likely?"""
    return head.name != f"{head.output}:{head.axis}"


def others_of_gathered(head: Head) -> Iterator[Head]:
    """The heads of other outputs that show the units that the Gather takes."""
    for output in head.other_outputs:
        axis = head.tensor(output).unit_axis.axis
        yield replace(head, name=output, output=output, z=output, axis=axis)


def _attempt(
    graph: Graph, tensor: str, axis: int, units: tuple[int, int] | None, name: str
) -> list[Head]:
    try:
        return [gathered_head(graph, tensor, axis, units, name)]
    except (Refused, Undecided):
        return []


def _walk_after(graph: Graph, tensor: str, unit_axis: UnitAxis) -> AxisWalk:
    """The units of a tensor in what reads it; refused where that leads back to its inputs."""
    walk = AxisWalk(graph)
    walk.run(tensor, unit_axis, backward=False)
    before = ancestors(graph, [tensor]) - {tensor}
    if back := sorted(before & walk.tensors.keys()):
        raise Refused(None, f"what reads {tensor!r} narrows {back[0]!r} too")
    for node in walk.nodes.values():
        result = walk.tensors.get(node.outputs[0])
        if result is not None and mixes_units(node, result):
            raise Refused(node, "it mixes the units")
    for output in (each for each in graph.outputs if each in walk.tensors):
        if not walk.tensors[output].shows(walk.units):
            raise Refused(None, f"{output!r} shows only some of the units, or another order")
    return walk


def _axes(graph: Graph, output: str) -> Iterator[tuple[int, str]]:
    """Each axis that may be the unit axis, with the name of its head."""
    shape = graph.tensors[output].shape or ()
    axes = [a for a, n in enumerate(shape) if n not in {None, 0, 1} and (a or len(shape) == 1)]
    if not axes:
        return
    likely = _likely_axis(graph, output, axes)
    for axis in axes:
        yield axis, output if axis == likely else f"{output}:{axis}"


def _likely_axis(graph: Graph, output: str, axes: list[int]) -> int:
    """The only axis with one position for each label, or over which the values before it compete;
    else the last one.
    """
    shape, labels = graph.shape(output), len(graph.labels.get(output, ()))
    before = ancestors(graph, [output])
    competing = {
        node.operation.axis
        for node in graph.nodes
        if isinstance(node.operation, Activation)
        and ACTIVATIONS[node.operation.function].mixes
        and node.outputs[0] in before
        and graph.tensors[node.outputs[0]].shape == shape
    }
    for found in ([a for a in axes if shape[a] == labels], [a for a in axes if a in competing]):
        if len(found) == 1:
            return found[0]
    return axes[-1]
