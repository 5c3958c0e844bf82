"""The neutral picture of a file: subgraph 0, with names that are unique and those that users see.

A tensor that the first signature names has that name; all others have their own, with "#" and their
index behind it where it is empty or taken. A node is named after its first output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from exporter.formats.tflite import constants, shapes
from exporter.formats.tflite.call import SLOTS, Call, Values
from exporter.formats.tflite.custom import read_options
from exporter.formats.tflite.folding import folded
from exporter.formats.tflite.label_files import labels
from exporter.formats.tflite.schema import File, text
from exporter.formats.tflite.table import translate
from exporter.graph import Array, Graph, Node, Shape, Tensor, Use
from exporter.graph.operations import Reshape
from exporter.graph.softmax import combine_softmaxes

_OPERATORS = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}


@dataclass(frozen=True, eq=False)
class Picture:
    """The graph, and where its names stand in the file.

    Attributes:
        tensors: graph name -> index of the tensor in subgraph 0.
        nodes: graph name -> index of the operator in subgraph 0.
        inputs, outputs: every name that users may see -> index of the tensor. A tensor that is
            returned under two names is in the graph under the first.
        returned: the outputs in the file's order, which metadata counts on.
    """

    graph: Graph
    tensors: Mapping[str, int]
    nodes: Mapping[str, int]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    returned: tuple[str, ...]

    def file_slot(self, use: Use, operator: str) -> int:
        """The slot in the file of a use in the graph."""
        return SLOTS[operator][use.slot] if operator in SLOTS else use.slot


def draw(file: File) -> Picture:
    """The picture of a file whose bounds were checked."""
    interface = _interface(file)
    names = _names(file, interface)
    tensors = [_tensor(file, i, name) for i, name in enumerate(names)]
    calls = [_call(file, operator, tensors) for operator in file.main.operators or ()]
    values, fixed = shapes.evaluate(calls), _fixed(calls)
    nodes: list[Node] = []
    taken: set[str] = set()
    for i, call in enumerate(calls):
        nodes.append(_node(replace(call, values=values, fixed=fixed), i, taken))
        taken.add(nodes[-1].name)
    inputs, outputs = ({names[i]: i for _, i in ends} for ends in interface)
    by_name = {tensor.name: tensor for tensor in tensors}
    graph = Graph(
        tuple(folded(_without_shape_arithmetic(nodes, values, set(outputs)), by_name)),
        by_name,
        tuple(inputs),
        tuple(outputs),
    )
    graph = combine_softmaxes(graph)
    listed = [] if file.main.outputs is None else file.main.outputs
    returned = tuple(names[i] for i in listed)
    graph = replace(graph, labels=labels(file, graph, returned))
    where = {name: i for i, name in enumerate(names)}
    places = {node.name: i for i, node in enumerate(nodes)}
    ends = dict(interface[0]) | inputs, dict(interface[1]) | outputs
    return Picture(graph, where, places, *ends, returned)


def signatures(model: Any) -> list[Any]:
    """The SignatureDefT objects of subgraph 0."""
    return [each for each in model.signatureDefs or () if each.subgraphIndex == 0]


Ends = list[tuple[str, int]]


def _interface(file: File) -> tuple[Ends, Ends]:
    """Names and indices of inputs and outputs: the signature's first, then what it leaves out."""
    found = signatures(file.model)
    first = found[0] if found else schema.SignatureDefT()
    named_in, named_out = (
        [(text(end.name), int(end.tensorIndex)) for end in ends or ()]
        for ends in (first.inputs, first.outputs)
    )
    inputs = _completed(file, named_in, file.main.inputs, {})
    return inputs, _completed(file, named_out, file.main.outputs, {i: n for n, i in inputs})


def _completed(file: File, named: Ends, indices: Any, known: Mapping[int, str]) -> Ends:
    """Inputs or outputs with those that the signature leaves out, under their tensors' names."""
    ends = list(named)
    done = {index for _, index in named}
    taken = {*known.values(), *(name for name, _ in named)}
    for index in [] if indices is None else [int(i) for i in indices]:
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
    shape = _shape(tensor, known=read is not None)
    dtype = constants.type_name(tensor)
    if tensor.sparsity is not None:  # no array of that type can be read
        dtype = f"sparse {dtype}"
    return Tensor(name, shape, dtype, read, constants.quantization(tensor))


def _shape(tensor: Any, *, known: bool) -> Shape | None:
    """The signature where there is one; no entries at all mean a scalar, or an unknown rank."""
    signature = tensor.shapeSignature
    entries = signature if signature is not None and len(signature) else tensor.shape
    if entries is None or not len(entries):
        return () if known or tensor.hasRank else None
    return tuple(None if n < 0 else int(n) for n in entries)


def _call(file: File, operator: Any, tensors: list[Tensor]) -> Call:
    indices = [] if operator.inputs is None else [int(i) for i in operator.inputs]
    results = [] if operator.outputs is None else [int(i) for i in operator.outputs]
    inputs = tuple(None if i < 0 else tensors[i] for i in indices)
    sparse = any(i >= 0 and file.main.tensors[i].sparsity is not None for i in indices)
    outputs = tuple(tensors[i] for i in results)
    name = operator_name(file.model, operator)
    options = read_options(operator.customOptions)
    return Call(name, operator.builtinOptions, inputs, outputs, sparse, {}, custom=options)


def _fixed(calls: list[Call]) -> frozenset[str]:
    """The tensors that are computed from constants alone."""
    found: set[str] = set()
    for call in calls:
        given = [tensor for tensor in call.inputs if tensor is not None]
        if given and all(tensor.is_constant or tensor.name in found for tensor in given):
            found.update(tensor.name for tensor in call.outputs)
    return frozenset(found)


def operator_name(model: Any, operator: Any) -> str:
    """The schema's name of an operator, or a custom operator's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)  # old files know the latter alone
    custom = text(code.customCode) if number == schema.BuiltinOperator.CUSTOM else ""
    return custom or _OPERATORS.get(number, f"operator {number}")


def _node(call: Call, index: int, taken: set[str]) -> Node:
    inputs = ["" if tensor is None else tensor.name for tensor in call.inputs]
    outputs = tuple(tensor.name for tensor in call.outputs)
    order = [i for i in SLOTS.get(call.operator, range(len(inputs))) if i < len(inputs)]
    name = _unique(outputs[0] if outputs else call.operator, index, taken)
    return Node(name, call.operator, translate(call), tuple(inputs[i] for i in order), outputs)


def _without_shape_arithmetic(nodes: list[Node], values: Values, kept: set[str]) -> list[Node]:
    """Leave out what only computes the shape of reshapes, which state that shape themselves."""
    read = set(kept)
    result: list[Node] = []
    for node in reversed(nodes):
        if node.outputs and node.outputs[0] in values and not read & set(node.outputs):
            continue
        data = node.inputs[:1] if isinstance(node.operation, Reshape) else node.inputs
        read.update(data)
        result.append(node)
    return result[::-1]
