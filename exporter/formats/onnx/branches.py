"""Lift the branches of an If into the graph, so that a head in them can be traced and cut.

Exporters join two forms of a network in one file: a decoder that reads a cache, and one for the
first step. Both contain the head, mostly with the same weights. While a model is opened, the nodes
of both branches are nodes of the graph, and each output of the If comes from a node Choice, which
only this package knows and no written file contains. `nested` puts them back before the model is
run or written.

1. Only an If between the last products and the outputs is lifted; others are kept as they are.
2. Each lifted node states its If and its branch. A node that an edit adds belongs to the branch
   from which it reads.
3. Constants of branches become constants of the graph, which the branches read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FileNode,
    copy_of,
    file_nodes,
    model_without,
    names_read,
    rename_reads,
)

DOMAIN, CHOICE = "exporter.branches", "Choice"
_BRANCHES = ("then_branch", "else_branch")
_OWNER, _IF = "exporter.branch", "exporter.if"  # keys of a node's metadata
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})


def lifted(model: ModelProto, nodes: Sequence[FileNode]) -> ModelProto:
    """The model with the branches of its last Ifs in the graph; the model itself if it has none.

    Args:
        model: any.
        nodes: of its graph.
    """
    chosen = set(_last_ifs(model.graph, nodes))
    if not chosen:
        return model
    result = model_without(model, "node")
    defined = {tensor.name for tensor in model.graph.initializer}
    defined |= {info.name for info in model.graph.input}
    defined |= {made for node in model.graph.node for made in node.output if made}
    for node, name, *_ in nodes:
        if name not in chosen:
            result.graph.node.append(node)
            continue
        bodies = {attribute.name: attribute.g for attribute in node.attribute}
        made = [_lift(result.graph, f"{name}/{b}", bodies[b], defined) for b in _BRANCHES]
        for i, (output, *values) in enumerate(zip(node.output, *made, strict=True)):
            choice = result.graph.node.add(
                name=f"{name}/{i}", op_type=CHOICE, domain=DOMAIN, output=[output]
            )
            choice.input.extend([node.input[0], *values])
            choice.metadata_props.add(key=_IF, value=name)
    return result


def is_choice(node: NodeProto | FileNode) -> bool:
    return node.domain == DOMAIN


def lifted_tensors(nodes: Sequence[FileNode]) -> frozenset[str]:
    """The tensors of lifted branches; the runtime shows none of them."""
    if all(node.domain != DOMAIN for node in nodes):
        return frozenset()
    return frozenset(n for node in nodes if _fact(node.proto, _OWNER) for n in node.outputs)


def _last_ifs(graph: GraphProto, nodes: Sequence[FileNode]) -> Iterator[str]:
    """The names of Ifs."""
    if all(node.operator != "If" for node in nodes):
        return
    producers = {name: node for node in nodes for name in node.outputs if name}
    constants = {tensor.name for tensor in graph.initializer}
    waiting, seen = [info.name for info in graph.output], set[str]()
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.operator == "If" and node.domain in DEFAULT_DOMAINS:
            if {a.name for a in node.proto.attribute} == set(_BRANCHES):
                yield node.name
        elif not (node.operator in PRODUCTS and constants.intersection(node.inputs)):
            waiting += node.inputs


def _lift(graph: GraphProto, owner: str, source: GraphProto, defined: set[str]) -> list[str]:
    """Add the content of a branch to the graph; returns the names of its outputs there.

    Args:
        owner: the name of the If, and the branch.
        source: the branch.
        defined: the names of the tensors of the graph; changed.
    """
    body = copy_of(source)
    own = [*(t.name for t in body.initializer), *(n for node in body.node for n in node.output)]
    for name in filter(None, own):
        new = name
        if name in defined:
            new = next(n for i in count(1) if (n := f"{name}__{i}") not in defined | set(own))
            _rename(body, name, new)
        defined.add(new)
    made = {name for node in body.node for name in node.output}
    for info in body.output:
        if info.name not in made:  # the branch returns a tensor that it did not make
            new = next(n for i in count(1) if (n := f"{info.name}__{i}") not in defined)
            defined.add(new)
            body.node.append(helper.make_node("Identity", [info.name], [new], new))
            info.name = new
    for node, name, *_ in file_nodes(body):
        node.name = f"{owner}/{name}"
        node.metadata_props.add(key=_OWNER, value=owner)
    graph.node.extend(body.node)
    graph.initializer.extend(body.initializer)
    graph.sparse_initializer.extend(body.sparse_initializer)
    graph.value_info.extend(body.value_info)
    graph.value_info.extend(body.output)
    return [info.name for info in body.output]


def _rename(body: GraphProto, old: str, new: str) -> None:
    for node in body.node:
        rename_reads(node, old, new)
        for slot, name in enumerate(node.output):
            if name == old:
                node.output[slot] = new
    for named in (*body.initializer, *body.value_info, *body.output):
        if named.name == old:
            named.name = new


# --- back -----------------------------------------------------------------------------------------


def nested(model: ModelProto) -> ModelProto:
    """The model with its lifted branches in their Ifs again."""
    if not any(map(is_choice, model.graph.node)):
        return model
    owners = _owners(model.graph)
    infos = {info.name: info for info in model.graph.value_info}
    result = model_without(model, "node", "value_info")
    inner: dict[str, GraphProto] = {}
    choices: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if is_choice(node):
            choices.setdefault(_fact(node, _IF), []).append(node)
        elif owner := owners.get(node.name):
            inner.setdefault(owner, GraphProto()).node.append(_without_facts(node))
    done = set[str]()
    for node in model.graph.node:
        name = _fact(node, _IF)
        if is_choice(node) and name not in done:
            done.add(name)
            branches = [inner.get(f"{name}/{branch}", GraphProto()) for branch in _BRANCHES]
            result.graph.node.append(_if_of(name, choices[name], branches, infos))
        elif not is_choice(node) and node.name not in owners:
            result.graph.node.append(node)
    inside = {name for body in inner.values() for node in body.node for name in node.output}
    result.graph.value_info.extend(info for name, info in infos.items() if name not in inside)
    return result


def _if_of(
    name: str,
    choices: list[NodeProto],
    branches: list[GraphProto],
    infos: dict[str, ValueInfoProto],
) -> NodeProto:
    outputs = [choice.output[0] for choice in choices]
    for slot, (branch, body) in enumerate(zip(_BRANCHES, branches, strict=True), start=1):
        body.name = branch
        returned = [choice.input[slot] for choice in choices]
        body.output.extend(infos.get(each, ValueInfoProto(name=each)) for each in returned)
        made = {each for node in body.node for each in node.output} - set(returned)
        body.value_info.extend(infos[each] for each in sorted(made & infos.keys()))
    graphs = dict(zip(_BRANCHES, branches, strict=True))
    return helper.make_node("If", [choices[0].input[0]], outputs, name, **graphs)


def _owners(graph: GraphProto) -> dict[str, str]:
    """The name of a node -> the If and the branch to which it belongs."""
    producers = {name: node.name for node in graph.node for name in node.output if name}
    found: dict[str, str] = {}
    for node in graph.node:
        read = (found.get(producers.get(name, "")) for name in names_read(node))
        owner = _fact(node, _OWNER) or next(filter(None, read), "")
        if owner and not is_choice(node):
            found[node.name] = owner
    return found


def _fact(node: NodeProto, key: str) -> str:
    return next((str(each.value) for each in node.metadata_props if each.key == key), "")


def _without_facts(node: NodeProto) -> NodeProto:
    result = copy_of(node)
    kept = [each for each in node.metadata_props if each.key != _OWNER]
    del result.metadata_props[:]
    result.metadata_props.extend(kept)
    result.name = node.name.removeprefix(f"{_fact(node, _OWNER)}/")
    return result
