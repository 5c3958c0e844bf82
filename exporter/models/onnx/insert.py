"""The operations that an Insert can write, each in the form that the model's opset wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.onnx.draft import Draft
from exporter.models.onnx.protos import dtype_of, element_type, numpy_dtype
from exporter.plan import Insert


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

    def node(self, operator: str, **attributes: Any) -> NodeProto:
        return helper.make_node(operator, self.inputs, [self.result], self.result, **attributes)


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
    entry = _entry(edit, draft.opset)
    shape = draft.types.shape(edit.after)
    before, result = draft.part(edit.after)

    def constant(value: Array) -> str:
        return draft.add_constant(draft.fresh(f"{edit.after}__{edit.operation}"), value)

    operands = [each if isinstance(each, str) else constant(each) for each in edit.operands]
    inputs = (before, *(before if operand == edit.after else operand for operand in operands))
    rank = None if shape is None else len(shape)
    attributes = {**entry.attributes, **edit.attributes}
    encoded = partial(_encoded, draft, edit.after)
    site = Site(inputs, result, attributes, draft.opset, rank, draft.fresh, constant, encoded)
    for node in entry.write(site):
        draft.append(node)
    dtype = entry.dtype or str(edit.attributes.get("dtype", "")) or None
    draft.types.set(result, shape=edit.shape, dtype=dtype)


def _entry(edit: Insert, opset: int) -> Writable:
    entry = OPERATIONS.get(edit.operation)
    if entry is None:
        known = ", ".join(OPERATIONS)
        raise ModelError(f"ONNX cannot write the operation {edit.operation!r}; it can: {known}")
    if opset < entry.since:
        raise ModelError(
            f"the operation {edit.operation!r} needs opset {entry.since}, the model has {opset}"
        )
    count = len(edit.operands)
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


_PER_AXIS = 13

# Operands and attributes by name: greater(threshold), gather(indices; axis), concat(more...; axis),
# where(condition, otherwise), softmax(; axis), cast(; dtype), look_up(table; dtype), pad(; axis,
# value). The result of `where` is the value that was there, wherever the condition holds; that of
# `look_up` what a table of this dtype has at ids; `pad` puts one position of a real value behind
# the others. Operands broadcast as in NumPy.
OPERATIONS: Mapping[str, Writable] = {
    "add": Writable(_plain("Add"), 1, since=7),
    "cast": Writable(_cast, 0, {"dtype": None}, since=6),
    "concat": Writable(_along("Concat"), None, {"axis": None}, since=4),
    "div": Writable(_plain("Div"), 1, since=7),
    "gather": Writable(_along("Gather"), 1, {"axis": None}),
    "greater": Writable(_plain("Greater"), 1, since=9, dtype="bool"),
    "identity": Writable(_plain("Identity"), 0),
    "less": Writable(_plain("Less"), 1, since=9, dtype="bool"),
    "log_softmax": Writable(_normalised("LogSoftmax"), 0, {"axis": -1}),
    "look_up": Writable(_look_up, 1, {"dtype": None}, since=6),
    "maximum": Writable(_plain("Max"), 1, since=8),
    "minimum": Writable(_plain("Min"), 1, since=8),
    "mul": Writable(_plain("Mul"), 1, since=7),
    "pad": Writable(_pad, 0, {"axis": None, "value": None}, since=11),
    "relu": Writable(_plain("Relu"), 0, since=6),
    "sigmoid": Writable(_plain("Sigmoid"), 0, since=6),
    "softmax": Writable(_normalised("Softmax"), 0, {"axis": -1}),
    "sub": Writable(_plain("Sub"), 1, since=7),
    "where": Writable(_where, 2, since=9),
}
