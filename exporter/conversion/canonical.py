"""One canonical form of a converted ONNX graph, so that equal models give equal bytes.

tf2onnx orders nodes and initializers, and names merged constants, differently in each process.

1. Each value has one name (see `remove_identities`).
2. Nodes are in depth-first order from the outputs; nodes that no output needs are dropped.
3. Initializers are in the order of their first use.
4. Inner tensors and nodes are named by that order; inputs and outputs get the given names.
5. Parts that compute nothing are dropped: doc strings, metadata, inner shapes, unused opsets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from exporter.conversion.remove_identities import remove_identities
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    all_nodes,
    captured_names,
    replace_messages,
    subgraphs,
)


def canonicalize(model: ModelProto, names: Mapping[str, str]) -> None:
    """Bring a model into the canonical form, in place.

    Args:
        model: without functions and sparse initializers.
        names: of its inputs and outputs, current -> new; others are named by their position.
    """
    remove_identities(model.graph)
    _Renamer(names).rename_graph(model.graph, {}, names)
    del model.metadata_props[:]
    model.ClearField("doc_string")
    used = {
        "" if node.domain in DEFAULT_DOMAINS else node.domain for node in all_nodes(model.graph)
    }
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    replace_messages(model.opset_import, sorted(opsets, key=lambda opset: opset.domain))


class _Renamer:
    def __init__(self, names: Mapping[str, str]) -> None:
        self.taken = set(names.values())
        self.counts: Counter[str] = Counter()

    def rename_graph(
        self, graph: GraphProto, outer: Mapping[str, str], ends: Mapping[str, str]
    ) -> None:
        """Order a graph and rename everything in it.

        Args:
            graph: edited in place.
            outer: new names of the tensors that it may read from the graphs around it.
            ends: new names of its inputs and outputs, if they are given.
        """
        _reorder(graph)
        names = dict(outer)
        for i, info in enumerate(graph.input):
            names[info.name] = ends.get(info.name) or self.fresh(f"input_{i}")
        for info in graph.output:  # before the nodes, which write them
            if info.name in ends:
                names[info.name] = ends[info.name]
        for tensor in graph.initializer:
            names[tensor.name] = tensor.name = self.fresh("constant")
            tensor.ClearField("doc_string")
        for node in graph.node:
            self.rename_node(node, names)
        for info in (*graph.input, *graph.output):
            info.name = names[info.name]
            info.ClearField("doc_string")
            for dim in info.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")  # numbered by a counter that never restarts
        for field in ("value_info", "doc_string", "metadata_props", "quantization_annotation"):
            graph.ClearField(field)

    def rename_node(self, node: NodeProto, names: dict[str, str]) -> None:
        node.name = self.fresh(node.op_type)
        node.ClearField("doc_string")
        if node.domain in DEFAULT_DOMAINS:
            node.ClearField("domain")
        del node.metadata_props[:]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        replace_messages(node.attribute, map(_without_names, attributes))
        for body in subgraphs(node):
            body.name = self.fresh(f"{node.name}_body")
            self.rename_graph(body, names, {})
        for slot, name in enumerate(node.input):
            node.input[slot] = names[name] if name else ""
        for slot, name in enumerate(node.output):
            if not name:
                continue
            if name not in names:
                names[name] = self.fresh(f"{node.name}:{slot}", counted=False)
            node.output[slot] = names[name]

    def fresh(self, stem: str, *, counted: bool = True) -> str:
        """A name that no tensor and no node has yet."""
        name = f"{stem}_{self.counts[stem]}" if counted else stem
        self.counts[stem] += 1
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _without_names(attribute: AttributeProto) -> AttributeProto:
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    copy.ClearField("doc_string")
    for tensor in (*([copy.t] if copy.HasField("t") else []), *copy.tensors):
        tensor.ClearField("name")
        tensor.ClearField("doc_string")
    return copy


def _reorder(graph: GraphProto) -> None:
    nodes = _depth_first(graph)
    used = [name for node in nodes for name in (*node.input, *captured_names(node))]
    used += [info.name for info in graph.output]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    kept = [tensors[name] for name in dict.fromkeys(used) if name in tensors]
    replace_messages(graph.node, nodes)
    replace_messages(graph.initializer, kept)


def _depth_first(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the outputs need, each after its producers."""
    producers = {name: node for node in graph.node for name in node.output if name}
    done: dict[int, NodeProto] = {}
    waiting = [(producers[o.name], False) for o in reversed(graph.output) if o.name in producers]
    while waiting:
        node, entered = waiting.pop()
        if id(node) in done:
            continue
        if entered:
            done[id(node)] = node
            continue
        waiting.append((node, True))
        needed = [name for name in (*node.input, *captured_names(node)) if name in producers]
        waiting += [(producers[name], False) for name in reversed(needed)]
    return list(done.values())
