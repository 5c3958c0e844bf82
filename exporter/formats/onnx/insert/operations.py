"""The operations that an Insert can write, each in the form that the model's opset wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from exporter.errors import ModelError
from exporter.formats.onnx.insert.writer import Site, Writable
from exporter.formats.onnx.protos import element_type, numpy_dtype


def _plain(operator: str) -> Callable[[Site], list[NodeProto]]:
    return lambda site: [site.node(operator)]


def _along(operator: str) -> Callable[[Site], list[NodeProto]]:
    return lambda site: [site.node(operator, axis=site.axis())]


def _cast(site: Site) -> list[NodeProto]:
    return [site.node("Cast", to=element_type(str(site.attributes["dtype"])))]


def _look_up(site: Site) -> list[NodeProto]:
    """Ids may be floats, as a post-process returns them."""
    ids, table = site.inputs
    if site.dtype in {"int32", "int64"}:
        inputs = [table, ids]
        return [helper.make_node("Gather", inputs, [site.result], site.result, axis=0)]
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


def _top_ids(site: Site) -> list[NodeProto]:
    ids, values = site.fresh(f"{site.result}__ids"), site.fresh(f"{site.result}__values")
    count = site.constant(np.asarray([site.attributes["count"]], np.int64))
    ends = [site.inputs[0], count], [values, ids]
    node = helper.make_node("TopK", *ends, ids, axis=site.axis())
    return [node, _as_int32(ids, site)]


def _arg_max(site: Site) -> list[NodeProto]:
    ids = site.fresh(f"{site.result}__ids")
    node = helper.make_node("ArgMax", [site.inputs[0]], [ids], ids, axis=site.axis(), keepdims=0)
    return [node, _as_int32(ids, site)]


def _as_int32(ids: str, site: Site) -> NodeProto:
    """In all formats alike."""
    to = element_type("int32")
    return helper.make_node("Cast", [ids], [site.result], site.result, to=to)


def _cumulated(site: Site) -> list[NodeProto]:
    return _with_numbers(site, "CumSum", site.axis())


def _normalized(operator: str) -> Callable[[Site], list[NodeProto]]:
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

OPERATIONS: Mapping[str, Writable] = {
    "abs": Writable(_plain("Abs"), since=6),
    "add": Writable(_plain("Add"), since=7),
    "and": Writable(_plain("And"), since=7),
    "arg_max": Writable(_arg_max),
    "cast": Writable(_cast, since=6),
    "concat": Writable(_along("Concat"), since=4),
    "dequantize": Writable(_coded("DequantizeLinear"), since=10),
    "div": Writable(_plain("Div"), since=7),
    "exp": Writable(_plain("Exp"), since=6),
    "cumsum": Writable(_cumulated, since=11),
    "equal": Writable(_plain("Equal"), since=11),
    "gather": Writable(_along("Gather")),
    "greater": Writable(_plain("Greater"), since=9),
    "greater_equal": Writable(_plain("GreaterOrEqual"), since=12),
    "identity": Writable(_plain("Identity")),
    "less": Writable(_plain("Less"), since=9),
    "log": Writable(_plain("Log"), since=6),
    "less_equal": Writable(_plain("LessOrEqual"), since=12),
    "log_softmax": Writable(_normalized("LogSoftmax")),
    "look_up": Writable(_look_up, since=6),
    "maximum": Writable(_plain("Max"), since=8),
    "minimum": Writable(_plain("Min"), since=8),
    "mul": Writable(_plain("Mul"), since=7),
    "or": Writable(_plain("Or"), since=7),
    "pad": Writable(_pad, since=11),
    "quantize": Writable(_coded("QuantizeLinear"), since=10),
    "reduce_max": Writable(_reduced("ReduceMax", 18)),
    "reduce_sum": Writable(_reduced("ReduceSum", 13)),
    "relu": Writable(_plain("Relu"), since=6),
    "reshape": Writable(_reshape, since=5),
    "sigmoid": Writable(_plain("Sigmoid"), since=6),
    "softmax": Writable(_normalized("Softmax")),
    "sub": Writable(_plain("Sub"), since=7),
    "top": Writable(_top, since=11),
    "top_ids": Writable(_top_ids, since=11),
    "where": Writable(_where, since=9),
}
