"""The operations that can be written into a file: builtin operators alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.models.tflite import codec
from exporter.models.tflite.editor import Editor, rewire
from exporter.models.tflite.picture import signatures
from exporter.models.tflite.schema import text
from exporter.plan import Insert


@dataclass(frozen=True)
class Written:
    """How an operation is written.

    Attributes:
        builtin: the schema's name of the operator.
        options: the schema's name of its options; "" where it has none.
        fill: sets the options from the neutral attributes and the rank of the first input.
        moves: values only change places, so that codes of quantised tensors may pass.
        versions: of the operator, by dtype; 1 for all others.
    """

    builtin: str
    options: str = ""
    fill: Callable[[Any, Mapping[str, Any], int], None] = lambda _options, _attributes, _rank: None
    moves: bool = False
    versions: Mapping[str, int] = field(default_factory=lambda: {"int8": 2})


def insert(editor: Editor, edit: Insert) -> None:
    """Write the operation and let it be read in place of its first input.

    Raises:
        ModelError: the format's table has no such operation, it would have to compute with
            quantised values, or an operand comes later than what would read the result.
    """
    if edit.operation not in OPERATIONS:
        raise ModelError(f"the operation {edit.operation!r} cannot be written into this format")
    written = OPERATIONS[edit.operation]
    after = editor.index(edit.after)
    tensor = editor.main.tensors[after]
    if not written.moves and codec.is_quantised(tensor):
        raise ModelError(f"{edit.operation} cannot be inserted behind {edit.after!r}: quantised")
    operands = [_operand(editor, edit, operand) for operand in edit.operands]
    place, readers = _place(editor, edit, [after, *operands])
    result = _result(editor, edit, after)
    for operator, slot in readers:
        rewire(operator, slot, result)
    _take_over_outputs(editor, after, result)
    operator = schema.OperatorT(
        opcodeIndex=_code(editor, written, codec.type_name(tensor)),
        inputs=np.array([after, *operands], np.int32),
        outputs=np.array([result], np.int32),
    )
    _set_options(operator, written, edit.attributes, len(tensor.shape))
    editor.main.operators = [*(editor.main.operators or ())]
    editor.main.operators.insert(place, operator)


def _operand(editor: Editor, edit: Insert, operand: Any) -> int:
    if isinstance(operand, str):
        return editor.index(operand)
    index = editor.new_constant(f"{edit.after}/{edit.operation}/operand", operand)
    before = editor.main.tensors[editor.index(edit.after)]
    if editor.main.tensors[index].type == before.type:  # codes mean the same on both sides
        editor.main.tensors[index].quantization = before.quantization
    return index


def _place(editor: Editor, edit: Insert, inputs: list[int]) -> tuple[int, list[tuple[Any, int]]]:
    """Behind all that makes the inputs; and who shall read the result."""
    places = [editor.producer(index) for index in inputs]
    place = max((p + 1 for p in places if p is not None), default=0)
    readers = editor.readers(inputs[0])
    order = {id(operator): i for i, operator in enumerate(editor.main.operators or ())}
    if any(order[id(operator)] < place for operator, _ in readers):
        raise ModelError(
            f"{edit.operation} cannot be inserted behind {edit.after!r}: an operand is computed "
            "after something that reads this tensor"
        )
    return place, readers


def _result(editor: Editor, edit: Insert, after: int) -> int:
    """The result's tensor: type and quantisation of the first input."""
    before = editor.main.tensors[after]
    stated = before.shapeSignature if before.shapeSignature is not None else before.shape
    kept = tuple(None if n < 0 else int(n) for n in stated)
    name = f"{edit.after}/{edit.operation}"
    dtype = codec.type_name(before)
    index = editor.new_tensor(name, dtype, kept if edit.shape is None else edit.shape)
    editor.main.tensors[index].quantization = before.quantization
    return index


def _take_over_outputs(editor: Editor, after: int, result: int) -> None:
    """What returned the first input returns the result, under the same name."""
    outputs = np.array([] if editor.main.outputs is None else editor.main.outputs, np.int32)
    if after not in outputs:
        return
    editor.main.outputs = np.where(outputs == after, np.int32(result), outputs)
    before, behind = editor.main.tensors[after], editor.main.tensors[result]
    before.name, behind.name = text(behind.name), text(before.name)
    for signature in signatures(editor.file.model):
        for end in signature.outputs or ():
            if end.tensorIndex == after:
                end.tensorIndex = result


def _code(editor: Editor, written: Written, dtype: str) -> int:
    """The index of the operator's code; added where the file does not use it yet."""
    number = int(getattr(schema.BuiltinOperator, written.builtin))
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


def _set_options(operator: Any, written: Written, attributes: Mapping[str, Any], rank: int) -> None:
    if not written.options:
        return
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, written.options)
    operator.builtinOptions = getattr(schema, f"{written.options}T")()
    written.fill(operator.builtinOptions, attributes, rank)


def _set_axis(options: Any, attributes: Mapping[str, Any], _: int) -> None:
    options.axis = int(attributes["axis"])


def _set_softmax(options: Any, attributes: Mapping[str, Any], rank: int) -> None:
    axis = int(attributes.get("axis", -1))
    if axis not in (-1, rank - 1):
        raise ModelError(f"softmax along axis {axis} of {rank} cannot be written: only the last")
    options.beta = 1.0


# Name -> operator. Attributes: gather and concat take `axis`; softmax may, if it is the last. The
# operands of gather are the positions (int32); those of concat stand behind the first input.
OPERATIONS: Mapping[str, Written] = {
    "add": Written("ADD", "AddOptions"),
    "concat": Written("CONCATENATION", "ConcatenationOptions", _set_axis, moves=True),
    "gather": Written("GATHER", "GatherOptions", _set_axis, moves=True),
    "mul": Written("MUL", "MulOptions"),
    "sigmoid": Written("LOGISTIC"),
    "softmax": Written("SOFTMAX", "SoftmaxOptions", _set_softmax),
}
