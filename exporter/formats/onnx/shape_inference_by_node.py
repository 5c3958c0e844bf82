"""Lengths that a file computes, and the shapes behind them, found node by node.

Exporters leave arithmetic on lengths in a file: half of what a Shape says bounds a Slice, a vector
of zeros fills a Pad. Inference over the whole file follows some of these chains, and knows nothing
behind the others. Here each node whose result is open is asked again, with the values that its
small inputs come to. Integers that constants alone decide are constants themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.protos import (
    DEFAULT_DOMAINS,
    bodies,
    dtype_of,
    set_shape,
    shape_of,
    tensor_type,
    tensor_type_of,
)
from exporter.graph import Array, Shape, Tensor

_LARGEST = 1024  # elements of a tensor that may hold lengths
_OF_LENGTHS = ("int64", "int32", "bool")  # dtypes; smaller integers are codes
_DIVISIONS = frozenset({"Div", "Mod"})
_ARITHMETIC = _DIVISIONS | {
    *("Add", "Sub", "Mul", "Neg", "Abs", "Min", "Max", "Floor", "Ceil", "Where", "Equal", "Not"),
    *("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"),
    *("Concat", "Gather", "Slice", "Range", "ConstantOfShape", "ReduceProd", "ReduceSum"),
}
"""Operators that reckon with lengths; what each gives is no larger than its type says before."""

_NOT_INFERRED = (
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    KeyError,
    ValueError,
)
_NOT_RUN = (ValueError, TypeError, IndexError, KeyError, RuntimeError, OverflowError)


def folded(model: ModelProto, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The integers and truth values that constants alone decide, by the tensor that holds them.

    Args:
        model: nodes in the order in which they run.
        constants: of the file, with their values.
    """
    walk = _Walk(model, {}, constants)
    found: dict[str, Tensor] = {}
    for node in model.graph.node:
        if node.op_type in _ARITHMETIC:
            walk.visit(node)
            found.update((n, _constant(n, walk.values[n])) for n in node.output if n in walk.values)
    return found


def complete(
    model: ModelProto, types: dict[str, TypeProto], constants: Mapping[str, Tensor]
) -> None:
    """Add to `types` what is known of each tensor once the lengths before it are.

    Args:
        model: nodes in the order in which they run; large constants may be missing.
        types: by tensor; what is stated there stays.
        constants: of the file, with their values.
    """
    walk = _Walk(model, types, constants)
    for node in model.graph.node:
        walk.visit(node)


def is_open(kind: TypeProto | None) -> bool:
    """Is any length, the rank, or the type as a whole not known?"""
    shape = shape_of(kind)
    return shape is None or None in shape


def _constant(name: str, value: Array) -> Tensor:
    return Tensor(name, value.shape, value.dtype.name, lambda: value)


class _Walk:
    """One pass over the nodes; `values` are those of the small integer tensors that nodes make."""

    def __init__(
        self, model: ModelProto, types: dict[str, TypeProto], constants: Mapping[str, Tensor]
    ) -> None:
        self.values: dict[str, Array] = {}
        self._shapes: dict[str, Shape] = {}  # what a Shape gives, though some of it may be open
        self._model, self._types, self._constants = model, types, constants
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}

    def visit(self, node: NodeProto) -> None:
        if node.domain not in DEFAULT_DOMAINS or any(bodies(node)):
            return
        if any(is_open(self._types.get(name)) for name in node.output if name):
            for name, kind in self._asked(node):
                self._types[name] = _merged(self._types.get(name), kind)
        if node.op_type == "Reshape" and len(node.input) > 1:
            self._reshaped(node)
        if node.op_type == "Concat" and dtype_of(self._types.get(node.output[0])) == "int64":
            self._joined(node)
        self.values.update(self._computed(node))

    def _joined(self, node: NodeProto) -> None:
        """The lengths that are known of a vector, though others are open."""
        parts = [self._entries(name) for name in node.input]
        if None not in parts:
            joined = tuple(length for part in parts for length in part or ())
            self._shapes[node.output[0]] = joined

    def _reshaped(self, node: NodeProto) -> None:
        """Some lengths of a target may be known though others are open."""
        (name,), target = node.output, self._shapes.get(node.input[1])
        kind = self._types.get(name) or self._type(node.input[0])
        if kind is not None and target is not None and is_open(self._types.get(name)):
            found = TypeProto()
            found.CopyFrom(kind)
            set_shape(found, tuple(n if n and n > 0 else None for n in target))
            self._types[name] = _merged(self._types.get(name), found)

    def _asked(self, node: NodeProto) -> Iterator[tuple[str, TypeProto]]:
        """What inference says of this node alone."""
        known = {name: kind for name in node.input if (kind := self._type(name)) is not None}
        if not known.keys() >= {name for name in node.input if name}:
            return
        held = {name: value for name in known if (value := self._value(name)) is not None}
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets[node.domain], node.domain)
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                known,
                {name: numpy_helper.from_array(value, name) for name, value in held.items()},
                opset_imports=list(self._model.opset_import),
                ir_version=self._model.ir_version,
            )
        except _NOT_INFERRED:
            return
        yield from found.items()

    def _computed(self, node: NodeProto) -> Iterator[tuple[str, Array]]:
        """The values of the node's results, if they are integers and known."""
        if node.op_type == "Shape":
            shape = shape_of(self._type(node.input[0]))
            if shape is not None:
                ends = {a.name: a.i for a in node.attribute}
                self._shapes[node.output[0]] = shape[ends.get("start") : ends.get("end")]
                yield from _known(node.output[0], self._shapes[node.output[0]])
        elif node.op_type == "Gather" and node.input[0] in self._shapes:
            shape, places = self._shapes[node.input[0]], self._value(node.input[1])
            if places is not None and ((-len(shape) <= places) & (places < len(shape))).all():
                taken = tuple(shape[place] for place in places.ravel())
                if places.ndim == 1:
                    self._shapes[node.output[0]] = taken
                yield from _known(node.output[0], taken, places.shape)
        elif node.op_type in _ARITHMETIC and all(map(self._is_small, node.output)):
            held = {name: self._value(name) for name in node.input if name}
            values = {name: value for name, value in held.items() if value is not None}
            if len(values) == len(held) and _is_sound(node, values):
                yield from self._run(node, values)

    def _entries(self, name: str) -> Shape | None:
        """Those of a vector of lengths, as far as they are known; None where not even how many."""
        value = self._value(name)
        if value is not None:
            return tuple(value.tolist()) if value.ndim == 1 else None
        shape = shape_of(self._type(name))
        count = shape[0] if shape is not None and len(shape) == 1 else None
        return self._shapes.get(name, None if count is None else (None,) * count)

    def _run(self, node: NodeProto, values: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - slow, and rarely needed

        given = [helper.make_value_info(n, tensor_type_of(value)) for n, value in values.items()]
        made = [helper.make_value_info(name, self._types[name]) for name in node.output]
        graph = helper.make_graph([node], "lengths", given, made)
        alone = helper.make_model(graph, opset_imports=self._model.opset_import)
        try:
            with np.errstate(all="ignore"):  # of a damaged file
                results = ReferenceEvaluator(alone).run(None, dict(values))
        except _NOT_RUN:
            return
        for name, result in zip(node.output, map(np.asarray, results), strict=True):
            if result.dtype.name in _OF_LENGTHS and result.shape == shape_of(self._types[name]):
                yield name, result

    def _type(self, name: str) -> TypeProto | None:
        constant = self._constants.get(name)
        if constant is None or name in self._types:
            return self._types.get(name)
        try:
            return tensor_type(constant.dtype, constant.shape or ())
        except ModelError:  # the file states an element type that nothing knows
            return None

    def _value(self, name: str) -> Array | None:
        constant = self._constants.get(name)
        if constant is None or constant.read is None:
            return self.values.get(name)
        lengths = constant.dtype in _OF_LENGTHS and self._is_small(name)
        return constant.read() if lengths else None

    def _is_small(self, name: str) -> bool:
        shape = shape_of(self._type(name))
        known = [length for length in shape or () if length is not None]
        return shape is not None and len(known) == len(shape) and prod(known) <= _LARGEST


def _known(
    name: str, lengths: Shape, shape: tuple[int, ...] = (-1,)
) -> Iterator[tuple[str, Array]]:
    """The lengths as the value of a tensor, if none of them is open."""
    if None not in lengths:
        yield name, np.array(lengths, np.int64).reshape(shape)


def _is_sound(node: NodeProto, values: Mapping[str, Array]) -> bool:
    """Do runtimes and the reference agree? Of a division of negative numbers, or by 0, not."""
    if node.op_type not in _DIVISIONS:
        return True
    left, right = (values[name] for name in node.input)
    return bool((left >= 0).all() and (right > 0).all())


def _merged(stated: TypeProto | None, found: TypeProto) -> TypeProto:
    """What is stated, with the lengths that it leaves open as they were found."""
    before, now = shape_of(stated), shape_of(found)
    if stated is None or before is None:
        return found
    result = TypeProto()
    result.CopyFrom(stated)
    if now is not None and len(before) == len(now):
        pairs = zip(before, now, strict=True)
        set_shape(result, tuple(b if old is None else old for old, b in pairs))
    return result
