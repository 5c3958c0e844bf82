"""The translation table: what each operator of the format is as a neutral operation.

One row an operator. What has no row is opaque: the trace refuses it by name where it meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ai_edge_litert import schema_py_generated as schema

from exporter.formats.tflite.call import Call, Row
from exporter.formats.tflite.check_operation import fits
from exporter.formats.tflite.operators import detection, linear, positions, reduce_pool, values
from exporter.graph.operations import Linear, Opaque, Operation


def translate(call: Call) -> Operation:
    """The neutral operation that an operator performs."""
    if call.operator in REASONS:
        return Opaque(REASONS[call.operator])
    if call.sparse:
        return Opaque("its constants are stored sparsely")
    if call.option("fusedActivationFunction") == schema.ActivationFunctionType.SIGN_BIT:
        return Opaque("its fused activation keeps the sign alone")
    row = TABLE.get(call.operator)
    if row is None or not call.outputs or call.input(0) is None:
        return Opaque()
    operation = row(call)
    if isinstance(operation, Linear) and call.option("fusedActivationFunction"):
        operation = replace(operation, altered=True)
    return operation if fits(operation, call) else Opaque("its tensors do not fit together")


TABLE: Mapping[str, Row] = dict(
    sorted(
        {
            **linear.ROWS,
            **values.ROWS,
            **positions.ROWS,
            **reduce_pool.ROWS,
            **detection.ROWS,
        }.items()
    )
)

_GRAPHS = "it runs graphs of its own, which are not entered"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("CALL", "IF", "STABLEHLO_COMPOSITE", "WHILE"), _GRAPHS),
    "L2_NORMALIZATION": "it divides by the length of all values together",
    "TRANSPOSE_CONV": "the shape of its result stands in a constant of its own",
}
