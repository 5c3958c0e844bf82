"""One canonical form for a converted ONNX graph, so that equal models give equal bytes.

tf2onnx orders nodes and initializers, and names merged constants, differently in every process.

0. Values have one name each (see `identities`).
1. Nodes stand in depth-first order from the outputs; what no output needs is dropped.
2. Initializers stand in the order of their first use.
3. Inner tensors and nodes are named by that order; inputs and outputs get the names given.
4. What describes and does not compute is dropped: doc strings, metadata, inner shapes, opsets that
   no node uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from exporter.conversion.remove_identities import bypass_identities
from exporter.formats.onnx.protos import DEFAULT_DOMAINS, captured_names, subgraphs


def canonicalize(model: ModelProto, names: Mapping[str, str]) -> None:
    """Bring a model into the canonical form, in place.

    Args:
        model: without functions and sparse initializers.
        names: of its inputs and outputs, old -> new; they stay as they are where left out.
    """
    bypass_identities(model.graph)
    _Namer(names).graph(model.graph, {}, names)
    del model.metadata_props[:]
    model.ClearField("doc_string")
    used = {
        "" if node.domain in DEFAULT_DOMAINS else node.domain for node in every_node(model.graph)
    }
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda entry: entry.domain))


class _Namer:
    def __init__(self, names: Mapping[str, str]) -> None:
        self.taken = set(names.values())
        self.counts: Counter[str] = Counter()

    def graph(self, graph: GraphProto, outer: Mapping[str, str], given: Mapping[str, str]) -> None:
        """Order and rename a graph.

        Args:
            graph: edited in place.
            outer: new names of what it may read from outside.
            given: new names of its inputs and outputs, where they are known.
        """
        _reorder(graph)
        names = dict(outer)
        for i, info in enumerate(graph.input):
            names[info.name] = given.get(info.name) or self.fresh(f"input_{i}")
        for info in graph.output:  # named first: a node's own output may be one of them
            if info.name in given:
                names[info.name] = given[info.name]
        for tensor in graph.initializer:
            names[tensor.name] = tensor.name = self.fresh("constant")
            tensor.ClearField("doc_string")
        for node in graph.node:
            self.node(node, names)
        for info in (*graph.input, *graph.output):
            info.name = names[info.name]
            info.ClearField("doc_string")
            for dim in info.type.tensor_type.shape.dim:
                dim.ClearField("dim_param")  # numbered by a counter that never restarts
        for field in ("value_info", "doc_string", "metadata_props", "quantization_annotation"):
            graph.ClearField(field)

    def node(self, node: NodeProto, names: dict[str, str]) -> None:
        node.name = self.fresh(node.op_type)
        node.ClearField("doc_string")
        if node.domain in DEFAULT_DOMAINS:
            node.ClearField("domain")
        del node.metadata_props[:]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        copies = [_copy(attribute) for attribute in attributes]
        del node.attribute[:]
        node.attribute.extend(copies)
        for body in subgraphs(node):
            body.name = self.fresh(f"{node.name}_body")
            self.graph(body, names, {})
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


def _copy(attribute: AttributeProto) -> AttributeProto:
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
    wanted = [tensors[name] for name in dict.fromkeys(used) if name in tensors]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    values = [type(tensor).FromString(tensor.SerializeToString()) for tensor in wanted]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.initializer[:]
    graph.initializer.extend(values)


def _depth_first(graph: GraphProto) -> list[NodeProto]:
    """The nodes that the outputs need, each behind those that it reads from."""
    makers = {name: node for node in graph.node for name in node.output if name}
    done: dict[int, NodeProto] = {}
    waiting = [(makers[o.name], False) for o in reversed(graph.output) if o.name in makers]
    while waiting:
        node, entered = waiting.pop()
        if id(node) in done:
            continue
        if entered:
            done[id(node)] = node
            continue
        waiting.append((node, True))
        needed = [name for name in (*node.input, *captured_names(node)) if name in makers]
        waiting += [(makers[name], False) for name in reversed(needed)]
    return list(done.values())


def every_node(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from every_node(body)
