"""The part of an ONNX model from some of its tensors on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnx import ModelProto, TypeProto, ValueInfoProto

from exporter.formats.onnx.protos import model_without, names_read


def starting_at(
    model: ModelProto, tensors: Collection[str], types: Mapping[str, TypeProto]
) -> ModelProto:
    """A model whose first inputs are these tensors, with the outputs that depend on them.

    Inputs of the whole model that these outputs read in another way are inputs too.

    Args:
        model: not changed; its nodes in running order.
        tensors: computed ones.
        types: of every tensor.
    """
    after = set(tensors)
    for node in model.graph.node:
        if not after.isdisjoint(names_read(node)):
            after.update(node.output)
    outputs = [info for info in model.graph.output if info.name in after - set(tensors)]
    needed = {info.name for info in outputs}
    nodes = []
    for node in reversed(model.graph.node):
        made = set(node.output)
        if not needed.isdisjoint(made) and made.isdisjoint(tensors):
            needed.update(names_read(node))
            nodes.append(node)
    result = model_without(model, "node", "input", "output", "initializer")
    graph = result.graph
    graph.node.extend(reversed(nodes))
    graph.input.extend(ValueInfoProto(name=name, type=types[name]) for name in tensors)
    graph.input.extend(info for info in model.graph.input if info.name in needed)
    graph.output.extend(outputs)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    return result
