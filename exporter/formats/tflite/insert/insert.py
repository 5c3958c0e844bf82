"""Writes operations into a file, one behind a tensor or several."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.tflite import constants
from exporter.formats.tflite.draw import signatures
from exporter.formats.tflite.editor import Editor, rewire
from exporter.formats.tflite.insert.operations import OPERATIONS
from exporter.formats.tflite.insert.writer import Site, Written
from exporter.formats.tflite.schema import raise_runtime, text
from exporter.formats.writable_operations import find_operation
from exporter.graph import Array
from exporter.graph.edits import Compute, ComputeStep, Insert


def insert(editor: Editor, edit: Insert) -> None:
    """Write the operation and let it be read in place of its first input.

    Raises:
        ModelError: an operation, operand or attribute that the table does not have; it would have
            to compute with quantized values; or an operand comes later than what would read the
            result.
    """
    written = _entry(edit, edit.operands)
    after = editor.index(edit.after)
    inputs = [after, *(_operand(editor, edit, after, operand) for operand in edit.operands)]
    place, readers = _place(
        editor, edit.operation, edit.after, inputs, branch=edit.name is not None
    )
    operators = []
    if written.whole and "int" not in constants.type_name(editor.main.tensors[after]):
        cast = Insert("cast", edit.after, attributes={"dtype": "int32"})
        operators.append(_operator(editor, OPERATIONS["cast"], cast, [after]))
        inputs[0] = int(operators[0].outputs[0])
    operators.append(_operator(editor, written, edit, inputs))
    if edit.name is None:
        _let_read(editor, edit.after, readers, int(operators[-1].outputs[written.place]))
    else:
        editor.branches.append(operators[-1])
    _put(editor, place, operators)


def compute(editor: Editor, edit: Compute) -> None:
    """Write the steps and let the last one's result be read in place of the tensor.

    Raises:
        ModelError: as `insert` does.
    """
    after = editor.index(edit.after)
    read = [each for step in edit.steps for each in step.operands if isinstance(each, str)]
    ends = [after, *map(editor.index, read)]
    place, readers = _place(editor, edit.steps[-1].operation, edit.after, ends)
    values, operators = [after], []
    for step in edit.steps:
        written = _entry(step, (*step.inputs, *step.operands)[1:])
        inputs = [values[number] for number in step.inputs]
        for operand in step.operands:
            first = inputs[0] if inputs else after
            inputs.append(_operand(editor, step, first, operand))
        operators.append(_operator(editor, written, step, inputs))
        values.append(int(operators[-1].outputs[written.place]))
    _let_read(editor, edit.after, readers, values[-1])
    _put(editor, place, operators)
    editor.drop_unread(after)


def _operator(
    editor: Editor, written: Written, edit: Insert | ComputeStep, inputs: list[int]
) -> Any:
    """An operator that reads these tensors and makes a new one."""
    first = editor.main.tensors[inputs[0]]
    if not (written.moves or written.coded) and constants.is_quantized(first):
        raise ModelError(
            f"{edit.operation} cannot be inserted behind {text(first.name)!r}: quantized"
        )
    for index in inputs:
        if editor.main.tensors[index].type != first.type and not written.foreign:
            kinds = constants.type_name(first), constants.type_name(editor.main.tensors[index])
            raise ModelError(f"{edit.operation} cannot join {kinds[0]} and {kinds[1]}")
    attributes = {**written.attributes, **edit.attributes}
    site = Site(text(first.name), attributes, _rank(first), constants.type_name(first))
    stated = [_constant(editor, edit, inputs[0], each) for each in written.stated(site)]
    operator = schema.OperatorT(_code(editor, written, site))
    _set_options(operator, written, site)
    result = _result(editor, edit, first, written.dtype or str(attributes.get("dtype", site.dtype)))
    if written.coded and not written.dtype:
        editor.main.tensors[result].quantization = _coded(site)
    order = written.order or range(len(inputs))
    operator.inputs = np.array([*(inputs[i] for i in order), *stated], np.int32)
    results = [_beside(editor, result, first, dtype) for dtype in written.more]
    results.insert(written.place, result)
    operator.outputs = np.array(results, np.int32)
    raise_runtime(editor.file.model, written.since)
    return operator


def _coded(site: Site) -> Any:
    """What the codes stand for that an operator makes."""
    return schema.QuantizationParametersT(
        scale=np.array([site.attributes["scale"]], np.float32),
        zeroPoint=np.array([site.attributes["zero_point"]], np.int64),
    )


def _beside(editor: Editor, result: int, first: Any, dtype: str) -> int:
    """A further result, which nothing reads; it has the codes of the first input, if its type."""
    shape = tuple(int(n) for n in editor.main.tensors[result].shape)
    kind = dtype or constants.type_name(first)
    index = editor.new_tensor(f"{text(first.name)}/{kind}", kind, shape)
    editor.main.tensors[index].quantization = None if dtype else first.quantization
    return index


def _let_read(editor: Editor, after: str, readers: list[tuple[Any, int]], result: int) -> None:
    for reader, slot in readers:
        rewire(reader, slot, result)
    _take_over(editor, after, result)


def _put(editor: Editor, place: int, operators: list[Any]) -> None:
    editor.main.operators = [*(editor.main.operators or ())]
    editor.main.operators[place:place] = operators


def _entry(edit: Insert | ComputeStep, operands: tuple[Any, ...]) -> Written:
    return find_operation(OPERATIONS, edit, len(operands), "TFLite")


def _constant(editor: Editor, edit: Insert | ComputeStep, first: int, value: Array | float) -> int:
    if isinstance(value, float):
        before = editor.main.tensors[first]
        value = constants.encode(value, before, 0, np.zeros(0, np.int64)).reshape(1)
    return _operand(editor, edit, first, value)


def _operand(editor: Editor, edit: Insert | ComputeStep, first: int, operand: Any) -> int:
    if isinstance(operand, str):
        return editor.index(operand)
    before = editor.main.tensors[first]
    name = f"{text(before.name)}/{edit.operation}/operand"
    index = editor.new_constant(name, operand)
    if editor.main.tensors[index].type == before.type:  # codes mean the same on both sides
        editor.main.tensors[index].quantization = before.quantization
    return index


def _rank(tensor: Any) -> int:
    """0 where only the run tells: nothing that needs an axis can be inserted there."""
    return 0 if tensor.shape is None else len(tensor.shape)


def _place(
    editor: Editor, operation: str, after: str, inputs: list[int], *, branch: bool = False
) -> tuple[int, list[tuple[Any, int]]]:
    """Behind all that makes the inputs; and who shall read the result."""
    places = [editor.producer(index) for index in inputs]
    place = max((p + 1 for p in places if p is not None), default=0)
    readers = [
        (operator, slot)
        for operator, slot in editor.readers(inputs[0])
        if not branch and not any(operator is each for each in editor.branches)
    ]
    order = {id(operator): i for i, operator in enumerate(editor.main.operators or ())}
    if any(order[id(operator)] < place for operator, _ in readers):
        raise ModelError(
            f"{operation} cannot be inserted behind {after!r}: an operand is computed "
            "after something that reads this tensor"
        )
    return place, readers


def _result(editor: Editor, edit: Insert | ComputeStep, before: Any, dtype: str) -> int:
    """The result's tensor, with the quantization of the first input if it is of its type."""
    stated = before.shapeSignature if before.shapeSignature is not None else before.shape
    kept = tuple(None if n < 0 else int(n) for n in (() if stated is None else stated))
    shape = kept if edit.shape is None else edit.shape
    name = edit.name if isinstance(edit, Insert) else None
    if name in editor.tensors:
        raise ModelError(f"there is a tensor {name!r} already")
    index = editor.new_tensor(name or f"{text(before.name)}/{edit.operation}", dtype, shape)
    if dtype == constants.type_name(before):  # else the same numbers would stand for other values
        editor.main.tensors[index].quantization = before.quantization
    if name is not None:
        editor.tensors[name] = index
    return index


def _take_over(editor: Editor, name: str, result: int) -> None:
    """The result bears the name of the first input, and is returned where that was."""
    after = editor.index(name)
    before, behind = editor.main.tensors[after], editor.main.tensors[result]
    before.name, behind.name = text(behind.name), text(before.name)
    editor.tensors[name], editor.tensors[text(before.name)] = result, after
    outputs = np.array([] if editor.main.outputs is None else editor.main.outputs, np.int32)
    editor.main.outputs = np.where(outputs == after, np.int32(result), outputs)
    for signature in signatures(editor.file.model):
        for end in signature.outputs or ():
            if end.tensorIndex == after:
                end.tensorIndex = result


def _code(editor: Editor, written: Written, site: Site) -> int:
    """The index of the operator's code; added where the file does not use it yet."""
    number = int(getattr(schema.BuiltinOperator, written.builtin))
    dtype = str(site.attributes["dtype"]) if written.coded else site.dtype
    version = written.versions.get(dtype, 1)
    codes = list(editor.file.model.operatorCodes or ())
    for index, code in enumerate(codes):
        known = max(code.builtinCode, code.deprecatedBuiltinCode)
        if known == number and code.version == version:
            return index
    # Readers that know the new field alone and readers of the old one both have to find it.
    codes.append(schema.OperatorCodeT(min(number, _OLD_CODES), None, version, number))
    editor.file.model.operatorCodes = codes
    return len(codes) - 1


_OLD_CODES = 127  # the old field is one signed byte; this value sends readers to the new one


def _set_options(operator: Any, written: Written, site: Site) -> None:
    if not written.options:
        return
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, written.options)
    operator.builtinOptions = getattr(schema, f"{written.options}T")()
    written.fill(operator.builtinOptions, site)
