"""Remove Identity nodes from a converted ONNX graph, except for outputs that need one.

tf2onnx gives one value two names, with an Identity between them, and the order of the two differs
from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, helper

from exporter.formats.onnx.protos import DEFAULT_DOMAINS, replace_messages, subgraphs


def remove_identities(graph: GraphProto, outer: Mapping[str, str] | None = None) -> None:
    """Let every consumer of an Identity read its input instead; in place, bodies included.

    1. A value that is an output gets the name of the first output.
    2. A further output of the same value, or an output that is an input or a constant, gets an
       Identity at the end of the graph.

    Args:
        graph: nodes in running order.
        outer: names removed from the graphs around it -> names to read instead.
    """
    aliases = dict(outer or {})
    kept: list[NodeProto] = []
    for node in graph.node:
        _rename_inputs(node, aliases)
        if node.op_type == "Identity" and node.domain in DEFAULT_DOMAINS:
            aliases[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_messages(graph.node, kept + _name_outputs(graph, kept, aliases))


def _name_outputs(
    graph: GraphProto, nodes: list[NodeProto], aliases: Mapping[str, str]
) -> list[NodeProto]:
    """Let the producers of outputs write their names; returns the Identities for all others."""
    produced = {name for node in nodes for name in node.output}
    names: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for info in graph.output:
        source = aliases.get(info.name, info.name)
        if source in produced and source not in names:
            names[source] = info.name
        else:
            others.append((source, info.name))
    for node in nodes:
        _rename_inputs(node, names)
        for slot, name in enumerate(node.output):
            node.output[slot] = names.get(name, name)
    return [
        helper.make_node("Identity", [names.get(source, source)], [name])
        for source, name in others
        if names.get(source, source) != name
    ]


def _rename_inputs(node: NodeProto, names: Mapping[str, str]) -> None:
    for slot, name in enumerate(node.input):
        node.input[slot] = names.get(name, name)
    for body in subgraphs(node):
        remove_identities(body, names)
