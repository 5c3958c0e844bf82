"""The operations that can be written into a file, each as one builtin operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import constants
from exporter.formats.tflite.insert.writer import Site, Writable
from exporter.graph import Array

Constants = tuple[Array | float, ...]


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
            f"{operation} cannot be inserted after {site.after!r}: TFLite computes it along the "
            f"last axis only, and the units are on axis {site.axis()}",
            hint,
        )


def _set_cast(options: Any, site: Site) -> None:
    """The result's dtype is checked where its tensor is made."""
    options.inDataType = constants.TYPE_CODES[site.dtype]
    options.outDataType = constants.TYPE_CODES.get(str(site.attributes["dtype"]), 0)


def _set_index_type(options: Any, _: Site) -> None:
    options.outputType = constants.TYPE_CODES["int32"]


def _set_keep_dims(options: Any, _: Site) -> None:
    options.keepDims = True


def _one_after(site: Site) -> Constants:
    """The widths and the value that pad one position after the others."""
    widths = np.zeros((site.rank, 2), np.int32)
    widths[site.axis(), 1] = 1
    return widths, float(site.attributes["value"])


def _axis_vector(site: Site) -> Constants:
    return (np.array([site.axis()], np.int32),)


def _axis_scalar(site: Site) -> Constants:
    return (np.asarray(site.axis(), np.int32),)


def _attribute(name: str) -> Callable[[Site], Constants]:
    return lambda site: (np.asarray(site.attributes[name], np.int32),)


_TOP_HINT = 'use --gate "logit > NUMBER"'
_TOP_IDS_HINT = "--emit ids, without a number, works along any axis"

OPERATIONS: Mapping[str, Writable] = {
    "abs": Writable("ABS", "AbsOptions"),
    "add": Writable("ADD", "AddOptions"),
    "and": Writable("LOGICAL_AND", "LogicalAndOptions"),
    "arg_max": Writable("ARG_MAX", "ArgMaxOptions", _set_index_type, _axis_vector, moves=True),
    "cast": Writable("CAST", "CastOptions", _set_cast),
    "concat": Writable(
        "CONCATENATION",
        "ConcatenationOptions",
        _set_axis,
        moves=True,
        versions={"int8": 2, "int16": 3},
    ),
    "dequantize": Writable(
        "DEQUANTIZE", "DequantizeOptions", converts=True, versions={"int8": 2, "int16": 3}
    ),
    "cumsum": Writable("CUMSUM", "CumsumOptions", constants=_axis_scalar, since="2.4.0"),
    "div": Writable("DIV", "DivOptions"),
    "exp": Writable("EXP", "ExpOptions"),
    "equal": Writable("EQUAL", "EqualOptions"),
    "gather": Writable(
        "GATHER",
        "GatherOptions",
        _set_axis,
        moves=True,
        mixed_dtypes=True,
        versions={"int8": 2, "int16": 4},
    ),
    "greater": Writable("GREATER", "GreaterOptions"),
    "greater_equal": Writable("GREATER_EQUAL", "GreaterEqualOptions"),
    "less": Writable("LESS", "LessOptions"),
    "log": Writable("LOG"),
    "less_equal": Writable("LESS_EQUAL", "LessEqualOptions"),
    "log_softmax": Writable(
        "LOG_SOFTMAX", "LogSoftmaxOptions", _only_last("log-softmax", "use --mode slice")
    ),
    "look_up": Writable(
        "GATHER", "GatherOptions", mixed_dtypes=True, integer_input=True, order=(1, 0)
    ),
    "maximum": Writable("MAXIMUM", "MaximumMinimumOptions"),
    "minimum": Writable("MINIMUM", "MaximumMinimumOptions"),
    "mul": Writable("MUL", "MulOptions"),
    "or": Writable("LOGICAL_OR", "LogicalOrOptions"),
    "pad": Writable("PADV2", "PadV2Options", constants=_one_after, moves=True),
    "quantize": Writable("QUANTIZE", "QuantizeOptions", converts=True, versions={"int16": 2}),
    "reduce_max": Writable("REDUCE_MAX", "ReducerOptions", _set_keep_dims, _axis_vector),
    "reduce_sum": Writable("SUM", "ReducerOptions", _set_keep_dims, _axis_vector),
    "relu": Writable("RELU"),
    "reshape": Writable("RESHAPE", constants=_attribute("to")),
    "sigmoid": Writable("LOGISTIC"),
    "softmax": Writable("SOFTMAX", "SoftmaxOptions", _set_softmax),
    "sub": Writable("SUB", "SubOptions"),
    "top": Writable(
        "TOPK_V2",
        "TopKV2Options",
        _only_last("top-k", _TOP_HINT),
        _attribute("count"),
        results=(None, "int32"),
    ),
    "top_ids": Writable(
        "TOPK_V2",
        "TopKV2Options",
        _only_last("top-k", _TOP_IDS_HINT),
        _attribute("count"),
        moves=True,
        results=("", None),
    ),
    "where": Writable(
        "SELECT_V2", "SelectV2Options", mixed_dtypes=True, order=(1, 0, 2), since="2.2.0"
    ),
}
