"""The operations that can be written into a file: builtin operators alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.tflite import codec
from exporter.models.tflite.editor import Editor, rewire
from exporter.models.tflite.picture import signatures
from exporter.models.tflite.schema import raise_runtime, text
from exporter.plan import Compute, Insert, Step


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
        coded: codes come in or go out, of the dtype and meaning that the attributes tell.
        versions: of the operator, where its codes are not of its first version's dtypes.
        stated: constants that the operator needs behind these, made from the attributes: values
            as they are, and real ones that take on the first input's codes.
        more: dtypes of further results, which nothing reads.
        since: the first runtime that has it, in the version that is written (TensorFlow's list of
            operator versions).
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
    coded: bool = False
    versions: Mapping[str, int] = field(default_factory=lambda: {"int8": 2})
    stated: Callable[[Site], tuple[Array | float, ...]] = lambda _site: ()
    more: tuple[str, ...] = ()
    since: str = "1.14.0"


def insert(editor: Editor, edit: Insert) -> None:
    """Write the operation and let it be read in place of its first input.

    Raises:
        ModelError: an operation, operand or attribute that the table does not have; it would have
            to compute with quantised values; or an operand comes later than what would read the
            result.
    """
    written = _entry(edit, edit.operands)
    after = editor.index(edit.after)
    inputs = [after, *(_operand(editor, edit, after, operand) for operand in edit.operands)]
    place, readers = _place(
        editor, edit.operation, edit.after, inputs, branch=edit.name is not None
    )
    operators = []
    if written.whole and "int" not in codec.type_name(editor.main.tensors[after]):
        cast = Insert("cast", edit.after, attributes={"dtype": "int32"})
        operators.append(_operator(editor, OPERATIONS["cast"], cast, [after]))
        inputs[0] = int(operators[0].outputs[0])
    operators.append(_operator(editor, written, edit, inputs))
    if edit.name is None:
        _let_read(editor, edit.after, readers, operators[-1])
    else:
        editor.branches.append(operators[-1])
    _put(editor, place, operators)


def compute(editor: Editor, edit: Compute) -> None:
    """Write the steps and let the last one's result be read in place of the tensor.

    Raises:
        ModelError: as `insert` does.
    """
    after = editor.index(edit.after)
    place, readers = _place(editor, edit.steps[-1].operation, edit.after, [after])
    values, operators = [after], []
    for step in edit.steps:
        written = _entry(step, (*step.inputs, *step.operands)[1:])
        inputs = [values[number] for number in step.inputs]
        inputs += [_operand(editor, step, inputs[0], operand) for operand in step.operands]
        operators.append(_operator(editor, written, step, inputs))
        values.append(int(operators[-1].outputs[0]))
    _let_read(editor, edit.after, readers, operators[-1])
    _put(editor, place, operators)


def _operator(editor: Editor, written: Written, edit: Insert | Step, inputs: list[int]) -> Any:
    """An operator that reads these tensors and makes a new one."""
    first = editor.main.tensors[inputs[0]]
    if not (written.moves or written.coded) and codec.is_quantised(first):
        raise ModelError(
            f"{edit.operation} cannot be inserted behind {text(first.name)!r}: quantised"
        )
    for index in inputs:
        if editor.main.tensors[index].type != first.type and not written.foreign:
            kinds = codec.type_name(first), codec.type_name(editor.main.tensors[index])
            raise ModelError(f"{edit.operation} cannot join {kinds[0]} and {kinds[1]}")
    attributes = {**written.attributes, **edit.attributes}
    site = Site(attributes, _rank(first), codec.type_name(first))
    stated = [_constant(editor, edit, inputs[0], each) for each in written.stated(site)]
    operator = schema.OperatorT(_code(editor, written, site))
    _set_options(operator, written, site)
    result = _result(editor, edit, first, written.dtype or str(attributes.get("dtype", site.dtype)))
    if written.coded:
        editor.main.tensors[result].quantization = _coded(site) if not written.dtype else None
    order = written.order or range(len(inputs))
    operator.inputs = np.array([*(inputs[i] for i in order), *stated], np.int32)
    shape = tuple(int(n) for n in editor.main.tensors[result].shape)
    more = [editor.new_tensor(f"{text(first.name)}/{d}", d, shape) for d in written.more]
    operator.outputs = np.array([result, *more], np.int32)
    raise_runtime(editor.file.model, written.since)
    return operator


def _coded(site: Site) -> Any:
    """What the codes stand for that an operator makes."""
    return schema.QuantizationParametersT(
        scale=np.array([site.attributes["scale"]], np.float32),
        zeroPoint=np.array([site.attributes["zero_point"]], np.int64),
    )


def _let_read(editor: Editor, after: str, readers: list[tuple[Any, int]], operator: Any) -> None:
    result = int(operator.outputs[0])
    for reader, slot in readers:
        rewire(reader, slot, result)
    _take_over(editor, after, result)


def _put(editor: Editor, place: int, operators: list[Any]) -> None:
    editor.main.operators = [*(editor.main.operators or ())]
    editor.main.operators[place:place] = operators


def _entry(edit: Insert | Step, operands: tuple[Any, ...]) -> Written:
    written = OPERATIONS.get(edit.operation)
    if written is None:
        known = ", ".join(OPERATIONS)
        raise ModelError(f"TFLite cannot write the operation {edit.operation!r}; it can: {known}")
    count = len(operands)
    if count != written.operands and (written.operands is not None or not count):
        raise ModelError(f"the operation {edit.operation!r} does not take {count} operands")
    foreign = set(edit.attributes) - set(written.attributes)
    needed = {name for name, default in written.attributes.items() if default is None}
    for name in sorted(foreign | needed - set(edit.attributes)):
        verb = "has no" if name in foreign else "needs the"
        raise ModelError(f"the operation {edit.operation!r} {verb} attribute {name!r}")
    return written


def _constant(editor: Editor, edit: Insert | Step, first: int, value: Array | float) -> int:
    if isinstance(value, float):
        before = editor.main.tensors[first]
        value = codec.encode(value, before, 0, np.zeros(0, np.int64)).reshape(1)
    return _operand(editor, edit, first, value)


def _operand(editor: Editor, edit: Insert | Step, first: int, operand: Any) -> int:
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


def _result(editor: Editor, edit: Insert | Step, before: Any, dtype: str) -> int:
    """The result's tensor, with the quantisation of the first input."""
    stated = before.shapeSignature if before.shapeSignature is not None else before.shape
    kept = tuple(None if n < 0 else int(n) for n in (() if stated is None else stated))
    shape = kept if edit.shape is None else edit.shape
    name = edit.name if isinstance(edit, Insert) else None
    if name in editor.tensors:
        raise ModelError(f"there is a tensor {name!r} already")
    index = editor.new_tensor(name or f"{text(before.name)}/{edit.operation}", dtype, shape)
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


def _set_axis(options: Any, site: Site) -> None:
    options.axis = site.axis()


def _set_softmax(options: Any, site: Site) -> None:
    _only_last(options, site)
    options.beta = 1.0


def _only_last(_: Any, site: Site) -> None:
    if site.axis() != site.rank - 1:
        raise ModelError(f"TFLite works along the last axis here, not along {site.axis()}")


def _set_cast(options: Any, site: Site) -> None:
    """The result's dtype is checked where its tensor is made."""
    options.inDataType = codec.CODES[site.dtype]
    options.outDataType = codec.CODES.get(str(site.attributes["dtype"]), 0)


def _one_more(site: Site) -> tuple[Array | float, ...]:
    widths = np.zeros((site.rank, 2), np.int32)
    widths[site.axis(), 1] = 1
    return widths, float(site.attributes["value"])


def _set_reducer(options: Any, _: Site) -> None:
    options.keepDims = True


def _axis(site: Site) -> tuple[Array | float, ...]:
    return (np.array([site.axis()], np.int32),)


def _whole(numbers: Any) -> Array:
    return np.asarray(numbers, np.int32)


_LAST = {"axis": -1}
_CODES = {"dtype": None, "scale": None, "zero_point": None}

# Operands and attributes by name: greater(threshold), gather(indices; axis), concat(more...; axis),
# where(condition, otherwise), softmax(; axis), cast(; dtype), look_up(table; dtype), pad(; axis,
# value), reduce_sum and reduce_max(; axis), quantize and dequantize(; dtype of the codes, scale,
# zero_point), reshape(; to), top(; count, axis), cumsum(; axis). The result of `where` is the value
# that was there, wherever the condition holds; that of `look_up` what a table of this dtype has at
# ids, that of `top` the largest values; `pad` puts one position of a real value behind the others;
# a reduction leaves one position on the axis. Operands broadcast as in NumPy.
OPERATIONS: Mapping[str, Written] = {
    "abs": Written("ABS", "AbsOptions"),
    "add": Written("ADD", "AddOptions", 1),
    "and": Written("LOGICAL_AND", "LogicalAndOptions", 1),
    "cast": Written("CAST", "CastOptions", 0, _set_cast, {"dtype": None}),
    "concat": Written(
        "CONCATENATION",
        "ConcatenationOptions",
        None,
        _set_axis,
        {"axis": None},
        moves=True,
        versions={"int8": 2, "int16": 3},
    ),
    "dequantize": Written(
        "DEQUANTIZE",
        "DequantizeOptions",
        attributes=_CODES,
        dtype="float32",
        coded=True,
        versions={"int8": 2, "int16": 3},
    ),
    "cumsum": Written(
        "CUMSUM",
        "CumsumOptions",
        attributes={"axis": None},
        stated=lambda site: (_whole(site.axis()),),
        since="2.4.0",
    ),
    "div": Written("DIV", "DivOptions", 1),
    "exp": Written("EXP", "ExpOptions"),
    "equal": Written("EQUAL", "EqualOptions", 1, dtype="bool"),
    "gather": Written(
        "GATHER",
        "GatherOptions",
        1,
        _set_axis,
        {"axis": None},
        moves=True,
        foreign=True,
        versions={"int8": 2, "int16": 4},
    ),
    "greater": Written("GREATER", "GreaterOptions", 1, dtype="bool"),
    "greater_equal": Written("GREATER_EQUAL", "GreaterEqualOptions", 1, dtype="bool"),
    "less": Written("LESS", "LessOptions", 1, dtype="bool"),
    "log": Written("LOG"),
    "less_equal": Written("LESS_EQUAL", "LessEqualOptions", 1, dtype="bool"),
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
    "or": Written("LOGICAL_OR", "LogicalOrOptions", 1),
    "pad": Written(
        "PADV2",
        "PadV2Options",
        attributes={"axis": None, "value": None},
        moves=True,
        stated=_one_more,
    ),
    "quantize": Written(
        "QUANTIZE", "QuantizeOptions", attributes=_CODES, coded=True, versions={"int16": 2}
    ),
    "reduce_max": Written(
        "REDUCE_MAX", "ReducerOptions", 0, _set_reducer, {"axis": None}, stated=_axis
    ),
    "reduce_sum": Written("SUM", "ReducerOptions", 0, _set_reducer, {"axis": None}, stated=_axis),
    "relu": Written("RELU"),
    "reshape": Written(
        "RESHAPE", attributes={"to": None}, stated=lambda site: (_whole(site.attributes["to"]),)
    ),
    "sigmoid": Written("LOGISTIC"),
    "softmax": Written("SOFTMAX", "SoftmaxOptions", 0, _set_softmax, _LAST),
    "sub": Written("SUB", "SubOptions", 1),
    "top": Written(
        "TOPK_V2",
        "TopKV2Options",
        0,
        _only_last,
        {"count": None, **_LAST},
        stated=lambda site: (_whole(site.attributes["count"]),),
        more=("int32",),
    ),
    "where": Written(
        "SELECT_V2", "SelectV2Options", 2, foreign=True, order=(1, 0, 2), since="2.2.0"
    ),
}
