"""Faults in TFLite files; see `tests.builders.cut_faults`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.formats.tflite import archive
from exporter.formats.tflite.schema import File, builtin_code, integers, metadata
from exporter.graph import Array
from tests.builders.cut_faults import Fault, Random, on_file
from tests.builders.faults_onnx import last_bit, nudge, one_more, rotate, scale, swap_rows, zero

_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT32: np.int32,
}
_FLOATS = (np.float32, np.float16)
_INTEGERS = (np.int8, np.uint8, np.int32)
_UNARY = {"LOGISTIC": "TANH", "RELU": "RELU6", "SOFTMAX": "LOG_SOFTMAX", "TANH": "LOGISTIC"}


def constant(change: Callable[[Array, Random], Array | None], dtypes: tuple[type, ...]) -> Fault:
    """Change the values of one constant that an operation reads."""

    def fault(file: File, random: Random) -> bool:
        read = sorted({i for o in file.main.operators for i in integers(o.inputs) if i >= 0})
        for place in random.permutation(len(read)):
            tensor = file.main.tensors[read[place]]
            data = file.model.buffers[tensor.buffer].data
            dtype = _DTYPES.get(tensor.type)
            if data is None or not len(data) or dtype not in dtypes:
                continue
            values = np.frombuffer(data.tobytes(), dtype).reshape(integers(tensor.shape))
            new = change(values.copy(), random)
            if new is not None and new.tobytes() != values.tobytes():
                stored = np.frombuffer(new.tobytes(), np.uint8)
                file.model.buffers[tensor.buffer] = schema.BufferT(data=stored)
                return True
        return False

    return on_file(fault)


def quantization(field: str, change: Callable[[Array, Random], Array | None]) -> Fault:
    """Change the scales or zero points of a tensor."""

    def fault(file: File, random: Random) -> bool:
        used = {i for o in file.main.operators for i in (*integers(o.inputs), *integers(o.outputs))}
        for place in random.permutation(sorted(used - {-1})):
            known = file.main.tensors[place].quantization
            values = None if known is None else getattr(known, field)
            new = None if values is None else change(np.array(values), random)
            if new is not None and new.tobytes() != np.array(values).tobytes():
                setattr(known, field, new)
                return True
        return False

    return on_file(fault)


# --- structure ------------------------------------------------------------------------------------


def _name(file: File, operator: Any) -> str:
    code = builtin_code(file.model.operatorCodes[operator.opcodeIndex])
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return str(names.get(code, ""))


def _code(file: File, name: str) -> int:
    code = int(getattr(schema.BuiltinOperator, name))
    file.model.operatorCodes = [
        *file.model.operatorCodes,
        schema.OperatorCodeT(min(code, 127), builtinCode=code, version=1),
    ]
    return len(file.model.operatorCodes) - 1


def _choose(file: File, random: Random, fits: Callable[[Any], bool]) -> Any:
    found = [operator for operator in file.main.operators if fits(operator)]
    return found[int(random.integers(len(found)))] if found else None


def _other_operator(file: File, random: Random) -> bool:
    operator = _choose(file, random, lambda o: _name(file, o) in _UNARY)
    if operator is None:
        return False
    operator.opcodeIndex = _code(file, _UNARY[_name(file, operator)])
    operator.builtinOptions, operator.builtinOptionsType = None, 0
    return True


def _option(file: File, random: Random) -> bool:
    """The activation of a layer, the padding of a convolution, or the sharpness of a softmax."""
    keys = ("fusedActivationFunction", "beta", "axis", "padding")
    operator = _choose(file, random, lambda o: any(hasattr(o.builtinOptions, key) for key in keys))
    if operator is None:
        return False
    key = next(each for each in keys if hasattr(operator.builtinOptions, each))
    value = getattr(operator.builtinOptions, key)
    setattr(operator.builtinOptions, key, value * 0.5 if key == "beta" else 1 - value)
    return True


def _swap_inputs(file: File, random: Random) -> bool:
    operator = _choose(file, random, lambda o: len(o.inputs) > 1 and o.inputs[0] != o.inputs[1])
    if operator is None:
        return False
    first, second, *rest = integers(operator.inputs)
    operator.inputs = np.array([second, first, *rest], np.int32)
    return True


def _remove(file: File, random: Random) -> bool:
    ends = set(integers(file.main.outputs))
    operator = _choose(
        file, random, lambda o: len(o.inputs) == 1 and not ends & set(integers(o.outputs))
    )
    if operator is None:
        return False
    old, new = int(operator.outputs[0]), int(operator.inputs[0])
    file.main.operators = [o for o in file.main.operators if o is not operator]
    for other in file.main.operators:
        inputs = [new if i == old else i for i in integers(other.inputs)]
        other.inputs = np.array(inputs, np.int32)
    return True


def insert(name: str, value: float) -> Fault:
    """Insert an operation of a float output and a constant before that output."""

    def fault(file: File, random: Random) -> bool:
        ends = [
            i
            for i in integers(file.main.outputs)
            if file.main.tensors[i].type == schema.TensorType.FLOAT32
        ]
        if not ends:
            return False
        end = ends[int(random.integers(len(ends)))]
        before = _more(file, file.main.tensors[end], 0)
        data = np.frombuffer(np.float32(value).tobytes(), np.uint8)
        file.model.buffers.append(schema.BufferT(data=data))
        factor = schema.TensorT(
            name="factor__", shape=np.array([], np.int32), type=schema.TensorType.FLOAT32
        )
        file.main.tensors.append(factor)
        factor.buffer, factor.hasRank = len(file.model.buffers) - 1, True
        for operator in file.main.operators:
            outputs = [before if i == end else i for i in integers(operator.outputs)]
            operator.outputs = np.array(outputs, np.int32)
        inputs = np.array([before, len(file.main.tensors) - 1], np.int32)
        added = schema.OperatorT(
            opcodeIndex=_code(file, name), inputs=inputs, outputs=np.array([end], np.int32)
        )
        file.main.operators = [*file.main.operators, added]
        return True

    return on_file(fault)


def _more(file: File, like: Any, buffer: int) -> int:
    """One more tensor like another; returns its index."""
    tensor = schema.TensorT(
        name="before__", shape=like.shape, type=like.type, buffer=buffer, hasRank=True
    )
    tensor.shapeSignature = like.shapeSignature
    file.main.tensors = [*file.main.tensors, tensor]
    return len(file.main.tensors) - 1


# --- interface ------------------------------------------------------------------------------------


def _swap_outputs(file: File, _: Random) -> bool:
    outputs = integers(file.main.outputs)
    if len(outputs) < 2:
        return False
    file.main.outputs = np.array([outputs[1], outputs[0], *outputs[2:]], np.int32)
    return True


def _signature_output(file: File, _: Random) -> bool:
    """The signature returns an inner tensor, or the outputs in another order."""
    for signature in file.model.signatureDefs or ():
        made = int(file.main.operators[0].outputs[0])
        for end in signature.outputs:
            if end.tensorIndex != made:
                end.tensorIndex = made
                return True
    return False


def _signature_name(file: File, _: Random) -> bool:
    for signature in file.model.signatureDefs or ():
        signature.outputs[0].name = "other"
        return True
    return False


def rename(side: str) -> Fault:
    def fault(file: File, random: Random) -> bool:
        ends = integers(getattr(file.main, side))
        file.main.tensors[ends[int(random.integers(len(ends)))]].name = "renamed__"
        return True

    return on_file(fault)


def _more_outputs(file: File, _: Random) -> bool:
    made = int(file.main.operators[0].outputs[0])
    if made in integers(file.main.outputs):
        return False
    file.main.outputs = np.array([*integers(file.main.outputs), made], np.int32)
    return True


def _fixed_batch(file: File, _: Random) -> bool:
    tensor = file.main.tensors[integers(file.main.inputs)[0]]
    if -1 not in integers(tensor.shapeSignature):
        return False
    tensor.shapeSignature = None
    return True


def _archive(file: File, _: Random) -> bool:
    """The lines of a label file in the other order."""
    for name, content in archive.contents(file.tail) if file.tail else ():
        lines = content.split(b"\n")
        new = b"\n".join(lines[::-1])
        if new != content:
            file.tail = archive.rewritten(file.tail, file.tail_start, {name: new})
            return True
    return False


def _add_metadata(file: File, name: str, content: bytes, random: Random) -> None:
    """Readers use the first or the last of two entries; the order is random."""
    file.model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
    entry = schema.MetadataT(name=name, buffer=len(file.model.buffers) - 1)
    entries = list(file.model.metadata or ())
    file.model.metadata = [entry, *entries] if random.integers(2) else [*entries, entry]


def _metadata_twice(file: File, random: Random) -> bool:
    data = metadata(file.model, "TFLITE_METADATA")
    if data is None:
        return False
    _add_metadata(file, "TFLITE_METADATA", data.tobytes() + b"\0", random)
    return True


def _two_remaps(file: File, random: Random) -> bool:
    data = metadata(file.model, "exporter.remap")
    assert data is not None
    other = data.tobytes().replace(b'"axis": 1', b'"axis": 2')
    _add_metadata(file, "exporter.remap", other, random)
    return True


def _two_signatures(file: File, random: Random) -> bool:
    """One of two signatures of a name returns one tensor for all outputs."""
    for signature in file.model.signatureDefs or ():
        only = integers(file.main.outputs)[0]
        ends = [schema.TensorMapT(name=o.name, tensorIndex=only) for o in signature.outputs]
        if len(ends) > 1:
            other = schema.SignatureDefT(signature.inputs, ends, signature.signatureKey)
            both = [other, signature] if random.integers(2) else [signature, other]
            file.model.signatureDefs = both
            return True
    return False


def _two_outputs_of_signature(file: File, random: Random) -> bool:
    for signature in file.model.signatureDefs or ():
        first, last = signature.outputs[0], signature.outputs[-1]
        if first is not last:
            other = schema.TensorMapT(name=first.name, tensorIndex=last.tensorIndex)
            ends = signature.outputs
            signature.outputs = [other, *ends] if random.integers(2) else [*ends, other]
            return True
    return False


def _values_for_an_input(file: File, _: Random) -> bool:
    tensor = file.main.tensors[integers(file.main.inputs)[0]]
    if tensor.type != schema.TensorType.FLOAT32:
        return False
    values = np.full(integers(tensor.shape), 0.5, np.float32)
    file.model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
    tensor.buffer = len(file.model.buffers) - 1
    return True


def _shared_state(file: File, _: Random) -> bool:
    """The last operation with a state uses that of the first."""
    states = {i for i, tensor in enumerate(file.main.tensors) if tensor.isVariable}
    users = [each for each in file.main.operators if states.intersection(integers(each.inputs))]
    if len(users) < 2:
        return False
    (first,) = states.intersection(integers(users[0].inputs))
    users[-1].inputs = np.array(
        [first if i in states else i for i in integers(users[-1].inputs)], np.int32
    )
    return True


FAULTS: Mapping[str, Fault] = {
    "one value": constant(nudge, _FLOATS),
    "last bit of one value": constant(last_bit, (*_FLOATS, *_INTEGERS)),
    "two rows swapped": constant(swap_rows, (*_FLOATS, *_INTEGERS)),
    "factor 1.01": constant(scale, _FLOATS),
    "all zero": constant(zero, (*_FLOATS, *_INTEGERS)),
    "integer constant": constant(one_more, _INTEGERS),
    "scale": quantization("scale", scale),
    "zero point": quantization("zeroPoint", one_more),
    "scales rotated": quantization("scale", rotate),
    "another operation": on_file(_other_operator),
    "attribute": on_file(_option),
    "inputs swapped": on_file(_swap_inputs),
    "operation removed": on_file(_remove),
    "operation inserted": insert("MUL", 1.0001),
    "limit inserted": insert("MINIMUM", 0.9),
    "NaN for rare inputs": insert("FLOOR_MOD", 1e6),
    "boost for rare inputs": insert("MAXIMUM", -1e3),
    "outputs swapped": on_file(_swap_outputs),
    "signature returns another tensor": on_file(_signature_output),
    "output of the signature renamed": on_file(_signature_name),
    "output renamed": rename("outputs"),
    "input renamed": rename("inputs"),
    "one more output": on_file(_more_outputs),
    "fixed batch": on_file(_fixed_batch),
    "labels of the model": on_file(_archive),
    "metadata stated twice": on_file(_metadata_twice),
    "two remaps": on_file(_two_remaps),
    "signature stated twice": on_file(_two_signatures),
    "output stated twice in a signature": on_file(_two_outputs_of_signature),
    "values for an input": on_file(_values_for_an_input),
    "state of another operation": on_file(_shared_state),
}
