"""Insert operations after a tensor of a file: a single one (`insert`) or several (`compute`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import constants
from exporter.formats.tflite.editor import Editor, rewire
from exporter.formats.tflite.insert.operations import OPERATIONS
from exporter.formats.tflite.insert.writer import Site, Writable
from exporter.formats.tflite.layout import enumeration
from exporter.formats.tflite.record import Record
from exporter.formats.tflite.schema import integers, operator_code, raise_runtime, signatures, text
from exporter.formats.writable_operations import check_operation
from exporter.graph import Array
from exporter.graph.edits import Compute, ComputeStep, Insert


def insert(editor: Editor, edit: Insert) -> None:
    """Insert one operation.

    If the edit has no name, the consumers of `edit.after` read the result instead. If it has one,
    the operation is part of a branch: no consumer changes, and later edits read the result by name.

    Raises:
        ModelError: TFLite cannot express the operation; its operands or attributes are wrong; it
            would compute with quantized values; or a consumer runs before an operand is computed.
    """
    check_operation(edit, OPERATIONS, "TFLite")
    after = editor.index(edit.after)
    inputs = [after, *(_operand(editor, edit, after, operand) for operand in edit.operands)]
    is_branch = edit.name is not None
    others_change = not (is_branch or edit.only_output)
    consumers = editor.consumers(after, branches=False) if others_change else []
    position = _position(editor, edit.operation, edit.after, inputs, consumers)
    operators, result = _operators(editor, edit, inputs)
    if is_branch:
        editor.branches.append(operators[-1])
    else:
        _replace(editor, edit.after, consumers, result)
    editor.main.operators[position:position] = operators


def compute(editor: Editor, edit: Compute) -> None:
    """Insert the steps; the consumers of `edit.after` then read the result of the last step.

    Raises:
        ModelError: in the same cases as `insert`.
    """
    after = editor.index(edit.after)
    names = [each for step in edit.steps for each in step.operands if isinstance(each, str)]
    consumers = editor.consumers(after, branches=False)
    inputs = [after, *map(editor.index, names)]
    position = _position(editor, edit.steps[-1].operation, edit.after, inputs, consumers)
    results, operators = [after], []  # result of each step, after the tensor itself
    for step in edit.steps:
        check_operation(step, OPERATIONS, "TFLite")
        inputs = [results[i] for i in step.inputs]
        for operand in step.operands:
            inputs.append(_operand(editor, step, inputs[0] if inputs else after, operand))
        added, result = _operators(editor, step, inputs)
        operators += added
        results.append(result)
    _replace(editor, edit.after, consumers, results[-1])
    editor.main.operators[position:position] = operators
    editor.drop_unread(after)


def _position(
    editor: Editor, operation: str, after: str, inputs: list[int], consumers: list[tuple[Any, int]]
) -> int:
    """The position in the operator list after the producers of all inputs."""
    producers = [editor.producer(index) for index in inputs]
    position = max((p + 1 for p in producers if p is not None), default=0)
    order = {id(operator): i for i, operator in enumerate(editor.main.operators)}
    if any(order[id(operator)] < position for operator, _ in consumers):
        raise ModelError(
            f"{operation} cannot be inserted after {after!r}: an operand is computed after an "
            "operation that reads this tensor"
        )
    return position


def _replace(editor: Editor, name: str, consumers: list[tuple[Any, int]], replacement: int) -> None:
    """Replace a tensor in its consumers, in the outputs and for later edits; swap the names."""
    for operator, slot in consumers:
        rewire(operator, slot, replacement)
    index, tensors = editor.index(name), editor.main.tensors
    original, result = tensors[index], tensors[replacement]
    original.name, result.name = text(result.name), text(original.name)
    editor.tensors[name], editor.tensors[text(original.name)] = replacement, index
    outputs = np.array(integers(editor.main.outputs), np.int32)
    editor.main.outputs = np.where(outputs == index, np.int32(replacement), outputs)
    for signature in signatures(editor.file.model):
        for output in signature.outputs or ():
            if output.tensorIndex == index:
                output.tensorIndex = replacement


def _operators(
    editor: Editor, edit: Insert | ComputeStep, inputs: list[int]
) -> tuple[list[Any], int]:
    """The TFLite operators of an operation, and the index of the result."""
    writable = OPERATIONS[edit.operation]
    if writable.integer_input and "int" not in _dtype(editor, inputs[0]):
        cast = Insert("cast", "", attributes={"dtype": "int32"})
        operators, integers_input = _operators(editor, cast, inputs[:1])
        inputs = [integers_input, *inputs[1:]]
    else:
        operators = []
    operator = _operator(editor, edit, writable, inputs)
    return [*operators, operator], int(operator.outputs[writable.results.index(None)])


def _operator(
    editor: Editor, edit: Insert | ComputeStep, writable: Writable, inputs: list[int]
) -> Any:
    """An operator that reads these tensors and computes new ones."""
    first = editor.main.tensors[inputs[0]]
    _check_dtypes(editor, edit.operation, writable, inputs)
    checked = check_operation(edit, OPERATIONS, "TFLite")
    rank = len(integers(first.shape))  # 0 if the rank is not known: no axis can be given
    site = Site(text(first.name), checked.attributes, rank, _dtype(editor, inputs[0]))
    added = [_constant(editor, edit, inputs[0], value) for value in writable.constants(site)]
    version_dtype = str(site.attributes["dtype"]) if writable.converts else site.dtype
    builtin = enumeration("BuiltinOperator")[writable.builtin]
    version = writable.versions.get(version_dtype, 1)
    operator: Any = Record(
        "Operator", opcodeIndex=operator_code(editor.file.model, builtin, version)
    )
    if writable.options:
        operator.builtinOptionsType = enumeration("BuiltinOptions")[writable.options]
        operator.builtinOptions = Record(writable.options)
        writable.fill(operator.builtinOptions, site)
    dtype = checked.dtype or site.dtype
    result = _result(editor, edit, first, dtype)
    if writable.converts and dtype == version_dtype:
        editor.main.tensors[result].quantization = Record(
            "QuantizationParameters",
            scale=np.array([site.attributes["scale"]], np.float32),
            zeroPoint=np.array([site.attributes["zero_point"]], np.int64),
        )
    order = writable.order or range(len(inputs))
    operator.inputs = np.array([*(inputs[i] for i in order), *added], np.int32)
    operator.outputs = np.array(
        [
            result if unread is None else _unread_result(editor, result, first, unread)
            for unread in writable.results
        ],
        np.int32,
    )
    raise_runtime(editor.file.model, writable.since)
    return operator


def _check_dtypes(editor: Editor, operation: str, writable: Writable, inputs: list[int]) -> None:
    first = editor.main.tensors[inputs[0]]
    if not (writable.moves or writable.converts) and constants.is_quantized(first):
        raise ModelError(
            f"{operation} cannot be inserted after {text(first.name)!r}, which is quantized"
        )
    for index in inputs:
        if editor.main.tensors[index].type != first.type and not writable.mixed_dtypes:
            raise ModelError(
                f"{operation} cannot mix {_dtype(editor, inputs[0])} and {_dtype(editor, index)}"
            )


def _dtype(editor: Editor, index: int) -> str:
    return constants.type_name(editor.main.tensors[index])


def _operand(editor: Editor, edit: Insert | ComputeStep, first: int, operand: str | Array) -> int:
    """The index of an operand; a constant of the first input's dtype shares its quantization."""
    if isinstance(operand, str):
        return editor.index(operand)
    source = editor.main.tensors[first]
    index = editor.new_constant(f"{text(source.name)}/{edit.operation}/operand", operand)
    if editor.main.tensors[index].type == source.type:
        editor.main.tensors[index].quantization = source.quantization
    return index


def _constant(editor: Editor, edit: Insert | ComputeStep, first: int, value: Array | float) -> int:
    if isinstance(value, float):
        source = editor.main.tensors[first]
        value = constants.encode(value, source, 0, np.zeros(0, np.int64)).reshape(1)
    return _operand(editor, edit, first, value)


def _result(editor: Editor, edit: Insert | ComputeStep, before: Any, dtype: str) -> int:
    """A tensor for the result; it shares the first input's quantization if it has its dtype."""
    signature = before.shape if before.shapeSignature is None else before.shapeSignature
    shape = edit.shape
    if shape is None:
        shape = tuple(None if n < 0 else n for n in integers(signature))
    name = edit.name if isinstance(edit, Insert) else None
    if name in editor.tensors:
        raise ModelError(f"there is a tensor {name!r} already")
    index = editor.new_tensor(name or f"{text(before.name)}/{edit.operation}", dtype, shape)
    if dtype == constants.type_name(before):
        editor.main.tensors[index].quantization = before.quantization
    if name is not None:
        editor.tensors[name] = index
    return index


def _unread_result(editor: Editor, result: int, first: Any, dtype: str) -> int:
    """A tensor for a result that no operation reads.

    If the dtype is "", it has the dtype and the quantization of the first input.
    """
    kind = dtype or constants.type_name(first)
    shape = tuple(integers(editor.main.tensors[result].shape))
    index = editor.new_tensor(f"{text(first.name)}/{kind}", kind, shape)
    editor.main.tensors[index].quantization = None if dtype else first.quantization
    return index
