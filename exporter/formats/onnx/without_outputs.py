"""Remove outputs of a model, with the nodes and constants that nothing else needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from onnx import ModelProto, NodeProto

from exporter.formats.onnx.protos import names_read, replace_messages


def remove_outputs(model: ModelProto, names: Collection[str]) -> None:
    """Change a model in place. What nothing needed before stays, and so do all inputs
    without a default value.

    Args:
        model: its nodes are in running order.
        names: of its outputs.
    """
    graph = model.graph
    before = _needed(graph.node, (output.name for output in graph.output))
    replace_messages(graph.output, [each for each in graph.output if each.name not in names])
    needed = _needed(graph.node, (output.name for output in graph.output))
    kept = [
        node
        for node in graph.node
        if before.isdisjoint(node.output) or not needed.isdisjoint(node.output)
    ]
    unneeded = before - needed - {name for node in kept for name in node.output}
    replace_messages(graph.node, kept)
    fields = [graph.initializer, graph.value_info]
    # A constant that is listed as an input would become one that every run must give.
    constants = {each.name for each in graph.initializer} & unneeded
    replace_messages(graph.input, [i for i in graph.input if i.name not in constants])
    for field in fields:
        replace_messages(field, [each for each in field if each.name not in unneeded])


def _needed(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> set[str]:
    """The outputs, and all tensors that they are computed from."""
    needed = set(outputs)
    for node in reversed(list(nodes)):
        if not needed.isdisjoint(node.output):
            needed.update(names_read(node))
    return needed
