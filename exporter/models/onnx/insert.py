"""The operations that an Insert can write, each in the form that the model's opset wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.onnx.draft import Draft
from exporter.models.onnx.protos import dtype_of, element_type, numpy_dtype
from exporter.plan import Compute, Insert, Step


@dataclass(frozen=True, eq=False)
class Site:
    """Where an operation is written.

    Attributes:
        inputs: the parted tensor first, then the operands.
        result: the tensor that the operation has to make.
        rank: of the first input; None where it is not known.
        fresh: makes names for tensors in between.
        constant: writes a constant and gives its name.
        encoded: a real value as the first input holds it.
    """

    inputs: tuple[str, ...]
    result: str
    attributes: Mapping[str, Any]
    opset: int
    rank: int | None
    fresh: Callable[[str], str]
    constant: Callable[[Array], str]
    encoded: Callable[[float], Array]

    def axis(self) -> int:
        """The attribute `axis`, counted from the front."""
        axis = int(self.attributes["axis"])
        if axis >= 0:
            return axis
        if self.rank is None:
            raise ModelError(f"the rank of {self.inputs[0]!r} is not known: axis {axis} is nowhere")
        return axis + self.rank

    def node(self, operator: str, *more: str, **attributes: Any) -> NodeProto:
        """One node that reads all inputs, and constants behind them."""
        inputs = [*self.inputs, *more]
        return helper.make_node(operator, inputs, [self.result], self.result, **attributes)


@dataclass(frozen=True)
class Writable:
    """One operation.

    Attributes:
        write: site -> nodes in running order.
        operands: how many there are behind the first input; None for any number from 1.
        attributes: neutral name -> default; None where it must be given.
        since: the first opset that has it as it is written here.
        dtype: of the result; "" for that of the first input.
    """

    write: Callable[[Site], list[NodeProto]]
    operands: int | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    since: int = 1
    dtype: str = ""


def insert(draft: Draft, edit: Insert) -> None:
    """Make an Insert.

    Raises:
        ModelError: an operation, operand or attribute that the table does not have, or a model
            whose operators are too old for it.
    """
    entry = _entry(edit, edit.operands, draft.opset)
    before, result = _ends(draft, edit)
    operands = [_operand(draft, edit.after, edit.operation, each) for each in edit.operands]
    inputs = (before, *(before if operand == edit.after else operand for operand in operands))
    _write(draft, entry, (inputs, result), edit, edit.after)
    dtype = entry.dtype or str(edit.attributes.get("dtype", "")) or None
    draft.types.set(result, shape=edit.shape, dtype=dtype)


def _ends(draft: Draft, edit: Insert) -> tuple[str, str]:
    """The tensor to read, and the one to make."""
    if edit.name is None:
        return draft.part(edit.after)
    draft.types.add(draft.claim(edit.name), draft.types.of(edit.after))
    return edit.after, edit.name


def compute(draft: Draft, edit: Compute) -> None:
    """Make a Compute (raises as `insert` does)."""
    entries = [_entry(step, (*step.inputs, *step.operands)[1:], draft.opset) for step in edit.steps]
    before, result = draft.part(edit.after)
    values = [before]
    for step, entry in zip(edit.steps, entries, strict=True):
        is_last = step is edit.steps[-1]
        name = result if is_last else draft.fresh(f"{edit.after}__{step.operation}")
        first = draft.types.of(values[step.inputs[0]])
        operands = [_operand(draft, edit.after, step.operation, each) for each in step.operands]
        inputs = (*(values[number] for number in step.inputs), *operands)
        _write(draft, entry, (inputs, name), step, edit.after)
        if not is_last:
            draft.types.add(name, first)
        dtype = entry.dtype or str(step.attributes.get("dtype", "")) or None
        draft.types.set(name, shape=step.shape, dtype=dtype)
        values.append(name)


def _operand(draft: Draft, after: str, operation: str, operand: str | Array) -> str:
    if isinstance(operand, str):
        return operand
    return draft.add_constant(draft.fresh(f"{after}__{operation}"), operand)


def _write(
    draft: Draft,
    entry: Writable,
    ends: tuple[tuple[str, ...], str],
    edit: Insert | Step,
    after: str,
) -> None:
    """The nodes from some inputs to a result, somewhere behind a tensor."""
    inputs, result = tuple(ends[0]), ends[1]
    shape = draft.types.shape(inputs[0])
    rank = None if shape is None else len(shape)

    def constant(value: Array) -> str:
        return _operand(draft, result, edit.operation, value)

    attributes = {**entry.attributes, **edit.attributes}
    encoded = partial(_encoded, draft, after)
    site = Site(
        tuple(inputs), result, attributes, draft.opset, rank, draft.fresh, constant, encoded
    )
    for node in entry.write(site):
        draft.append(node, branch=isinstance(edit, Insert) and edit.name is not None)


def _entry(edit: Insert | Step, operands: tuple[Any, ...], opset: int) -> Writable:
    entry = OPERATIONS.get(edit.operation)
    if entry is None:
        known = ", ".join(OPERATIONS)
        raise ModelError(f"ONNX cannot write the operation {edit.operation!r}; it can: {known}")
    if opset < entry.since:
        raise ModelError(
            f"the operation {edit.operation!r} needs opset {entry.since}, the model has {opset}"
        )
    count = len(operands)
    if count != entry.operands and (entry.operands is not None or not count):
        raise ModelError(f"the operation {edit.operation!r} does not take {count} operands")
    foreign = set(edit.attributes) - set(entry.attributes)
    needed = {name for name, default in entry.attributes.items() if default is None}
    for name in sorted(foreign | needed - set(edit.attributes)):
        verb = "has no" if name in foreign else "needs the"
        raise ModelError(f"the operation {edit.operation!r} {verb} attribute {name!r}")
    return entry


def _encoded(draft: Draft, tensor: str, value: float) -> Array:
    """A real value in a tensor's dtype, as a scalar (raises ModelError if it has no code)."""
    dtype, known = numpy_dtype(dtype_of(draft.types.of(tensor))), draft.quantization(tensor)
    code = value if known is None else known.codes(np.asarray(value))
    return np.asarray(code).astype(dtype).reshape(())


def _plain(operator: str) -> Callable[[Site], list[NodeProto]]:
    return lambda site: [site.node(operator)]


def _along(operator: str) -> Callable[[Site], list[NodeProto]]:
    return lambda site: [site.node(operator, axis=site.axis())]


def _cast(site: Site) -> list[NodeProto]:
    return [site.node("Cast", to=element_type(str(site.attributes["dtype"])))]


def _look_up(site: Site) -> list[NodeProto]:
    """Ids may be floats, as a post-process returns them."""
    ids, table = site.inputs
    whole = site.fresh(f"{site.result}__ids")
    return [
        helper.make_node("Cast", [ids], [whole], whole, to=element_type("int64")),
        helper.make_node("Gather", [table, whole], [site.result], site.result, axis=0),
    ]


def _pad(site: Site) -> list[NodeProto]:
    axis = site.axis()
    if site.rank is None:
        raise ModelError(f"the rank of {site.inputs[0]!r} is not known")
    widths = np.zeros(2 * site.rank, np.int64)
    widths[site.rank + axis] = 1
    fill = site.encoded(float(site.attributes["value"]))
    inputs = [*site.inputs, site.constant(widths), site.constant(fill)]
    return [helper.make_node("Pad", inputs, [site.result], site.result)]


def _where(site: Site) -> list[NodeProto]:
    value, condition, otherwise = site.inputs
    return [helper.make_node("Where", [condition, value, otherwise], [site.result], site.result)]


def _with_numbers(site: Site, operator: str, numbers: Any, **attributes: Any) -> list[NodeProto]:
    """An operator whose second input is a constant of whole numbers; its first result is read."""
    name = site.fresh(f"{site.result}__numbers")
    value = numpy_helper.from_array(np.asarray(numbers, np.int64), name)
    more = [site.fresh(f"{site.result}__ids")] if operator == "TopK" else []
    ends = [site.inputs[0], name], [site.result, *more]
    return [
        helper.make_node("Constant", [], [name], name, value=value),
        helper.make_node(operator, *ends, site.result, **attributes),
    ]


def _reshape(site: Site) -> list[NodeProto]:
    return _with_numbers(site, "Reshape", site.attributes["to"])


def _top(site: Site) -> list[NodeProto]:
    return _with_numbers(site, "TopK", [site.attributes["count"]], axis=site.axis())


def _cumulated(site: Site) -> list[NodeProto]:
    return _with_numbers(site, "CumSum", site.axis())


def _normalised(operator: str) -> Callable[[Site], list[NodeProto]]:
    """Before opset 13 all axes from `axis` on went together: the axis is brought to the end."""

    def write(site: Site) -> list[NodeProto]:
        axis = site.axis()
        if site.opset >= _PER_AXIS or axis + 1 == site.rank:
            return [site.node(operator, axis=axis)]
        if site.rank is None:
            raise ModelError(f"the rank of {site.inputs[0]!r} is not known")
        swap = list(range(site.rank))
        swap[axis], swap[-1] = swap[-1], swap[axis]
        (value,) = site.inputs
        there, back = site.fresh(f"{site.result}__last"), site.fresh(f"{site.result}__last")
        return [
            helper.make_node("Transpose", [value], [there], there, perm=swap),
            helper.make_node(operator, [there], [back], back, axis=site.rank - 1),
            helper.make_node("Transpose", [back], [site.result], site.result, perm=swap),
        ]

    return write


def _reduced(operator: str, since_input: int) -> Callable[[Site], list[NodeProto]]:
    """Along one axis, which stays with one position; an attribute before `since_input`."""

    def write(site: Site) -> list[NodeProto]:
        if site.opset < since_input:
            return [site.node(operator, axes=[site.axis()], keepdims=1)]
        axes = site.constant(np.array([site.axis()], np.int64))
        return [site.node(operator, axes, keepdims=1)]

    return write


def _coded(operator: str) -> Callable[[Site], list[NodeProto]]:
    """Between codes and the float32 values that they stand for."""

    def write(site: Site) -> list[NodeProto]:
        scale = site.constant(np.asarray(site.attributes["scale"], np.float32))
        dtype = numpy_dtype(str(site.attributes["dtype"]))
        zero_point = site.constant(np.asarray(site.attributes["zero_point"], dtype))
        return [site.node(operator, scale, zero_point)]

    return write


_PER_AXIS = 13
_CODES = {"dtype": None, "scale": None, "zero_point": None}

# Operands and attributes by name: greater(threshold), gather(indices; axis), concat(more...; axis),
# where(condition, otherwise), softmax(; axis), cast(; dtype), look_up(table; dtype), pad(; axis,
# value), reduce_sum and reduce_max(; axis), quantize and dequantize(; dtype of the codes, scale,
# zero_point), reshape(; to), top(; count, axis), cumsum(; axis). The result of `where` is the value
# that was there, wherever the condition holds; that of `look_up` what a table of this dtype has at
# ids, that of `top` the largest values; `pad` puts one position of a real value behind the others;
# a reduction leaves one position on the axis. Operands broadcast as in NumPy.
OPERATIONS: Mapping[str, Writable] = {
    "abs": Writable(_plain("Abs"), 0, since=6),
    "add": Writable(_plain("Add"), 1, since=7),
    "and": Writable(_plain("And"), 1, since=7),
    "cast": Writable(_cast, 0, {"dtype": None}, since=6),
    "concat": Writable(_along("Concat"), None, {"axis": None}, since=4),
    "dequantize": Writable(_coded("DequantizeLinear"), 0, _CODES, since=10, dtype="float32"),
    "div": Writable(_plain("Div"), 1, since=7),
    "exp": Writable(_plain("Exp"), 0, since=6),
    "cumsum": Writable(_cumulated, 0, {"axis": None}, since=11),
    "equal": Writable(_plain("Equal"), 1, since=11, dtype="bool"),
    "gather": Writable(_along("Gather"), 1, {"axis": None}),
    "greater": Writable(_plain("Greater"), 1, since=9, dtype="bool"),
    "greater_equal": Writable(_plain("GreaterOrEqual"), 1, since=12, dtype="bool"),
    "identity": Writable(_plain("Identity"), 0),
    "less": Writable(_plain("Less"), 1, since=9, dtype="bool"),
    "log": Writable(_plain("Log"), 0, since=6),
    "less_equal": Writable(_plain("LessOrEqual"), 1, since=12, dtype="bool"),
    "log_softmax": Writable(_normalised("LogSoftmax"), 0, {"axis": -1}),
    "look_up": Writable(_look_up, 1, {"dtype": None}, since=6),
    "maximum": Writable(_plain("Max"), 1, since=8),
    "minimum": Writable(_plain("Min"), 1, since=8),
    "mul": Writable(_plain("Mul"), 1, since=7),
    "or": Writable(_plain("Or"), 1, since=7),
    "pad": Writable(_pad, 0, {"axis": None, "value": None}, since=11),
    "quantize": Writable(_coded("QuantizeLinear"), 0, _CODES, since=10),
    "reduce_max": Writable(_reduced("ReduceMax", 18), 0, {"axis": None}),
    "reduce_sum": Writable(_reduced("ReduceSum", 13), 0, {"axis": None}),
    "relu": Writable(_plain("Relu"), 0, since=6),
    "reshape": Writable(_reshape, 0, {"to": None}, since=5),
    "sigmoid": Writable(_plain("Sigmoid"), 0, since=6),
    "softmax": Writable(_normalised("Softmax"), 0, {"axis": -1}),
    "sub": Writable(_plain("Sub"), 1, since=7),
    "top": Writable(_top, 0, {"count": None, "axis": -1}, since=11),
    "where": Writable(_where, 2, since=9),
}
