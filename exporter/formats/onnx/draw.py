"""Draw the neutral graph of an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from onnx import GraphProto, ModelProto, TypeProto

from exporter.formats.onnx.branches import lifted_tensors
from exporter.formats.onnx.constants import constants_of, is_constant_node
from exporter.formats.onnx.inference import Inferred, Known, infer
from exporter.formats.onnx.labels import labels_of
from exporter.formats.onnx.node_view import NodeView
from exporter.formats.onnx.operators.products import products_of
from exporter.formats.onnx.protos import (
    attributes_of,
    captured_names,
    dtype_of,
    names_read,
    node_names,
    opset_of,
    read_tensor,
    shape_of,
    symbols_of,
)
from exporter.formats.onnx.quantized_values import add_quantization
from exporter.formats.onnx.shape_vectors import ShapeVectors
from exporter.formats.onnx.table import translate
from exporter.formats.onnx.table_labels import labels_in_tables
from exporter.formats.onnx.validate import check_order
from exporter.graph import Graph, Node, Shape, Tensor
from exporter.graph.softmax import combine_softmaxes
from exporter.graph.walk import dependents
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Drawing:
    """A neutral graph, and how to find its parts in the file.

    Attributes:
        graph: the neutral graph.
        names: the neutral name of every node of the file, in the file's order.
        types: tensor name -> its type, as stated or inferred.
        measured: tensor name -> its shape in one run, where the type leaves lengths open. The
            neutral graph has these shapes.
    """

    graph: Graph
    names: tuple[str, ...]
    types: Mapping[str, TypeProto]
    measured: Mapping[str, Shape]


def draw(model: ModelProto, known: Known | None = None, remap: Remap | None = None) -> Drawing:
    """The neutral graph; no weight is copied.

    Args:
        model: the parsed file, its nodes in an order in which they can run.
        known: what is known about the file besides its content.
        remap: of an earlier cut, which the file contains.

    Raises:
        ModelError: two tensors of one name, or a tensor that is read before a node makes it.
    """
    source = model.graph
    names = node_names(source)
    known = known or Known()
    read = read_tensor if known.external is None else known.external.read
    constants = constants_of(source, read)
    inputs = tuple(info.name for info in source.input if info.name not in constants)
    check_order(source, names, {*inputs, *constants})
    found = infer(model, constants, known)
    constants |= found.constants
    tensors = _tensors(found, inputs)
    made = (name for node in source.node for name in node.output if name)
    for name in (*_all_names_read(source), *made):
        tensors.setdefault(name, Tensor(name, None, dtype_of(None)))
    tensors.update(constants)
    outputs = tuple(info.name for info in source.output)
    nodes = _nodes(model, names, tensors)
    graph = combine_softmaxes(add_quantization(Graph(nodes, tensors, inputs, outputs)))
    labels = {**labels_in_tables(graph), **labels_of(model, graph, remap)}
    varying = _selected(graph).intersection(found.measured)
    graph = replace(graph, labels=labels, hidden=lifted_tensors(source), varying=varying)
    return Drawing(graph, names, found.types, found.measured)


# The values that these operators read decide how many values they return.
_SELECT = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})


def _selected(graph: Graph) -> frozenset[str]:
    """The tensors with values that are selected at run time, and all that depend on them."""
    selecting = [node for node in graph.nodes if node.operator in _SELECT]
    return frozenset(dependents(graph, [name for node in selecting for name in node.outputs]))


def _tensors(found: Inferred, inputs: tuple[str, ...]) -> dict[str, Tensor]:
    tensors = {}
    for name, kind in found.types.items():
        shape = found.measured.get(name, shape_of(kind))
        symbols = symbols_of(kind) if name in inputs else ()
        tensors[name] = Tensor(name, shape, dtype_of(kind), symbols=symbols)
    return tensors


def _nodes(
    model: ModelProto, names: tuple[str, ...], tensors: Mapping[str, Tensor]
) -> tuple[Node, ...]:
    opset = opset_of(model)
    read = frozenset(_all_names_read(model.graph))
    fixed = _fixed(model.graph, tensors)
    protos = dict(zip(names, model.graph.node, strict=True))
    vectors = ShapeVectors(protos, tensors, [info.name for info in model.graph.output])
    nodes = []
    for name, proto in protos.items():
        if is_constant_node(proto) or (proto.output and tensors[proto.output[0]].is_constant):
            continue  # the output is a constant of the neutral graph
        node = NodeView(
            attributes=attributes_of(proto),
            inputs=(*proto.input, *captured_names(proto)),
            outputs=tuple(proto.output),
            opset=opset,
            tensors=tensors,
            read=read,
            fixed=fixed,
            shape_entries=partial(vectors.entries, name),
            axes_read=partial(vectors.axes_read, name),
        )
        operation = translate(proto.domain, proto.op_type, node)
        products = products_of(proto.op_type, node, operation)
        nodes.append(Node(name, proto.op_type, operation, node.inputs, node.outputs, products))
    return tuple(nodes)


def _fixed(graph: GraphProto, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """The tensors that are computed from constants alone."""
    found = set[str]()
    for node in graph.node:
        read = names_read(node)
        if read and all(name in found or tensors[name].is_constant for name in read):
            found.update(name for name in node.output if name)
    return frozenset(found)


def _all_names_read(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from names_read(node)
    yield from (info.name for info in graph.output)
