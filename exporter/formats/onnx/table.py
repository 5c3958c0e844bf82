"""The translation table: what each operator is as a neutral operation.

One row an operator; a row minds the version of the operators that the file imports. What has no
row is opaque: the trace refuses it by name where it meets it.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import fits
from exporter.formats.onnx.call import Call, Row
from exporter.formats.onnx.operators import (
    detection,
    linear,
    positions,
    quantized_values,
    reduce_pool,
    values,
)
from exporter.formats.onnx.protos import DEFAULT_DOMAINS
from exporter.graph.operations import Opaque, Operation


def translate(domain: str, operator: str, call: Call) -> Operation:
    """The neutral operation that a node performs."""
    if operator in REASONS:
        return Opaque(REASONS[operator])
    if operator in _PLUGINS:
        return Opaque("it belongs to TensorRT, and nothing here runs it", _WITHOUT)
    rows = TABLE if domain in DEFAULT_DOMAINS else DOMAINS.get(domain, {})
    row = rows.get(operator)
    if row is None and domain not in DEFAULT_DOMAINS:
        return Opaque(f"it is not a standard operator but one of the domain {domain!r}")
    if row is None:
        return Opaque()
    try:
        operation = row(call)
        return operation if fits(operation, call.ranks()) else _CONTRADICTION
    except _DAMAGED:
        return _CONTRADICTION


TABLE: Mapping[str, Row] = dict(
    sorted(
        {
            **linear.ROWS,
            **values.ROWS,
            **quantized_values.ROWS,
            **positions.ROWS,
            **reduce_pool.ROWS,
            **detection.ROWS,
        }.items()
    )
)

# domain -> operator -> row, of what is no standard operator
DOMAINS: Mapping[str, Mapping[str, Row]] = {"com.microsoft": quantized_values.MICROSOFT}

# What a row meets where an attribute is missing, of another type, or names axes out of reach.
_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
_CONTRADICTION = Opaque("its attributes and tensors do not fit together")

_JOINED = "it joins codes of several scales in one operator (QOperator), for which there is no rule"
_DYNAMIC = "it takes one scale from all units together while the model runs (dynamic)"
_BLOCKS = "its kernel is quantized to 4-bit floats in one row of blocks"
_GRAPHS = "it holds graphs of its own, which are not entered"

_PLUGINS = {
    *("BatchedNMSDynamic_TRT", "BatchedNMS_TRT", "EfficientNMSX_TRT"),
    *("EfficientNMS_ONNX_TRT", "EfficientNMS_TRT"),
}
_WITHOUT = (
    "export the model without it (YOLOv7: with neither --end2end nor --include-nms), cut it, and "
    "add it then"
)

REASONS: Mapping[str, str] = {
    "DynamicQuantizeLinear": _DYNAMIC,
    **dict.fromkeys(("MatMulBnb4", "MatMulFpQ4"), _BLOCKS),
    "QLinearConcat": _JOINED,
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _GRAPHS),
}
