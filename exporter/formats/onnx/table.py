"""The translation table: ONNX operator -> function that gives the neutral operation.

To support an operator, add one row to `ROWS` of a module in `operators/`. The function minds the
operator's versions (the opset). An operator without a row becomes opaque: the trace refuses it by
name where a unit axis reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError, fits
from exporter.formats.onnx import branches
from exporter.formats.onnx.classical.attributes import DOMAIN, ML_DOMAIN
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.formats.onnx.operators import (
    classical,
    detection,
    fused,
    linear,
    positions,
    quantized_values,
    reduce_pool,
    values,
)
from exporter.formats.onnx.protos import DEFAULT_DOMAINS
from exporter.graph.operations import Elementwise, Opaque, Operation


def translate(domain: str, operator: str, node: NodeView) -> Operation:
    """The neutral operation that a node performs; Opaque, with a reason, where there is none."""
    refused = _refused(domain, operator)
    if refused is not None:
        return refused
    is_standard = domain in DEFAULT_DOMAINS
    row = (TABLE if is_standard else DOMAINS.get(domain, {})).get(operator)
    if row is None:
        return Opaque() if is_standard else Opaque(_FOREIGN.format(domain))
    try:
        operation = row(node)
        return operation if fits(operation, node.ranks()) else _CONTRADICTION
    except UntranslatableError as error:
        return Opaque(str(error))
    except _DAMAGED:
        return _CONTRADICTION


def _refused(domain: str, operator: str) -> Opaque | None:
    if operator in REASONS:
        return Opaque(REASONS[operator])
    if operator in _PLUGINS:
        return Opaque("it belongs to TensorRT, which exporter does not run", _WITHOUT_PLUGIN)
    return Opaque(fused.BLOCKED_CHANNELS) if domain == fused.NCHWC else None


_MODULES = (linear, values, quantized_values, positions, reduce_pool, detection)

TABLE: Mapping[str, Translate] = dict(
    sorted((name, row) for module in _MODULES for name, row in module.ROWS.items())
)


def _choice(node: NodeView) -> Operation:
    """One of the second and the third input; see `branches`."""
    if len({len(node.known_shape(slot)) for slot in (1, 2)}) > 1:
        raise UntranslatableError("its branches return tensors of different rank")
    return Elementwise(function="choice")


# Domain -> operator -> row, for operators that are not in the standard domain.
DOMAINS: Mapping[str, Mapping[str, Translate]] = {
    "com.microsoft": {**fused.ROWS, **quantized_values.MICROSOFT},
    branches.DOMAIN: {branches.CHOICE: _choice},
    "qonnx.custom_op.general": fused.QONNX,
    DOMAIN: classical.SPLIT,
    ML_DOMAIN: classical.CLASSICAL,
}

# Errors of a row where an attribute is missing, has another type, or names an axis out of range.
_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
_CONTRADICTION = Opaque("its attributes and tensors do not fit together")

_FOREIGN = "it is not a standard operator, but one of the domain {!r}"
_SEVERAL_SCALES = (
    "it joins quantized values of several scales (QOperator), and there is no rule for it"
)
_DYNAMIC = "it computes one scale from all units together while the model runs (dynamic)"
_BLOCKS = "its kernel is quantized to 4-bit floats in one row of blocks"
_SUBGRAPHS = "it contains graphs, which exporter does not trace"

_PLUGINS = {
    *("BatchedNMSDynamic_TRT", "BatchedNMS_TRT", "EfficientNMSX_TRT"),
    *("EfficientNMS_ONNX_TRT", "EfficientNMS_TRT"),
}
_WITHOUT_PLUGIN = (
    "export the model without it (YOLOv7: with neither --end2end nor --include-nms), cut it, and "
    "add it then"
)

REASONS: Mapping[str, str] = {
    "DynamicQuantizeLinear": _DYNAMIC,
    **dict.fromkeys(("MatMulBnb4", "MatMulFpQ4"), _BLOCKS),
    "QLinearConcat": _SEVERAL_SCALES,
    **classical.REASONS,
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _SUBGRAPHS),
}
