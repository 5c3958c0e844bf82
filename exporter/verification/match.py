"""Find the units of a head, and the tensor with its logits, to compare a pruned model.

A *table* is the remap of one head. Its unit indices are those of the first original: the model
before all cuts. The original of the last cut may itself be the result of a cut. The table of that
cut, the *earlier table*, translates unit indices of the first original to those of this original.
"""

from __future__ import annotations

from dataclasses import replace

from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model
from exporter.graph import Graph, Node
from exporter.graph.operations import Reduce
from exporter.graph.walk import dependents, upstream
from exporter.modes import Semantics
from exporter.remap.head_remap import HeadRemap, members
from exporter.trace import trace_axis
from exporter.trace.head import Head
from exporter.trace.rules.protocol import Refused
from exporter.verification.roles import ModelPair


def earlier_table(original: Model, table: HeadRemap) -> HeadRemap | None:
    """The table of the cut that made the original; None if the original is uncut."""
    heads = original.remap.heads if original.remap else ()
    return next((head for head in heads if head.name == table.name), None)


def units_of(
    original: Model, head: Head, table: HeadRemap
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The kept units, and all units that have a position, as unit indices of the original."""
    earlier = earlier_table(original, table)
    first_units = earlier.old_units if earlier else head.units
    if first_units != table.old_units:
        raise UsageError(
            f"head {head.name!r} of {original.name} comes from a head with {first_units} units, "
            f"but the remap is for {table.old_units}",
            "compare with the model that was cut",
        )
    present = tuple(unit for units in table.new_to_old for unit in members(units))
    kept = table.kept
    if earlier is not None:
        kept, present = (tuple(earlier.to_new(units).tolist()) for units in (kept, present))
    if -1 in present:
        raise UsageError(
            f"head {head.name!r} of {original.name} lacks units that were kept",
            "compare with the model that was cut",
        )
    return kept, present


def semantics_of(original: Model, table: HeadRemap) -> Semantics:
    """The semantics that a table records, with unit indices of the original."""
    semantics = Semantics.from_options(table.options)
    earlier = earlier_table(original, table)
    if earlier is None:
        return semantics
    groups = {name: tuple(earlier.to_new(g).tolist()) for name, g in semantics.merge.items()}
    return replace(semantics, merge=groups)


def part_before(original: Model, table: HeadRemap) -> tuple[int, int] | None:
    """The range of the units on the original's axis; None if all positions are units."""
    if table.part is None:
        return None
    earlier = earlier_table(original, table)
    start = table.part[0]
    return start, start + (earlier.new_units if earlier else table.old_units)


def z_of(pair: ModelPair, head: Head, table: HeadRemap) -> str | None:
    """The tensor with the logits in the pruned model; None if there is nothing to compare there.

    1. None if the output itself contains the logits, or the stage is "quantize", which measures
       outputs only.
    2. The tensor that the table names, if the file contains it.
    3. After a cut, the tensor with the original name, as a cut keeps the names of tensors. A
       converter does not, so a converted model is traced, starting before the nodes that a cut
       adds.
    4. None if the trace fails, for example because the converter fused the activation into the
       operation before it. This is an error if the units compete (softmax): different logits may
       give the same probabilities.
    """
    graph = pair.pruned.graph()
    if head.z == head.output or table.output not in graph.tensors or pair.stage == "quantize":
        return None
    recorded = table.logits if table.activation == head.activation else None
    unchanged = head.z if pair.stage == "cut" else None
    for name in (recorded, unchanged):
        if name in graph.tensors:
            return name
    try:
        traced = trace_axis(*_before_added_nodes(graph, table), table.axis)
        if traced.activation == head.activation:
            return traced.z
        reason = f"{traced.activation} is its last activation, not {head.activation}"
    except Refused as error:
        reason = error.reason
    if not head.competes:
        return None
    raise ModelError(
        f"output {table.output!r} of {pair.pruned.name} cannot be compared before "
        f"{head.activation}: {reason}",
        "use `exporter run`: it cuts the converted original, and compares the file with that",
    )


def _before_added_nodes(graph: Graph, table: HeadRemap) -> tuple[Graph, str]:
    """The output of the head before the nodes that a cut adds, and the graph without those nodes.

    A cut adds several gathers for merged units, a pad and a gather for a restored width, and one
    gather for absolute probabilities.
    """
    name = table.output
    if table.options["merge"]:
        name = graph.producers[members_of_merged(graph, name)][0].inputs[0]
    else:
        restored, absolute = table.options["restore_width"], table.options["probabilities"]
        for _ in range(2 if restored else int(absolute == "absolute")):
            name = graph.producers[name][0].inputs[0]
    return (graph if name == table.output else _without_consumers(graph, name)), name


def members_of_merged(graph: Graph, output: str) -> str:
    """The tensor with all members, in order, from which an output with merged units is computed."""
    for node, _ in upstream(graph.producers, output, lambda node: node.inputs[0]):
        if _gathers_constant_positions(graph, node):
            return node.inputs[0]
    raise ModelError(f"output {output!r} does not show how its units were merged")


def _gathers_constant_positions(graph: Graph, node: Node) -> bool:
    """Does a node take values at positions that a constant lists?"""
    if isinstance(node.operation, Reduce) or len(node.inputs) != 2:  # noqa: PLR2004 - data, indices
        return False
    positions = graph.tensors[node.inputs[1]]
    return positions.is_constant and positions.dtype == "int32" and len(positions.shape or ()) == 1


def _without_consumers(graph: Graph, tensor: str) -> Graph:
    """The graph without the nodes that depend on a tensor."""
    computed = dependents(graph, [tensor])
    nodes = tuple(node for node in graph.nodes if computed.isdisjoint(node.inputs))
    return replace(graph, nodes=nodes)
