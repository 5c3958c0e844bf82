"""The translation table: one row per operator of the format, which gives its neutral operation.

An operator without a row is opaque: the trace refuses it by name if it meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ai_edge_litert import schema_py_generated as schema

from exporter.formats.tflite.check_operation import fits
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.formats.tflite.operators import detection, linear, positions, reduce_pool, values
from exporter.graph.operations import Linear, Opaque, Operation


def translate(view: OperatorView) -> Operation:
    """The neutral operation that an operator computes."""
    if view.operator in REASONS:
        return Opaque(REASONS[view.operator])
    if view.has_sparse_input:
        return Opaque("its constants are stored sparsely")
    if view.option("fusedActivationFunction") == schema.ActivationFunctionType.SIGN_BIT:
        return Opaque("its fused activation keeps only the sign")
    row = TABLE.get(view.operator)
    if row is None or not view.outputs or view.input(0) is None:
        return Opaque()
    operation = row(view)
    if isinstance(operation, Linear) and view.option("fusedActivationFunction"):
        operation = replace(operation, altered=True)
    return operation if fits(operation, view) else Opaque("its tensors do not fit together")


TABLE: Mapping[str, Translate] = dict(
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

_GRAPHS = "it runs other subgraphs, which are not traced"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("CALL", "IF", "STABLEHLO_COMPOSITE", "WHILE"), _GRAPHS),
    "L2_NORMALIZATION": "it divides by the norm of all values",
    "TRANSPOSE_CONV": "the shape of its result is a separate constant",
}
