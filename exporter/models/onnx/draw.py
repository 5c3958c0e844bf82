"""Draw the neutral graph of an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto

from exporter.errors import ModelError
from exporter.graph import Graph, Node, Tensor
from exporter.models.onnx.call import Call
from exporter.models.onnx.constants import constants_of, is_constant_node
from exporter.models.onnx.protos import (
    attributes_of,
    captured,
    copy_without,
    dtype_of,
    opset_of,
    shape_of,
    tensor_type,
)
from exporter.models.onnx.table import translate
from exporter.operations import Opaque, Operation

_SMALL = 1024  # elements; constants above it carry no shapes, and need not pass through inference


@dataclass(frozen=True, eq=False)
class Drawing:
    """A neutral graph, and what is needed to find its parts in the file again.

    Attributes:
        names: the neutral name of every node of the file, in the file's order.
        types: tensor name -> its type, as stated or inferred.
    """

    graph: Graph
    names: tuple[str, ...]
    types: Mapping[str, TypeProto]


def draw(model: ModelProto) -> Drawing:
    """The neutral graph; no weight is copied.

    Raises:
        ModelError: two tensors of one name, or a tensor that is read before anything makes it.
    """
    source = model.graph
    names = _node_names(source)
    constants = constants_of(source)
    types = _types(model, constants)
    inputs = tuple(info.name for info in source.input if info.name not in constants)
    _check_order(source, names, {*inputs, *constants})
    tensors = {name: Tensor(name, shape_of(t), dtype_of(t)) for name, t in types.items()}
    made = (name for node in source.node for name in node.output if name)
    for name in (*_names_read(source), *made):
        tensors.setdefault(name, Tensor(name, None, dtype_of(None)))
    tensors.update(constants)
    outputs = tuple(info.name for info in source.output)
    nodes = _nodes(model, names, tensors)
    return Drawing(Graph(nodes, tensors, inputs, outputs), names, types)


def _nodes(
    model: ModelProto, names: tuple[str, ...], tensors: Mapping[str, Tensor]
) -> tuple[Node, ...]:
    opset = opset_of(model)
    own = {(function.domain, function.name) for function in model.functions}
    read = frozenset(_names_read(model.graph))
    nodes = []
    for name, proto in zip(names, model.graph.node, strict=True):
        if is_constant_node(proto):
            continue
        inputs, outputs = (*proto.input, *captured(proto)), tuple(proto.output)
        call = Call(attributes_of(proto), inputs, outputs, opset, tensors, read)
        if (proto.domain, proto.op_type) in own:
            operation: Operation = Opaque("it is a function of the file's own")
        else:
            operation = translate(proto.domain, proto.op_type, call)
        nodes.append(Node(name, proto.op_type, operation, inputs, outputs))
    return tuple(nodes)


def _node_names(graph: GraphProto) -> tuple[str, ...]:
    """The file's names where they are there and not yet taken; the index tells the others apart."""
    names: dict[str, None] = {}
    for index, node in enumerate(graph.node):
        name = node.name
        while not name or name in names:
            name += f"#{index}"
        names[name] = None
    return tuple(names)


def _names_read(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (name for name in (*node.input, *captured(node)) if name)
    yield from (info.name for info in graph.output)


def _check_order(graph: GraphProto, names: tuple[str, ...], known: set[str]) -> None:
    known = known | {sparse.values.name for sparse in graph.sparse_initializer}
    for name, node in zip(names, graph.node, strict=True):
        for read in (*node.input, *captured(node)):
            if read and read not in known:
                raise ModelError(
                    f"{node.op_type} {name!r} reads {read!r}, which nothing before it makes",
                    "sort the nodes into running order, without cycles",
                )
        made = () if is_constant_node(node) else [made for made in node.output if made]
        for tensor in made:
            if tensor in known:
                raise ModelError(f"{node.op_type} {name!r} makes {tensor!r} a second time")
            known.add(tensor)
    for info in graph.output:
        if info.name not in known:
            raise ModelError(f"nothing makes the output {info.name!r}")


# --- types ---------------------------------------------------------------------------------------


def _types(model: ModelProto, constants: Mapping[str, Tensor]) -> dict[str, TypeProto]:
    """Types as stated, completed by shape inference over a skeleton without the large constants."""
    skeleton = _skeleton(model, constants)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):  # contradictions, unknown types
        inferred = skeleton  # what the file states must do then
    graph = inferred.graph
    return {info.name: info.type for info in (*graph.value_info, *graph.input, *graph.output)}


def _skeleton(model: ModelProto, constants: Mapping[str, Tensor]) -> ModelProto:
    """The model with every large constant turned into an input of its type."""
    source = model.graph
    result = copy_without(model, "graph")
    result.graph.CopyFrom(copy_without(source, "node", "initializer"))
    large = {name for name, tensor in constants.items() if _elements(tensor) > _SMALL}
    stated = {info.name for info in source.input}
    result.graph.input.extend(_as_input(constants[name]) for name in sorted(large - stated))
    result.graph.initializer.extend(t for t in source.initializer if t.name not in large)
    result.graph.node.extend(n for n in source.node if not _holds_one_of(n, large))
    return result


def _elements(tensor: Tensor) -> int:
    count = 1
    for length in tensor.shape or ():
        count *= length or 0
    return count


def _holds_one_of(node: NodeProto, large: set[str]) -> bool:
    return is_constant_node(node) and node.output[0] in large


def _as_input(constant: Tensor) -> ValueInfoProto:
    return ValueInfoProto(
        name=constant.name, type=tensor_type(constant.dtype, constant.shape or ())
    )
