"""The operations that can be written into a file: builtin operators alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import constants
from exporter.formats.tflite.insert.writer import Site, Written
from exporter.graph import Array


def _set_axis(options: Any, site: Site) -> None:
    options.axis = site.axis()


def _set_softmax(options: Any, site: Site) -> None:
    _check_last("softmax", site, 'use --gate "logit > NUMBER" or --mode mask')
    options.beta = 1.0


def _only_last(operation: str, hint: str) -> Callable[[Any, Site], None]:
    return lambda _, site: _check_last(operation, site, hint)


def _check_last(operation: str, site: Site, hint: str) -> None:
    if site.axis() != site.rank - 1:
        raise ModelError(
            f"{operation} behind {site.behind!r}: TFLite has it for the last axis alone, not for "
            f"{site.axis()}, where the units lie",
            hint,
        )


def _set_cast(options: Any, site: Site) -> None:
    """The result's dtype is checked where its tensor is made."""
    options.inDataType = constants.CODES[site.dtype]
    options.outDataType = constants.CODES.get(str(site.attributes["dtype"]), 0)


def _set_ids(options: Any, _: Site) -> None:
    options.outputType = constants.CODES["int32"]


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
# zero_point), reshape(; to), top and top_ids(; count, axis), arg_max(; axis), cumsum(; axis). The
# result of `where` is the value that was there, wherever the condition holds; that of `look_up` is
# what a table of this dtype has at ids, that of `top` the largest values; `top_ids` and `arg_max`
# give int32 ids, the latter without the axis; `pad` puts one position of a real value behind the
# others; a reduction leaves one position on the axis. Operands broadcast as in NumPy.
OPERATIONS: Mapping[str, Written] = {
    "abs": Written("ABS", "AbsOptions"),
    "add": Written("ADD", "AddOptions", 1),
    "and": Written("LOGICAL_AND", "LogicalAndOptions", 1),
    "arg_max": Written(
        "ARG_MAX",
        "ArgMaxOptions",
        0,
        _set_ids,
        {"axis": None},
        moves=True,
        dtype="int32",
        stated=_axis,
    ),
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
    "log_softmax": Written(
        "LOG_SOFTMAX",
        "LogSoftmaxOptions",
        0,
        _only_last("log-softmax", "use --mode slice"),
        _LAST,
    ),
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
        _only_last("top-k", 'use --gate "logit > NUMBER"'),
        {"count": None, **_LAST},
        stated=lambda site: (_whole(site.attributes["count"]),),
        more=("int32",),
    ),
    "top_ids": Written(
        "TOPK_V2",
        "TopKV2Options",
        0,
        _only_last("top-k", "--emit ids, without a number, works along any axis"),
        {"count": None, **_LAST},
        moves=True,
        dtype="int32",
        stated=lambda site: (_whole(site.attributes["count"]),),
        more=("",),
        place=1,
    ),
    "where": Written(
        "SELECT_V2", "SelectV2Options", 2, foreign=True, order=(1, 0, 2), since="2.2.0"
    ),
}
