"""Draw the neutral graph of an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from onnx import GraphProto, ModelProto, TypeProto

from exporter.errors import ModelError
from exporter.formats.onnx.call import Call
from exporter.formats.onnx.constants import Read, constants_of, is_constant_node
from exporter.formats.onnx.inference import types_of
from exporter.formats.onnx.labels import labels_of
from exporter.formats.onnx.protos import (
    attributes_of,
    captured,
    dtype_of,
    node_names,
    opset_of,
    read_tensor,
    shape_of,
)
from exporter.formats.onnx.quantized_values import with_codes
from exporter.formats.onnx.shape_inference_by_node import folded
from exporter.formats.onnx.shape_vectors import Lengths
from exporter.formats.onnx.table import translate
from exporter.graph import Graph, Node, Tensor
from exporter.graph.operations import Opaque, Operation
from exporter.graph.softmax import combine_softmaxes


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


def draw(model: ModelProto, read: Read = read_tensor) -> Drawing:
    """The neutral graph; no weight is copied.

    Args:
        model: the parsed file.
        read: gives the values of a constant, wherever they lie.

    Raises:
        ModelError: two tensors of one name, or a tensor that is read before anything makes it.
    """
    source = model.graph
    names = node_names(source)
    constants = constants_of(source, read)
    inputs = tuple(info.name for info in source.input if info.name not in constants)
    _check_order(source, names, {*inputs, *constants})
    constants |= folded(model, constants)
    types = types_of(model, constants)
    tensors = {name: Tensor(name, shape_of(t), dtype_of(t)) for name, t in types.items()}
    made = (name for node in source.node for name in node.output if name)
    for name in (*_names_read(source), *made):
        tensors.setdefault(name, Tensor(name, None, dtype_of(None)))
    tensors.update(constants)
    outputs = tuple(info.name for info in source.output)
    nodes = _nodes(model, names, tensors)
    graph = combine_softmaxes(with_codes(Graph(nodes, tensors, inputs, outputs)))
    graph = replace(graph, labels=labels_of(model, graph))
    return Drawing(graph, names, types)


def _nodes(
    model: ModelProto, names: tuple[str, ...], tensors: Mapping[str, Tensor]
) -> tuple[Node, ...]:
    opset = opset_of(model)
    own = {(function.domain, function.name) for function in model.functions}
    read = frozenset(_names_read(model.graph))
    fixed = _fixed(model.graph, tensors)
    protos = dict(zip(names, model.graph.node, strict=True))
    lengths = Lengths(protos, tensors, [info.name for info in model.graph.output])
    nodes = []
    for name, proto in protos.items():
        if is_constant_node(proto) or (proto.output and tensors[proto.output[0]].is_constant):
            continue  # it holds a value, or comes to one that constants alone decide
        inputs, outputs = (*proto.input, *captured(proto)), tuple(proto.output)
        call = Call(
            attributes_of(proto),
            inputs,
            outputs,
            opset,
            tensors,
            read,
            fixed,
            partial(lengths.at, name),
            partial(_axes_read, lengths, name, tensors),
        )
        if (proto.domain, proto.op_type) in own:
            operation: Operation = Opaque("it is a function of the file's own")
        else:
            operation = translate(proto.domain, proto.op_type, call)
        nodes.append(Node(name, proto.op_type, operation, inputs, outputs))
    return tuple(nodes)


def _fixed(graph: GraphProto, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """The tensors that are computed from constants alone."""
    found = set[str]()
    for node in graph.node:
        read = [name for name in (*node.input, *captured(node)) if name]
        if read and all(name in found or tensors[name].is_constant for name in read):
            found.update(name for name in node.output if name)
    return frozenset(found)


def _axes_read(lengths: Lengths, node: str, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    shape = tensors[lengths.nodes[node].input[0]].shape
    return lengths.axes_read(node, len(shape or ()))


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
                    "the file is cut short or damaged",
                )
        made = () if is_constant_node(node) else [made for made in node.output if made]
        for tensor in made:
            if tensor in known:
                raise ModelError(f"{node.op_type} {name!r} makes {tensor!r} a second time")
            known.add(tensor)
    for info in graph.output:
        if info.name not in known:
            raise ModelError(f"nothing makes the output {info.name!r}")
