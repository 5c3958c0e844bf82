"""Shape inference node by node, which also computes small integer tensors.

Exporters leave arithmetic on lengths in a file: half of a length bounds a Slice, a vector of zeros
fills a Pad. onnx's inference over the whole file follows only some of these chains. Here inference
is repeated for each node with an incomplete result, with the values that its small inputs were
found to have. Integers computed from constants alone are constants too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.branches import is_choice
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    FileNode,
    copy_of,
    dtype_of,
    merged_type,
    set_shape,
    shape_of,
    subgraphs,
    tensor_type,
    tensor_type_of,
)
from exporter.graph import Array, Shape, Tensor

_LARGEST = 1024  # elements of a tensor that may hold lengths
_DTYPES = ("int64", "int32", "bool")  # of lengths; smaller integers are quantized values
_DIVISIONS = frozenset({"Div", "Mod"})
_START_LENGTHS = frozenset({"Shape", "Concat"})  # of unknown lengths and constants
_ARITHMETIC = _DIVISIONS | {
    *("Add", "Sub", "Mul", "Neg", "Abs", "Min", "Max", "Floor", "Ceil", "Where", "Equal", "Not"),
    *("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"),
    *("Concat", "Gather", "Slice", "Range", "ConstantOfShape", "ReduceProd", "ReduceSum"),
}
"""Operators that compute lengths; the size of each result is known from its type beforehand."""

_NOT_INFERRED = (
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    KeyError,
    TypeError,
    ValueError,
)
_NOT_RUN = (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError)


def fold_integers(
    model: ModelProto, nodes: Iterable[FileNode], constants: Mapping[str, Tensor]
) -> dict[str, Array]:
    """The small integer and bool tensors that are computed from constants alone, by name.

    Args:
        model: the file.
        nodes: of its graph, in an order in which they can run.
        constants: of the file.
    """
    types: dict[str, TypeProto] = {}
    inference = _NodeInference(model, types, constants)
    for node in nodes:
        reads_constants = all(not n or n in constants or n in types for n in node.inputs)
        if reads_constants and node.operator in _ARITHMETIC:
            inference.visit(node)
    return inference.values


def complete_types(
    model: ModelProto,
    nodes: Iterable[FileNode],
    types: dict[str, TypeProto],
    constants: Mapping[str, Tensor],
    *,
    inferred: bool = False,
) -> None:
    """Add types and lengths to `types` that follow from computed lengths.

    Args:
        model: large constants may be missing.
        nodes: of its graph, in an order in which they can run.
        types: tensor name -> type; lengths that are known there are kept.
        constants: of the file.
        inferred: the types are those that onnx infers for the model, and those that its outputs
            state.
    """
    inference = _NodeInference(model, types, constants)
    if not inferred:
        for node in nodes:
            inference.visit(node)
        return
    # More than onnx's inference found can be known about the results of a node that reads `news`,
    # starts a chain of lengths, or was not inferred.
    stored = {tensor.name for tensor in model.graph.initializer}
    news = {name for name, each in constants.items() if each.dtype in _DTYPES} - stored
    news.update(info.name for info in model.graph.output)
    for node in nodes:
        made = [types.get(name) for name in node.outputs if name]
        if (
            not news.isdisjoint(node.inputs)
            or node.operator in _START_LENGTHS
            or any(shape_of(kind) is None for kind in made)
        ):
            news.update(inference.visit(node))


def is_incomplete(kind: TypeProto | None) -> bool:
    """Is a length, the rank, or the whole type unknown?"""
    shape = shape_of(kind)
    return shape is None or None in shape


class _NodeInference:
    """One pass over the nodes; `values` are those of the small integer tensors that nodes make."""

    def __init__(
        self, model: ModelProto, types: dict[str, TypeProto], constants: Mapping[str, Tensor]
    ) -> None:
        self.values: dict[str, Array] = {}
        self._vectors: dict[str, Shape] = {}  # vectors of lengths, some of which may be unknown
        self._model, self._types, self._constants = model, types, constants
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}

    def visit(self, node: FileNode) -> list[str]:
        """Find types and values of a node's results; returns the names of those that it found."""
        before = {name: self._types.get(name) for name in node.outputs if name}
        self._visit(node.proto)
        return [name for name, kind in before.items() if self._is_new(name, kind)]

    def _is_new(self, name: str, before: TypeProto | None) -> bool:
        now = self._types.get(name)
        changed = now is not before and shape_of(now) != shape_of(before)
        return changed or name in self.values or name in self._vectors

    def _visit(self, node: NodeProto) -> None:
        if is_choice(node):
            self._visit_choice(node)
            return
        if node.domain not in DEFAULT_DOMAINS or any(subgraphs(node)):
            return
        if any(is_incomplete(self._types.get(name)) for name in node.output if name):
            for name, kind in self._inferred(node):
                self._types[name] = merged_type(self._types.get(name), kind)
        if node.op_type == "Reshape" and len(node.input) > 1:
            self._visit_reshape(node)
        if node.op_type == "Concat" and dtype_of(self._types.get(node.output[0])) == "int64":
            self._visit_concat(node)
        if node.op_type in {"Cast", "Identity"} and node.input[0] in self._vectors:
            self._vectors[node.output[0]] = self._vectors[node.input[0]]
        self.values.update(self._computed(node))

    def _visit_choice(self, node: NodeProto) -> None:
        """The lengths that both branches have."""
        kind, other = (self._type(name) for name in node.input[1:])
        first, second = shape_of(kind), shape_of(other)
        if kind is None or first is None or second is None or len(first) != len(second):
            return
        found = copy_of(kind)
        pairs = zip(first, second, strict=True)
        set_shape(found, tuple(a if a == b else None for a, b in pairs))
        self._types[node.output[0]] = merged_type(self._types.get(node.output[0]), found)

    def _visit_concat(self, node: NodeProto) -> None:
        """Some entries of the joined vector may be known though others are not."""
        parts = [self._entries(name) for name in node.input]
        if None not in parts:
            joined = tuple(length for part in parts for length in part or ())
            self._vectors[node.output[0]] = joined

    def _visit_reshape(self, node: NodeProto) -> None:
        """Some lengths of a target may be known though others are not."""
        (name,), target = node.output, self._vectors.get(node.input[1])
        kind = self._types.get(name) or self._type(node.input[0])
        if kind is not None and target is not None and is_incomplete(self._types.get(name)):
            found = copy_of(kind)
            set_shape(found, tuple(n if n and n > 0 else None for n in target))
            self._types[name] = merged_type(self._types.get(name), found)

    def _inferred(self, node: NodeProto) -> Iterator[tuple[str, TypeProto]]:
        """Types of the node's outputs, inferred from its inputs alone."""
        known = {name: kind for name in node.input if (kind := self._type(name)) is not None}
        if not known.keys() >= {name for name in node.input if name}:
            return
        values = {name: value for name in known if (value := self._value(name)) is not None}
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets[node.domain], node.domain)
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                known,
                {name: numpy_helper.from_array(value, name) for name, value in values.items()},
                opset_imports=list(self._model.opset_import),
                ir_version=self._model.ir_version,
            )
        except _NOT_INFERRED:
            return
        yield from found.items()

    def _computed(self, node: NodeProto) -> Iterator[tuple[str, Array]]:
        """The values of the node's outputs, if they are small integer tensors and known."""
        if node.op_type == "Shape":
            shape = shape_of(self._type(node.input[0]))
            if shape is not None:
                ends = {a.name: a.i for a in node.attribute}
                self._vectors[node.output[0]] = shape[ends.get("start") : ends.get("end")]
                yield from _if_known(node.output[0], self._vectors[node.output[0]])
        elif node.op_type == "Gather" and node.input[0] in self._vectors:
            vector, indices = self._vectors[node.input[0]], self._value(node.input[1])
            if indices is not None and _are_within(indices, len(vector)):
                taken = tuple(vector[index] for index in indices.ravel())
                if indices.ndim == 1:
                    self._vectors[node.output[0]] = taken
                yield from _if_known(node.output[0], taken, indices.shape)
        elif node.op_type in _ARITHMETIC:
            values: dict[str, Array] = {}
            for name in filter(None, node.input):
                value = self._value(name)
                if value is None:
                    return
                values[name] = value
            if all(map(self._is_small, node.output)) and _is_portable(node, values):
                yield from self._run(node, values)

    def _entries(self, name: str) -> Shape | None:
        """The entries of a vector of lengths, as far as they are known; None: the count is not."""
        value = self._value(name)
        if value is not None:
            return tuple(value.tolist()) if value.ndim == 1 else None
        shape = shape_of(self._type(name))
        count = shape[0] if shape is not None and len(shape) == 1 else None
        return self._vectors.get(name, None if count is None else (None,) * count)

    def _run(self, node: NodeProto, values: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - slow, and rarely needed

        inputs = [
            helper.make_value_info(n, tensor_type_of(value.dtype, value.shape))
            for n, value in values.items()
        ]
        outputs = [helper.make_value_info(name, self._types[name]) for name in node.output]
        graph = helper.make_graph([node], "lengths", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self._model.opset_import)
        try:
            with np.errstate(all="ignore"):  # a damaged file may divide by zero
                results = ReferenceEvaluator(model).run(None, dict(values))
        except _NOT_RUN:
            return
        for name, result in zip(node.output, map(np.asarray, results), strict=True):
            if result.dtype.name in _DTYPES and result.shape == shape_of(self._types[name]):
                yield name, result

    def _type(self, name: str) -> TypeProto | None:
        constant = self._constants.get(name)
        if constant is None or name in self._types:
            return self._types.get(name)
        try:
            return tensor_type(constant.dtype, constant.shape or ())
        except ModelError:  # the file states an element type that ONNX does not have
            return None

    def _value(self, name: str) -> Array | None:
        constant = self._constants.get(name)
        if constant is None or constant.read is None:
            return self.values.get(name)
        return constant.read() if constant.dtype in _DTYPES and self._is_small(name) else None

    def _is_small(self, name: str) -> bool:
        shape = shape_of(self._type(name))
        return shape is not None and None not in shape and prod(n or 0 for n in shape) <= _LARGEST


def _if_known(
    name: str, lengths: Shape, shape: tuple[int, ...] = (-1,)
) -> Iterator[tuple[str, Array]]:
    """The lengths as the value of a tensor, if all of them are known."""
    if None not in lengths:
        yield name, np.array(lengths, np.int64).reshape(shape)


def _are_within(indices: Array, count: int) -> bool:
    return bool(((-count <= indices) & (indices < count)).all())


def _is_portable(node: NodeProto, values: Mapping[str, Array]) -> bool:
    """Do runtimes and onnx's reference agree? They may not where a division rounds or fails."""
    if node.op_type not in _DIVISIONS:
        return True
    left, right = (values[name] for name in node.input)
    return bool((left >= 0).all() and (right > 0).all())
