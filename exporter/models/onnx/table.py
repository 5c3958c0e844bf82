"""The translation table: what each standard operator is as a neutral operation.

One row an operator; a row minds the version of the operators that the file imports. What has no
row is opaque: the trace refuses it by name where it meets it.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.models.onnx.call import Call, Row
from exporter.models.onnx.fits import fits
from exporter.models.onnx.protos import DEFAULT_DOMAINS
from exporter.models.onnx.rows import linear, many_to_one, positions, values
from exporter.operations import Opaque, Operation


def translate(domain: str, operator: str, call: Call) -> Operation:
    """The neutral operation that a node performs."""
    if operator in REASONS:
        return Opaque(REASONS[operator])
    if domain not in DEFAULT_DOMAINS:
        return Opaque(f"it is not a standard operator but one of the domain {domain!r}")
    row = TABLE.get(operator)
    if row is None:
        return Opaque()
    try:
        operation = row(call)
        return operation if fits(operation, call) else _CONTRADICTION
    except _DAMAGED:
        return _CONTRADICTION


TABLE: Mapping[str, Row] = dict(
    sorted({**linear.ROWS, **values.ROWS, **positions.ROWS, **many_to_one.ROWS}.items())
)

# What a row meets where an attribute is missing, of another type, or names axes out of reach.
_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
_CONTRADICTION = Opaque("its attributes and tensors do not fit together")

_QOPERATOR = (
    "it computes with codes in one operator (QOperator); a QDQ file, with QuantizeLinear and "
    "DequantizeLinear around a plain operator, can be cut"
)
_DYNAMIC = "it quantises while the model runs (dynamic); cut the float model first"
_BLOCKS = "its kernel is quantised in blocks; cut the model before it is quantised"
_GRAPHS = "it holds graphs of its own, which are not entered"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "QGemm",
            "QLinearAdd",
            "QLinearAveragePool",
            "QLinearConcat",
            "QLinearConv",
            "QLinearGlobalAveragePool",
            "QLinearLeakyRelu",
            "QLinearMatMul",
            "QLinearMul",
            "QLinearSigmoid",
            "QLinearSoftmax",
        ),
        _QOPERATOR,
    ),
    **dict.fromkeys(
        (
            "ConvInteger",
            "DynamicQuantizeLinear",
            "DynamicQuantizeMatMul",
            "MatMulInteger",
            "MatMulIntegerToFloat",
        ),
        _DYNAMIC,
    ),
    **dict.fromkeys(("MatMulBnb4", "MatMulFpQ4", "MatMulNBits"), _BLOCKS),
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _GRAPHS),
}
