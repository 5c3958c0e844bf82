"""Draw a file as a neutral graph: subgraph 0, with unique names.

A tensor that the first signature names has that name. All others keep their own, followed by "#"
and their index if it is empty or taken. A node is named after its first output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from exporter.formats.tflite import constants, shapes
from exporter.formats.tflite.custom import read_options
from exporter.formats.tflite.labels import labels
from exporter.formats.tflite.metadata import NAME, normalizations, sample_rates
from exporter.formats.tflite.operator_view import SLOT_ORDER, KnownShapes, OperatorView
from exporter.formats.tflite.operators.products import products_of
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema import (
    File,
    integers,
    metadata,
    operator_name,
    signatures,
    text,
)
from exporter.formats.tflite.silu import with_silu
from exporter.formats.tflite.table import translate
from exporter.graph import Array, Graph, Node, Shape, Tensor, Use
from exporter.graph.operations import Reshape
from exporter.graph.softmax import combine_softmaxes

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Drawing:
    """The graph of a file, and the file's indices of its names.

    Attributes:
        tensors: graph name -> index of the tensor in subgraph 0.
        nodes: graph name -> index of the operator in subgraph 0.
        inputs, outputs: every name that users may see -> index of the tensor. A tensor that is
            returned under two names is in the graph under the first.
        returned: the outputs in the file's order, by which metadata refers to them.
        custom_operators: the names of the operators that are not builtin.
    """

    graph: Graph
    tensors: Mapping[str, int]
    nodes: Mapping[str, int]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    returned: tuple[str, ...]
    custom_operators: tuple[str, ...] = ()

    def file_slot(self, use: Use, operator: str) -> int:
        """The slot in the file of a use in the graph."""
        return SLOT_ORDER[operator][use.slot] if operator in SLOT_ORDER else use.slot


def draw(file: File) -> Drawing:
    """Draw a file; its indices were checked."""
    interface = _interface(file)
    names = _names(file, interface)
    tensors = [_tensor(file, i, name) for i, name in enumerate(names)]
    views = [_view(file, operator, tensors) for operator in file.main.operators or ()]
    known_shapes, fixed = shapes.evaluate(views), _fixed(views)
    nodes: list[Node] = []
    taken: set[str] = set()
    for i, view in enumerate(views):
        nodes.append(_node(replace(view, known_shapes=known_shapes, fixed=fixed), i, taken))
        taken.add(nodes[-1].name)
    inputs, outputs = ({names[i]: i for _, i in ends} for ends in interface)
    by_name = {tensor.name: tensor for tensor in tensors}
    computing = _without_shape_arithmetic(nodes, known_shapes, outputs)
    graph = combine_softmaxes(
        Graph(tuple(with_silu(computing, by_name)), by_name, tuple(inputs), tuple(outputs)),
        {"DIV", "SUB"},
    )
    returned = tuple(names[i] for i in integers(file.main.outputs))
    fed = [names[i] for i in integers(file.main.inputs)]
    return Drawing(
        graph=replace(
            graph,
            labels=labels(file, graph, returned),
            normalization=_stated(file, fed, normalizations),
            sample_rates=_stated(file, fed, sample_rates),
            other_entries=tuple(
                text(each.signatureKey)
                for each in file.model.signatureDefs or ()
                if each.subgraphIndex != 0
            ),
        ),
        tensors={name: i for i, name in enumerate(names)},
        nodes={node.name: i for i, node in enumerate(nodes)},
        inputs=dict(interface[0]) | inputs,
        outputs=dict(interface[1]) | outputs,
        returned=returned,
        custom_operators=tuple(
            text(code.customCode) for code in file.model.operatorCodes or () if code.customCode
        ),
    )


Ends = list[tuple[str, int]]  # name and tensor index of each input, or of each output


def _stated(
    file: File, inputs: Sequence[str], read: Callable[[bytes], Sequence[T | None]]
) -> dict[str, T]:
    """Input name -> the property that the metadata states for it. Args: read: finds it."""
    data = metadata(file.model, NAME)
    stated = [] if data is None else read(data.tobytes())
    return {name: found for name, found in zip(inputs, stated, strict=False) if found is not None}


def _interface(file: File) -> tuple[Ends, Ends]:
    """Inputs and outputs: first those of the signature, then the others of the subgraph."""
    found = signatures(file.model)
    first = found[0] if found else Record("SignatureDef")
    named_in, named_out = (
        [(text(end.name), int(end.tensorIndex)) for end in ends or ()]
        for ends in (first.inputs, first.outputs)
    )
    inputs = _completed(file, named_in, file.main.inputs, {})
    return inputs, _completed(file, named_out, file.main.outputs, {i: n for n, i in inputs})


def _completed(file: File, named: Ends, indices: Any, known: Mapping[int, str]) -> Ends:
    """Inputs or outputs, with those that the signature leaves out under their tensors' names."""
    ends = list(named)
    done = {index for _, index in named}
    taken = {*known.values(), *(name for name, _ in named)}
    for index in integers(indices):
        if index not in done:
            own = text(file.main.tensors[index].name)
            name = known.get(index) or _unique(own, index, taken)
            ends.append((name, index))
            taken.add(name)
            done.add(index)
    return ends


def _names(file: File, interface: tuple[Ends, Ends]) -> list[str]:
    seen: dict[int, str] = {}
    taken: set[str] = set()
    for name, index in [*interface[0], *interface[1]]:
        if index not in seen and name not in taken:
            seen[index] = name
            taken.add(name)
    names: list[str] = []
    for index, tensor in enumerate(file.main.tensors or ()):
        name = seen.get(index) or _unique(text(tensor.name), index, taken)
        taken.add(name)
        names.append(name)
    return names


def _unique(name: str, index: int, taken: set[str]) -> str:
    while not name or name in taken:
        name = f"{name}#{index}"
    return name


def _tensor(file: File, index: int, name: str) -> Tensor:
    tensor = file.main.tensors[index]
    buffer = file.model.buffers[tensor.buffer]
    read: Callable[[], Array] | None = None
    if buffer.data is not None and len(buffer.data) and not tensor.isVariable:
        read = partial(constants.values, tensor, buffer)
    shape = _shape(tensor, is_constant=read is not None)
    dtype = constants.type_name(tensor)
    if tensor.sparsity is not None:  # NumPy cannot read it
        dtype = f"sparse {dtype}"
    return Tensor(name, shape, dtype, read, constants.quantization(tensor))


def _shape(tensor: Any, *, is_constant: bool) -> Shape | None:
    """The shape signature, or else the shape; an empty one means a scalar or an unknown rank."""
    entries = integers(tensor.shapeSignature) or integers(tensor.shape)
    if not entries:
        return () if is_constant or tensor.hasRank else None
    return tuple(None if n < 0 else n for n in entries)


def _view(file: File, operator: Any, tensors: list[Tensor]) -> OperatorView:
    indices = integers(operator.inputs)
    return OperatorView(
        operator=operator_name(file.model, operator),
        options=operator.builtinOptions,
        inputs=tuple(None if i < 0 else tensors[i] for i in indices),
        outputs=tuple(tensors[i] for i in integers(operator.outputs)),
        has_sparse_input=any(i >= 0 and file.main.tensors[i].sparsity is not None for i in indices),
        known_shapes={},
        custom=read_options(operator.customOptions),
    )


def _fixed(views: list[OperatorView]) -> frozenset[str]:
    """The tensors that are computed from constants only."""
    found: set[str] = set()
    for view in views:
        given = [tensor for tensor in view.inputs if tensor is not None]
        if given and all(tensor.is_constant or tensor.name in found for tensor in given):
            found.update(tensor.name for tensor in view.outputs)
    return frozenset(found)


def _node(view: OperatorView, index: int, taken: set[str]) -> Node:
    inputs = ["" if tensor is None else tensor.name for tensor in view.inputs]
    outputs = tuple(tensor.name for tensor in view.outputs)
    order = [i for i in SLOT_ORDER.get(view.operator, range(len(inputs))) if i < len(inputs)]
    name = _unique(outputs[0] if outputs else view.operator, index, taken)
    slots, products = tuple(inputs[i] for i in order), products_of(view)
    return Node(name, view.operator, translate(view), slots, outputs, products)


def _without_shape_arithmetic(
    nodes: list[Node], known_shapes: KnownShapes, kept: Iterable[str]
) -> list[Node]:
    """Drop nodes that only compute the shape of a Reshape, which states that shape itself."""
    read = set(kept)
    result: list[Node] = []
    for node in reversed(nodes):
        if node.outputs and node.outputs[0] in known_shapes and not read & set(node.outputs):
            continue
        read.update(node.inputs[:1] if isinstance(node.operation, Reshape) else node.inputs)
        result.append(node)
    return result[::-1]
