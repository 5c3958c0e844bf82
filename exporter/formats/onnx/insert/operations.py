"""The operations that exporter can insert, each in the form that the model's opset needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from exporter.formats.onnx.insert.writer import Site, Writable, make_node
from exporter.formats.onnx.protos import element_type, numpy_dtype

Write = Callable[[Site], list[NodeProto]]


def _operator(operator: str) -> Write:
    return lambda site: [site.node(operator)]


def _operator_along_axis(operator: str) -> Write:
    return lambda site: [site.node(operator, axis=site.axis())]


def _cast(site: Site) -> list[NodeProto]:
    return [site.node("Cast", to=element_type(str(site.attributes["dtype"])))]


def _look_up(site: Site) -> list[NodeProto]:
    """Class indices may be floats, as the post-process of a detector returns them."""
    ids, table = site.inputs
    if site.dtype in {"int32", "int64"}:
        return [make_node("Gather", [table, ids], site.result, axis=0)]
    integers = site.new_name("ids")
    return [
        make_node("Cast", [ids], integers, to=element_type("int64")),
        make_node("Gather", [table, integers], site.result, axis=0),
    ]


def _pad(site: Site) -> list[NodeProto]:
    rank = site.rank()
    widths = np.zeros(2 * rank, np.int64)
    widths[rank + site.axis()] = 1
    value = site.quantized(float(site.attributes["value"]))
    return [site.node("Pad", site.constant(widths), site.constant(value))]


def _where(site: Site) -> list[NodeProto]:
    value, condition, otherwise = site.inputs
    return [make_node("Where", [condition, value, otherwise], site.result)]


def _with_integers(site: Site, operator: str, integers: Any, **attributes: Any) -> list[NodeProto]:
    """An operator with an integer constant as its second input, and its first output as result."""
    name = site.new_name("numbers")
    value = numpy_helper.from_array(np.asarray(integers, np.int64), name)
    unread = [site.new_name("ids")] if operator == "TopK" else []
    outputs = [site.result, *unread]
    return [
        make_node("Constant", [], name, value=value),
        helper.make_node(operator, [site.inputs[0], name], outputs, site.result, **attributes),
    ]


def _reshape(site: Site) -> list[NodeProto]:
    return _with_integers(site, "Reshape", site.attributes["to"])


def _top(site: Site) -> list[NodeProto]:
    return _with_integers(site, "TopK", [site.attributes["count"]], axis=site.axis())


def _top_ids(site: Site) -> list[NodeProto]:
    ids, values = site.new_name("ids"), site.new_name("values")
    count = site.constant(np.asarray([site.attributes["count"]], np.int64))
    inputs, outputs = [site.inputs[0], count], [values, ids]
    node = helper.make_node("TopK", inputs, outputs, ids, axis=site.axis())
    return [node, site.to_result(ids, "int32")]


def _arg_max(site: Site) -> list[NodeProto]:
    ids = site.new_name("ids")
    node = make_node("ArgMax", [site.inputs[0]], ids, axis=site.axis(), keepdims=0)
    return [node, site.to_result(ids, "int32")]


def _cumsum(site: Site) -> list[NodeProto]:
    return _with_integers(site, "CumSum", site.axis())


def _softmax(operator: str) -> Write:
    """Before opset 13, all axes from `axis` on are normalized: a Transpose makes it the last."""

    def write(site: Site) -> list[NodeProto]:
        axis = site.axis()
        if site.opset >= _PER_AXIS:
            return [site.node(operator, axis=axis)]
        last = site.rank() - 1
        if axis == last:
            return [site.node(operator, axis=axis)]
        swap = list(range(last + 1))
        swap[axis], swap[last] = last, axis
        (value,) = site.inputs
        moved, normalized = site.new_name("last"), site.new_name("last")
        return [
            make_node("Transpose", [value], moved, perm=swap),
            make_node(operator, [moved], normalized, axis=last),
            make_node("Transpose", [normalized], site.result, perm=swap),
        ]

    return write


def _reduce(operator: str, since_input: int) -> Write:
    """Along one axis, which is kept; the axis is an attribute before opset `since_input`."""

    def write(site: Site) -> list[NodeProto]:
        if site.opset < since_input:
            return [site.node(operator, axes=[site.axis()], keepdims=1)]
        axes = site.constant(np.array([site.axis()], np.int64))
        return [site.node(operator, axes, keepdims=1)]

    return write


def _quantization(operator: str) -> Write:
    """Between quantized values and float32."""

    def write(site: Site) -> list[NodeProto]:
        scale = site.constant(np.asarray(site.attributes["scale"], np.float32))
        dtype = numpy_dtype(str(site.attributes["dtype"]))
        zero_point = site.constant(np.asarray(site.attributes["zero_point"], dtype))
        return [site.node(operator, scale, zero_point)]

    return write


_PER_AXIS = 13  # the opset since which a softmax normalizes along one axis

OPERATIONS: Mapping[str, Writable] = {
    "abs": Writable(_operator("Abs"), since=6),
    "add": Writable(_operator("Add"), since=7),
    "and": Writable(_operator("And"), since=7),
    "arg_max": Writable(_arg_max),
    "cast": Writable(_cast, since=6),
    "concat": Writable(_operator_along_axis("Concat"), since=4),
    "cumsum": Writable(_cumsum, since=11),
    "dequantize": Writable(_quantization("DequantizeLinear"), since=10),
    "div": Writable(_operator("Div"), since=7),
    "equal": Writable(_operator("Equal"), since=11),
    "exp": Writable(_operator("Exp"), since=6),
    "gather": Writable(_operator_along_axis("Gather")),
    "greater": Writable(_operator("Greater"), since=9),
    "greater_equal": Writable(_operator("GreaterOrEqual"), since=12),
    "identity": Writable(_operator("Identity")),
    "less": Writable(_operator("Less"), since=9),
    "less_equal": Writable(_operator("LessOrEqual"), since=12),
    "log": Writable(_operator("Log"), since=6),
    "log_softmax": Writable(_softmax("LogSoftmax")),
    "look_up": Writable(_look_up, since=6),
    "maximum": Writable(_operator("Max"), since=8),
    "minimum": Writable(_operator("Min"), since=8),
    "mul": Writable(_operator("Mul"), since=7),
    "or": Writable(_operator("Or"), since=7),
    "pad": Writable(_pad, since=11),
    "quantize": Writable(_quantization("QuantizeLinear"), since=10),
    "reduce_max": Writable(_reduce("ReduceMax", 18)),
    "reduce_sum": Writable(_reduce("ReduceSum", 13)),
    "relu": Writable(_operator("Relu"), since=6),
    "reshape": Writable(_reshape, since=5),
    "sigmoid": Writable(_operator("Sigmoid"), since=6),
    "softmax": Writable(_softmax("Softmax")),
    "sub": Writable(_operator("Sub"), since=7),
    "top": Writable(_top, since=11),
    "top_ids": Writable(_top_ids, since=11),
    "where": Writable(_where, since=9),
}
