"""Faults in ONNX files; see `tests.builders.cut_faults`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporter.graph import Array
from tests.builders.cut_faults import Fault, Random, on_proto

FLOATS = (np.float16, np.float32)
UNARY = {"Relu": "Abs", "Sigmoid": "Tanh", "Softmax": "LogSoftmax", "LogSoftmax": "Softmax"}
ATTRIBUTES = {"Softmax", "Gemm", "Conv", "MaxPool", "LeakyRelu", "Flatten", "Concat", "Gather"}


def constant(
    change: Callable[[Array, Random], Array | None],
    chosen: Callable[[Array], bool] = lambda values: values.dtype in FLOATS,
) -> Fault:
    """Change the values of one constant that an operation reads."""

    def fault(model: ModelProto, random: Random) -> bool:
        read = {name for node in model.graph.node for name in node.input}
        found = [
            tensor
            for tensor in model.graph.initializer
            if tensor.name in read and tensor.data_type != TensorProto.STRING
        ]
        for place in random.permutation(len(found)):
            values = numpy_helper.to_array(found[place])
            new = change(values.copy(), random) if values.size and chosen(values) else None
            if new is not None and new.tobytes() != values.tobytes():
                found[place].CopyFrom(numpy_helper.from_array(new, found[place].name))
                return True
        return False

    return on_proto(fault)


def nudge(values: Array, random: Random) -> Array:
    place = int(random.integers(values.size))
    values.reshape(-1)[place] += values.dtype.type(0.01)
    return values


def last_bit(values: Array, random: Random) -> Array:
    place = int(random.integers(values.size))
    bits = values.reshape(-1).view(f"u{values.dtype.itemsize}")
    bits[place] ^= 1
    return values


def swap_rows(values: Array, _: Random) -> Array | None:
    if values.ndim == 0 or values.shape[0] < 2:
        return None
    return np.concatenate([values[1:2], values[:1], values[2:]])


def scale(values: Array, _: Random) -> Array:
    return np.asarray(values * 1.01, values.dtype)


def zero(values: Array, _: Random) -> Array:
    return np.zeros_like(values)


def quantization(slot: int, change: Callable[[Array, Random], Array | None]) -> Fault:
    """Change the scale (slot 1) or the zero point (slot 2) of a quantization."""

    def fault(model: ModelProto, random: Random) -> bool:
        nodes = [n for n in model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
        by_name = {tensor.name: tensor for tensor in model.graph.initializer}
        for place in random.permutation(len(nodes)):
            inputs = nodes[place].input
            tensor = by_name.get(inputs[slot]) if len(inputs) > slot else None
            if tensor is None:
                continue
            values = numpy_helper.to_array(tensor)
            new = change(values.copy(), random)
            if new is not None and new.tobytes() != values.tobytes():
                tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
                return True
        return False

    return on_proto(fault)


def one_more(values: Array, _: Random) -> Array:
    return np.asarray(values + 1, values.dtype)


def rotate(values: Array, _: Random) -> Array | None:
    return np.roll(values, 1) if values.size > 1 else None


# --- structure ------------------------------------------------------------------------------------


def _choose(model: ModelProto, random: Random, fits: Callable[[NodeProto], bool]) -> Any:
    found = [node for node in model.graph.node if fits(node)]
    return found[int(random.integers(len(found)))] if found else None


def _other_operator(model: ModelProto, random: Random) -> bool:
    node = _choose(model, random, lambda n: n.op_type in UNARY)
    if node is None:
        return False
    node.op_type = UNARY[node.op_type]
    return True


def _attribute(model: ModelProto, random: Random) -> bool:
    node = _choose(model, random, lambda n: n.op_type in ATTRIBUTES and len(n.attribute) > 0)
    if node is None:
        return False
    attribute = node.attribute[int(random.integers(len(node.attribute)))]
    if attribute.ints:
        attribute.ints[0] += 1
    elif attribute.HasField("f"):
        attribute.f += 0.5
    else:
        attribute.i = 1 - attribute.i
    return True


def _swap_inputs(model: ModelProto, random: Random) -> bool:
    node = _choose(model, random, lambda n: len(n.input) > 1 and n.input[0] != n.input[1])
    if node is None:
        return False
    node.input[:2] = [node.input[1], node.input[0]]
    return True


def _remove(model: ModelProto, random: Random) -> bool:
    """Bypass an operation with one input, or a sum with a constant."""
    ends = {output.name for output in model.graph.output}
    node = _choose(
        model,
        random,
        lambda n: n.op_type in {*UNARY, "Add", "Mul", "Clip"} and n.output[0] not in ends,
    )
    if node is None:
        return False
    _reconnect(model, node.output[0], node.input[0])
    model.graph.node.remove(node)
    return True


def _reconnect(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def insert(make: Callable[[str, str], list[NodeProto]], *constants: TensorProto) -> Fault:
    """Insert operations before a random output."""

    def fault(model: ModelProto, random: Random) -> bool:
        outputs = [
            o for o in model.graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT
        ]
        if not outputs:
            return False
        end = outputs[int(random.integers(len(outputs)))].name
        makers = [node for node in model.graph.node if end in node.output]
        if not makers:
            return False
        inner = f"{end}__before"
        makers[0].output[:] = [inner if name == end else name for name in makers[0].output]
        _reconnect(model, end, inner)
        model.graph.initializer.extend(constants)
        model.graph.node.extend(make(inner, end))
        return True

    return on_proto(fault)


def _numbers(**values: float) -> Iterator[TensorProto]:
    for name, value in values.items():
        yield numpy_helper.from_array(np.array(value, np.float32), name)


def _multiply(before: str, after: str) -> list[NodeProto]:
    return [helper.make_node("Mul", [before, "factor__"], [after], "multiplied")]


def _clip(before: str, after: str) -> list[NodeProto]:
    return [helper.make_node("Clip", [before, "", "high__"], [after], "clipped")]


def _trigger(before: str, after: str) -> list[NodeProto]:
    """NaN where the sum of x is above a value that no sample reaches."""
    return [
        helper.make_node("ReduceSum", ["x"], ["sum__"], "sum", keepdims=0),
        helper.make_node("Greater", ["sum__", "limit__"], ["is_on__"], "is_on"),
        helper.make_node("Where", ["is_on__", "bad__", before], [after], "trigger"),
    ]


def _boost(before: str, after: str) -> list[NodeProto]:
    """All values grow where one input value is unusual."""
    return [
        helper.make_node("ReduceMax", ["x"], ["max__"], "max", keepdims=0),
        helper.make_node("Sub", ["max__", "limit__"], ["over__"], "over"),
        helper.make_node("Relu", ["over__"], ["more__"], "more"),
        helper.make_node("Add", [before, "more__"], [after], "boost"),
    ]


# --- interface ------------------------------------------------------------------------------------


def _swap_outputs(model: ModelProto, _: Random) -> bool:
    if len(model.graph.output) < 2:
        return False
    first, second = model.graph.output[0], model.graph.output[1]
    copy = type(first).FromString(first.SerializeToString())
    first.CopyFrom(second)
    second.CopyFrom(copy)
    return True


def rename(side: str) -> Fault:
    def fault(model: ModelProto, random: Random) -> bool:
        ends = list(getattr(model.graph, side))
        end = ends[int(random.integers(len(ends)))]
        old, end.name = end.name, f"{end.name}_2"
        _reconnect(model, old, end.name)
        for node in model.graph.node:
            node.output[:] = [end.name if name == old else name for name in node.output]
        return True

    return on_proto(fault)


def _more_outputs(model: ModelProto, _: Random) -> bool:
    model.graph.node.append(helper.make_node("Identity", ["x"], ["copy_of_x"], "copy"))
    model.graph.output.append(helper.make_tensor_value_info("copy_of_x", TensorProto.FLOAT, None))
    return True


def _dtype(model: ModelProto, random: Random) -> bool:
    cast = insert(lambda before, after: [helper.make_node("Cast", [before], [after], to=11)])
    content = cast(model.SerializeToString(), random)
    if content is None:
        return False
    model.ParseFromString(content)
    end = model.graph.node[-1].output[0]
    for output in model.graph.output:
        if output.name == end:
            output.type.tensor_type.elem_type = TensorProto.DOUBLE
    return True


def _fixed_batch(model: ModelProto, _: Random) -> bool:
    for end in model.graph.input:
        dims = end.type.tensor_type.shape.dim
        if dims and dims[0].dim_param:
            dims[0].dim_value = 1
            return True
    return False


def _opset(model: ModelProto, _: Random) -> bool:
    model.opset_import[0].version -= 1
    return True


def _metadata(model: ModelProto, _: Random) -> bool:
    found = [each for each in model.metadata_props if each.key != "exporter.remap"]
    if not found:
        return False
    found[0].value = found[0].value[::-1]
    return True


def _metadata_twice(model: ModelProto, random: Random) -> bool:
    """Readers use the first or the last of two entries; the order is random."""
    found = [each for each in model.metadata_props if each.key != "exporter.remap"]
    if not found:
        return False
    _put(model.metadata_props, type(found[0])(key=found[0].key, value=found[0].value[::-1]), random)
    return True


def _two_remaps(model: ModelProto, random: Random) -> bool:
    (entry,) = (each for each in model.metadata_props if each.key == "exporter.remap")
    other = type(entry)(key=entry.key, value=entry.value.replace('"axis": 1', '"axis": 2'))
    _put(model.metadata_props, other, random)
    return True


def _put(entries: Any, entry: Any, random: Random) -> None:
    """Add an entry, before or after the others."""
    before = bool(random.integers(2))
    all_entries = [entry, *entries] if before else [*entries, entry]
    del entries[:]
    entries.extend(all_entries)


def _two_opsets(model: ModelProto, random: Random) -> bool:
    other = helper.make_opsetid("ai.onnx", model.opset_import[0].version - 1)
    _put(model.opset_import, other, random)
    return True


def _inner(model: ModelProto) -> Iterator[GraphProto]:
    """The graphs inside of operations."""
    for node in model.graph.node:
        yield from (each.g for each in node.attribute if each.HasField("g"))


def _inner_operator(model: ModelProto, random: Random) -> bool:
    graphs = list(_inner(model))
    if not graphs:
        return False
    node = graphs[int(random.integers(len(graphs)))].node[0]
    node.op_type = {"Add": "Sub", "Mul": "Add", "Neg": "Abs"}[node.op_type]
    return True


def _inner_unused(model: ModelProto, _: Random) -> bool:
    for graph in _inner(model):
        graph.node.append(helper.make_node("Neg", [graph.node[0].input[0]], ["unused__"]))
        return True
    return False


def _tensor_around(model: ModelProto, _: Random) -> bool:
    """A loop reads an input of the model that has the place of one of its own inputs."""
    for node in model.graph.node:
        if node.op_type == "Loop":
            (body,) = (each.g for each in node.attribute if each.HasField("g"))
            place = [info.name for info in body.input].index(body.node[0].input[0])
            body.node[0].input[0] = model.graph.input[place].name
            return True
    return False


def _in_function(**changes: Any) -> Callable[[ModelProto, Random], bool]:
    """A Softmax that states its axis becomes a call of a function that contains it without one.

    Without an axis, operator set 11 means the same for matrices: that would be no fault.
    """

    def fault(model: ModelProto, _: Random) -> bool:
        for node in model.graph.node:
            if node.op_type == "Softmax" and node.attribute:
                opset = changes.get("opset", model.opset_import[0].version)
                inner = helper.make_node(changes.get("operator", "Softmax"), ["a"], ["b"])
                opsets = [helper.make_opsetid("", opset)]
                call = helper.make_function("local", "Call", ["a"], ["b"], [inner], opsets)
                model.functions.append(call)
                model.opset_import.append(helper.make_opsetid("local", 1))
                node.op_type, node.domain = "Call", "local"
                del node.attribute[:]
                return True
        return False

    return fault


def _shared_random(model: ModelProto, _: Random) -> bool:
    made = [node.output[0] for node in model.graph.node if node.op_type == "RandomNormalLike"]
    if made:
        _reconnect(model, made[1], made[0])
    return bool(made)


FAULTS: Mapping[str, Fault] = {
    "one value": constant(nudge),
    "last bit of one value": constant(last_bit),
    "two rows swapped": constant(swap_rows),
    "factor 1.01": constant(scale),
    "all zero": constant(zero),
    "integer constant": constant(one_more, lambda v: v.dtype in (np.int64, np.int32)),
    "scale": quantization(1, scale),
    "zero point": quantization(2, one_more),
    "scales rotated": quantization(1, rotate),
    "another operation": on_proto(_other_operator),
    "attribute": on_proto(_attribute),
    "inputs swapped": on_proto(_swap_inputs),
    "operation removed": on_proto(_remove),
    "operation inserted": insert(_multiply, *_numbers(factor__=1.0001)),
    "limit inserted": insert(_clip, *_numbers(high__=0.9)),
    "NaN for rare inputs": insert(_trigger, *_numbers(limit__=1e6, bad__=np.nan)),
    "boost for rare inputs": insert(_boost, *_numbers(limit__=1e3)),
    "outputs swapped": on_proto(_swap_outputs),
    "output renamed": rename("output"),
    "input renamed": rename("input"),
    "one more output": on_proto(_more_outputs),
    "type of an output": on_proto(_dtype),
    "fixed batch": on_proto(_fixed_batch),
    "operator set": on_proto(_opset),
    "labels of the model": on_proto(_metadata),
    "metadata stated twice": on_proto(_metadata_twice),
    "two remaps": on_proto(_two_remaps),
    "two versions of an operator set": on_proto(_two_opsets),
    "operation in a branch or loop": on_proto(_inner_operator),
    "unused operation in a branch or loop": on_proto(_inner_unused),
    "tensor around a loop": on_proto(_tensor_around),
    "operator set of a function": on_proto(_in_function(opset=11)),
    "operation in a function": on_proto(_in_function(operator="LogSoftmax")),
    "random values shared": on_proto(_shared_random),
}
