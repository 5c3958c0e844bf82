"""A head's units and its z, found again in what became of the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Literal

from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model
from exporter.graph import Graph
from exporter.graph.walk import upstream
from exporter.modes import Semantics
from exporter.remap.head_remap import HeadRemap, members
from exporter.trace import trace_axis
from exporter.trace.head import Head
from exporter.trace.rules.protocol import Refused
from exporter.verification.merged import unmerged, without

Stage = Literal["cut", "export", "quantize"]


def units_of(
    original: Model, head: Head, table: HeadRemap
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The units that are alive, and those that have a place, in the original's own indices.

    The table speaks of the first original, of which the one given may be a cut.
    """
    remap = original.remap
    before = {each.name: each for each in remap.heads}.get(table.name) if remap else None
    known = before.old_units if before else head.units
    if known != table.old_units:
        raise UsageError(
            f"head {head.name!r} of {original.name} goes back to {known} units, the remap to "
            f"{table.old_units}",
            "compare with the model that was cut",
        )
    places = tuple(unit for place in table.new_to_old for unit in members(place))
    kept = table.kept
    if before is not None:
        kept, places = (tuple(before.to_new(units).tolist()) for units in (kept, places))
    if -1 in places:
        raise UsageError(
            f"head {head.name!r} of {original.name} lacks units that were kept",
            "compare with the model that was cut",
        )
    return kept, places


def meaning_of(original: Model, table: HeadRemap) -> Semantics:
    """What the table tells of the options, in the original's own indices."""
    meaning = Semantics.recorded_in(table.options)
    remap = original.remap
    before = {each.name: each for each in remap.heads}.get(table.name) if remap else None
    if before is None:
        return meaning
    groups = {name: tuple(before.to_new(g).tolist()) for name, g in meaning.merge.items()}
    return replace(meaning, merge=groups)


def part_before(original: Model, table: HeadRemap) -> tuple[int, int] | None:
    """Where the units of a table stand on the original's axis, if other things share it."""
    known = {each.name: each for each in original.remap.heads} if original.remap else {}
    before = known.get(table.name)
    if table.part is None:
        return None
    start = table.part[0]
    return start, start + (before.new_units if before else table.old_units)


def z_of(pruned: Model, head: Head, table: HeadRemap, stage: Stage) -> str | None:
    """The tensor of z in the pruned model.

    A cut keeps the names of tensors. A converted file has names of its own, and is traced; it may
    have merged an activation into the operation before, and then has no z. Where units compete z
    has to be seen, since another z may give the same y. What is coarser is measured in y alone.
    """
    graph = pruned.graph()
    if head.z == head.output or table.output not in graph.tensors or stage == "quantize":
        return None
    if stage == "cut" and head.z in graph.tensors:
        return head.z
    try:
        traced = trace_axis(*_inside(graph, table), table.axis)
        if traced.activation == head.activation:
            return traced.z
        reason = f"{traced.activation} is its last activation, not {head.activation}"
    except Refused as error:
        reason = error.reason
    if not head.competes:
        return None
    raise ModelError(
        f"output {table.output!r} of {pruned.name} cannot be compared before {head.activation}: "
        f"{reason}",
        "`exporter run` proves such a file while it makes it: it cuts the original itself, and "
        "compares that with the file",
    )


def _inside(graph: Graph, table: HeadRemap) -> tuple[Graph, str]:
    """The graph up to what the head made before its output was put together, and that tensor.

    Restored width is padded and gathered, kept units of a whole head are gathered alone, and merged
    ones are computed out of several gathers.
    """
    if table.options["merge"]:
        inside = graph.producers[unmerged(graph, table.output)][0].inputs[0]
        return without(graph, inside), inside
    steps = 2 if table.options["restore_width"] else 0
    steps = steps or int(table.options["probabilities"] == "absolute")
    if not steps:
        return graph, table.output
    way = upstream(graph.producers, table.output, lambda node: node.inputs[0])
    last = [node for node, _ in islice(way, steps)]
    nodes = tuple(node for node in graph.nodes if node not in last)
    return replace(graph, nodes=nodes), last[-1].inputs[0]
