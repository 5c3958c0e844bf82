"""Draw the neutral graph of an ONNX model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain

from onnx import ModelProto, NodeProto, TypeProto

from exporter.errors import ModelError
from exporter.formats.onnx.branches import lifted_tensors
from exporter.formats.onnx.constants import constants_of
from exporter.formats.onnx.inference import Inferred, Known, infer
from exporter.formats.onnx.labels import labels_of
from exporter.formats.onnx.node_view import NodeView
from exporter.formats.onnx.operators.products import products_of
from exporter.formats.onnx.protos import (
    FileNode,
    attributes_of,
    dtype_of,
    file_nodes,
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
from exporter.graph.operations import Operation
from exporter.graph.products import Products
from exporter.graph.softmax import combine_softmaxes
from exporter.graph.walk import dependents
from exporter.remap import Remap


@dataclass(frozen=True, eq=False)
class Drawing:
    """A neutral graph, and how to find its parts in the file.

    Attributes:
        graph: the neutral graph.
        nodes: every node of the file, in the file's order.
        constants: of the graph.
        types: tensor name -> its type, as stated or inferred.
        measured: tensor name -> its shape in one run, where the type leaves lengths open. The
            neutral graph has these shapes.
    """

    graph: Graph
    nodes: Sequence[FileNode]
    constants: Mapping[str, Tensor]
    types: Mapping[str, TypeProto]
    measured: Mapping[str, Shape]

    @cached_property
    def protos(self) -> Mapping[str, NodeProto]:
        """Name of a node -> its message, in the file's order."""
        return {node.name: node.proto for node in self.nodes}

    @cached_property
    def producers(self) -> Mapping[str, str]:
        """Name of a tensor -> name of the node that computes it."""
        return {name: node.name for name, (node, _) in self.graph.producers.items()}


def draw(
    model: ModelProto,
    known: Known | None = None,
    remap: Remap | None = None,
    nodes: Sequence[FileNode] | None = None,
) -> Drawing:
    """The neutral graph; no weight is copied.

    Args:
        model: the parsed file, its nodes in an order in which they can run.
        nodes: of its graph, if they were read before.
        known: what is known about the file besides its content.
        remap: of an earlier cut, which the file contains.

    Raises:
        ModelError: two tensors of one name, or a tensor that is read before a node makes it.
    """
    source = model.graph
    file = file_nodes(source) if nodes is None else nodes
    known = known or Known()
    read = read_tensor if known.external is None else known.external.read
    constants = constants_of(source, read)
    inputs = tuple(info.name for info in source.input if info.name not in constants)
    check_order(source, file, {*inputs, *constants})
    found = infer(model, file, constants, known)
    constants |= found.constants
    outputs = tuple(info.name for info in source.output)
    tensors = _Tensors(found, constants, inputs, (*_names_read(file), *outputs, *_names_made(file)))
    translator = _Translator(model, file, tensors, constants)
    drawn = tuple(
        Node.translated_later(
            node.name, node.operator, node.inputs, node.outputs, partial(translator, node)
        )
        for node in file
        if not (node.outputs and node.outputs[0] in constants)  # a constant of the neutral graph
    )
    graph = add_quantization(Graph(drawn, tensors, inputs, outputs))
    graph = combine_softmaxes(graph, {"Div", "Sub"})
    labels = {**labels_in_tables(graph, constants), **labels_of(model, graph, remap)}
    varying = _selected(graph).intersection(found.measured) if found.measured else frozenset()
    graph = replace(graph, labels=labels, hidden=lifted_tensors(file), varying=varying)
    if any(None in (graph.tensors[name].shape or ())[1:] for name in inputs):
        graph = replace(graph, open_axes=_open_axes(found))
    return Drawing(graph, file, constants, found.types, found.measured)


def _open_axes(found: Inferred) -> dict[str, frozenset[int]]:
    """Tensor -> its axes with a length that is known from one run only."""
    stated = {name: shape_of(found.types.get(name)) or () for name in found.measured}
    return {name: frozenset(i for i, n in enumerate(s) if n is None) for name, s in stated.items()}


# The values that these operators read decide how many values they return.
_SELECT = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})


def _selected(graph: Graph) -> frozenset[str]:
    """The tensors with values that are selected at run time, and all that depend on them."""
    selecting = [node for node in graph.nodes if node.operator in _SELECT]
    return frozenset(dependents(graph, [name for node in selecting for name in node.outputs]))


class _Tensors(Mapping[str, Tensor]):
    """Every tensor of a file by name; each is made when it is first read.

    Raises:
        ModelError: when a tensor is read that has an axis of an impossible length.
    """

    def __init__(
        self,
        found: Inferred,
        constants: Mapping[str, Tensor],
        inputs: tuple[str, ...],
        names: Iterable[str],
    ) -> None:
        self._found, self._inputs = found, inputs
        self._names = dict.fromkeys((*found.types, *names, *constants))
        self._names.pop("", None)
        self._made = dict(constants)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._tensor(name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _tensor(self, name: str) -> Tensor:
        kind = self._found.types.get(name)
        shape = self._found.measured.get(name, shape_of(kind))
        longest = max((n or 0 for n in shape or ()), default=0)
        if longest > _LONGEST_AXIS:
            raise ModelError(
                f"the tensor {name!r} has an axis of {longest}: at most {_LONGEST_AXIS} is possible"
            )
        symbols = symbols_of(kind) if kind is not None and name in self._inputs else ()
        return Tensor(name, shape, dtype_of(kind), symbols=symbols)


_LONGEST_AXIS = 2**26  # the trace has an array with an entry for each position of an axis


class _Translator:
    """Translates the nodes of one file."""

    def __init__(
        self,
        model: ModelProto,
        nodes: Sequence[FileNode],
        tensors: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
    ) -> None:
        self._nodes, self._tensors, self._constants = nodes, tensors, constants
        self._outputs = tuple(info.name for info in model.graph.output)
        self._opset = opset_of(model)

    def __call__(self, node: FileNode) -> tuple[Operation, Products]:
        view = NodeView(
            attributes=attributes_of(node.proto),
            inputs=node.inputs,
            outputs=node.outputs,
            opset=self._opset,
            tensors=self._tensors,
            read=lambda: self._read,
            fixed=lambda: self._fixed,
            shape_entries=lambda slot: self._vectors.entries(node.name, slot),
            axes_read=lambda: self._vectors.axes_read(node.name),
        )
        operation = translate(node.proto.domain, node.operator, view)
        return operation, products_of(node.operator, view, operation)

    @cached_property
    def _read(self) -> frozenset[str]:
        return frozenset((*_names_read(self._nodes), *self._outputs))

    @cached_property
    def _fixed(self) -> frozenset[str]:
        found = {"", *self._constants}
        for node in self._nodes:
            if any(node.inputs) and found.issuperset(node.inputs):
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def _vectors(self) -> ShapeVectors:
        return ShapeVectors(
            {node.name: node.proto for node in self._nodes}, self._tensors, self._outputs
        )


def _names_read(nodes: Iterable[FileNode]) -> Iterator[str]:
    return chain.from_iterable(node.inputs for node in nodes)


def _names_made(nodes: Iterable[FileNode]) -> Iterator[str]:
    return chain.from_iterable(node.outputs for node in nodes)
