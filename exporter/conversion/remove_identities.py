"""Take Identity nodes out of a converted ONNX graph, but for outputs that need one.

tf2onnx shows one value under two names with an Identity between, and which of the two it puts
first differs from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, helper

from exporter.formats.onnx.protos import DEFAULT_DOMAINS, subgraphs


def bypass_identities(graph: GraphProto, outside: Mapping[str, str] | None = None) -> None:
    """Let every reader of an Identity read what it reads, in place, bodies included.

    1. The first output that shows a node's value gives it its name.
    2. A further output of the same value, or one that shows an input or a constant, gets an
       Identity at the end of the graph.

    Args:
        graph: nodes in running order.
        outside: names that have gone from the graphs around it -> what to read instead.
    """
    aliases = dict(outside or {})
    kept: list[NodeProto] = []
    for node in graph.node:
        _read_instead(node, aliases)
        if node.op_type == "Identity" and node.domain in DEFAULT_DOMAINS:
            aliases[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    kept += _name_outputs(graph, kept, aliases)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def _name_outputs(
    graph: GraphProto, nodes: list[NodeProto], aliases: Mapping[str, str]
) -> list[NodeProto]:
    """Put the outputs' names to the nodes that make them; the Identities that this leaves."""
    made = {name for node in nodes for name in node.output}
    named: dict[str, str] = {}
    further: list[tuple[str, str]] = []
    for info in graph.output:
        source = aliases.get(info.name, info.name)
        if source in made and source not in named:
            named[source] = info.name
        else:
            further.append((source, info.name))
    for node in nodes:
        _read_instead(node, named)
        for slot, name in enumerate(node.output):
            node.output[slot] = named.get(name, name)
    return [
        helper.make_node("Identity", [named.get(source, source)], [name])
        for source, name in further
        if named.get(source, source) != name
    ]


def _read_instead(node: NodeProto, names: Mapping[str, str]) -> None:
    for slot, name in enumerate(node.input):
        node.input[slot] = names.get(name, name)
    for body in subgraphs(node):
        bypass_identities(body, names)
