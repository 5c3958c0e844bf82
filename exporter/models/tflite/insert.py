"""The operations that can be written into a file: builtin operators alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.tflite import codec
from exporter.models.tflite.editor import Editor, rewire
from exporter.models.tflite.picture import signatures
from exporter.models.tflite.schema import text
from exporter.plan import Insert


@dataclass(frozen=True, eq=False)
class Site:
    """Where an operation is written: its attributes, and the rank and dtype of its first input."""

    attributes: Mapping[str, Any]
    rank: int
    dtype: str

    def axis(self) -> int:
        """The attribute `axis`, counted from the front."""
        axis = int(self.attributes["axis"])
        if not -self.rank <= axis < self.rank:
            raise ModelError(f"there is no axis {axis} among {self.rank}")
        return axis % self.rank


@dataclass(frozen=True)
class Written:
    """How an operation is written.

    Attributes:
        builtin: the schema's name of the operator.
        options: the schema's name of its options; "" where it has none.
        operands: how many there are behind the first input; None for any number from 1.
        fill: sets the options.
        attributes: neutral name -> default; None where it must be given.
        moves: values only change places, so that codes of quantised tensors may pass.
        foreign: operands may be of another dtype than the first input.
        dtype: of the result; "" for that of the first input.
        order: of the operator's inputs, as positions among first input and operands.
        whole: the first input must be of whole numbers, and is cast to such in front.
        stated: constants that the operator needs behind these, made from the attributes: values
            as they are, and real ones that take on the first input's codes.
    """

    builtin: str
    options: str = ""
    operands: int | None = 0
    fill: Callable[[Any, Site], None] = lambda _options, _site: None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    moves: bool = False
    foreign: bool = False
    dtype: str = ""
    order: tuple[int, ...] | None = None
    whole: bool = False
    stated: Callable[[Site], tuple[Array | float, ...]] = lambda _site: ()


def insert(editor: Editor, edit: Insert) -> None:
    """Write the operation and let it be read in place of its first input.

    Raises:
        ModelError: an operation, operand or attribute that the table does not have; it would have
            to compute with quantised values; or an operand comes later than what would read the
            result.
    """
    written = _entry(edit)
    after = editor.index(edit.after)
    tensor = editor.main.tensors[after]
    if not written.moves and codec.is_quantised(tensor):
        raise ModelError(f"{edit.operation} cannot be inserted behind {edit.after!r}: quantised")
    inputs = [after, *(_operand(editor, edit, operand) for operand in edit.operands)]
    place, readers = _place(editor, edit, inputs)
    for index in inputs:
        if editor.main.tensors[index].type != tensor.type and not written.foreign:
            kinds = codec.type_name(tensor), codec.type_name(editor.main.tensors[index])
            raise ModelError(f"{edit.operation} cannot join {kinds[0]} and {kinds[1]}")
    attributes = {**written.attributes, **edit.attributes}
    if written.whole and "int" not in codec.type_name(tensor):
        inputs[0] = _cast_in_front(editor, edit, place)
        place += 1
    site = Site(attributes, _rank(tensor), codec.type_name(tensor))
    stated = [_constant(editor, edit, each) for each in written.stated(site)]
    operator = schema.OperatorT(_code(editor, written, site.dtype))
    _set_options(operator, written, site)
    result = _result(editor, edit, written.dtype or str(attributes.get("dtype", site.dtype)))
    order = written.order or range(len(inputs))
    operator.inputs = np.array([*(inputs[i] for i in order), *stated], np.int32)
    operator.outputs = np.array([result], np.int32)
    for reader, slot in readers:
        rewire(reader, slot, result)
    _take_over(editor, edit.after, result)
    editor.main.operators = [*(editor.main.operators or ())]
    editor.main.operators.insert(place, operator)


def _cast_in_front(editor: Editor, edit: Insert, place: int) -> int:
    """What an operation reads instead of its first input: the same as whole numbers."""
    index = editor.index(edit.after)
    tensor = editor.main.tensors[index]
    site = Site({"dtype": "int32"}, _rank(tensor), codec.type_name(tensor))
    operator = schema.OperatorT(_code(editor, OPERATIONS["cast"], site.dtype))
    _set_options(operator, OPERATIONS["cast"], site)
    result = _result(editor, replace(edit, operation="cast"), "int32")
    operator.inputs, operator.outputs = (np.array([i], np.int32) for i in (index, result))
    editor.main.operators = [*(editor.main.operators or ())]
    editor.main.operators.insert(place, operator)
    return result


def _entry(edit: Insert) -> Written:
    written = OPERATIONS.get(edit.operation)
    if written is None:
        known = ", ".join(OPERATIONS)
        raise ModelError(f"TFLite cannot write the operation {edit.operation!r}; it can: {known}")
    count = len(edit.operands)
    if count != written.operands and (written.operands is not None or not count):
        raise ModelError(f"the operation {edit.operation!r} does not take {count} operands")
    foreign = set(edit.attributes) - set(written.attributes)
    needed = {name for name, default in written.attributes.items() if default is None}
    for name in sorted(foreign | needed - set(edit.attributes)):
        verb = "has no" if name in foreign else "needs the"
        raise ModelError(f"the operation {edit.operation!r} {verb} attribute {name!r}")
    return written


def _constant(editor: Editor, edit: Insert, value: Array | float) -> int:
    if isinstance(value, float):
        before = editor.main.tensors[editor.index(edit.after)]
        value = codec.encode(value, before, 0, np.zeros(0, np.int64)).reshape(1)
    return _operand(editor, edit, value)


def _operand(editor: Editor, edit: Insert, operand: Any) -> int:
    if isinstance(operand, str):
        return editor.index(operand)
    index = editor.new_constant(f"{edit.after}/{edit.operation}/operand", operand)
    before = editor.main.tensors[editor.index(edit.after)]
    if editor.main.tensors[index].type == before.type:  # codes mean the same on both sides
        editor.main.tensors[index].quantization = before.quantization
    return index


def _rank(tensor: Any) -> int:
    """0 where only the run tells: nothing that needs an axis can be inserted there."""
    return 0 if tensor.shape is None else len(tensor.shape)


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


def _result(editor: Editor, edit: Insert, dtype: str) -> int:
    """The result's tensor, with the quantisation of the first input."""
    before = editor.main.tensors[editor.index(edit.after)]
    stated = before.shapeSignature if before.shapeSignature is not None else before.shape
    kept = tuple(None if n < 0 else int(n) for n in (() if stated is None else stated))
    shape = kept if edit.shape is None else edit.shape
    index = editor.new_tensor(f"{edit.after}/{edit.operation}", dtype, shape)
    editor.main.tensors[index].quantization = before.quantization
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


def _code(editor: Editor, written: Written, dtype: str) -> int:
    """The index of the operator's code; added where the file does not use it yet."""
    number = int(getattr(schema.BuiltinOperator, written.builtin))
    version = 2 if dtype == "int8" else 1  # of all operators in the table that move codes
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


def _set_axis(options: Any, site: Site) -> None:
    options.axis = site.axis()


def _set_softmax(options: Any, site: Site) -> None:
    _only_last(options, site)
    options.beta = 1.0


def _only_last(_: Any, site: Site) -> None:
    if site.axis() != site.rank - 1:
        raise ModelError(f"TFLite normalises along the last axis, not along {site.axis()}")


def _set_cast(options: Any, site: Site) -> None:
    """The result's dtype is checked where its tensor is made."""
    options.inDataType = codec.CODES[site.dtype]
    options.outDataType = codec.CODES.get(str(site.attributes["dtype"]), 0)


def _one_more(site: Site) -> tuple[Array | float, ...]:
    widths = np.zeros((site.rank, 2), np.int32)
    widths[site.axis(), 1] = 1
    return widths, float(site.attributes["value"])


_LAST = {"axis": -1}

# Operands and attributes by name: greater(threshold), gather(indices; axis), concat(more...; axis),
# where(condition, otherwise), softmax(; axis), cast(; dtype), look_up(table; dtype), pad(; axis,
# value). The result of `where` is the value that was there, wherever the condition holds; that of
# `look_up` what a table of this dtype has at ids; `pad` puts one position of a real value behind
# the others. Operands broadcast as in NumPy.
OPERATIONS: Mapping[str, Written] = {
    "add": Written("ADD", "AddOptions", 1),
    "cast": Written("CAST", "CastOptions", 0, _set_cast, {"dtype": None}),
    "concat": Written(
        "CONCATENATION", "ConcatenationOptions", None, _set_axis, {"axis": None}, moves=True
    ),
    "div": Written("DIV", "DivOptions", 1),
    "gather": Written(
        "GATHER", "GatherOptions", 1, _set_axis, {"axis": None}, moves=True, foreign=True
    ),
    "greater": Written("GREATER", "GreaterOptions", 1, dtype="bool"),
    "less": Written("LESS", "LessOptions", 1, dtype="bool"),
    "log_softmax": Written("LOG_SOFTMAX", "LogSoftmaxOptions", 0, _only_last, _LAST),
    "look_up": Written(
        "GATHER",
        "GatherOptions",
        1,
        attributes={"dtype": None},
        foreign=True,
        order=(1, 0),
        whole=True,
    ),
    "maximum": Written("MAXIMUM", "MaximumMinimumOptions", 1),
    "minimum": Written("MINIMUM", "MaximumMinimumOptions", 1),
    "mul": Written("MUL", "MulOptions", 1),
    "pad": Written(
        "PADV2",
        "PadV2Options",
        attributes={"axis": None, "value": None},
        moves=True,
        stated=_one_more,
    ),
    "relu": Written("RELU"),
    "sigmoid": Written("LOGISTIC"),
    "softmax": Written("SOFTMAX", "SoftmaxOptions", 0, _set_softmax, _LAST),
    "sub": Written("SUB", "SubOptions", 1),
    "where": Written("SELECT_V2", "SelectV2Options", 2, foreign=True, order=(1, 0, 2)),
}
