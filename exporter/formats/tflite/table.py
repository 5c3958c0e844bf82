"""The translation table: one row per operator of the format, which gives its neutral operation.

An operator without a row is opaque: the trace refuses it by name if it meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from exporter.formats.check_operation import NodeRanks, UntranslatableError, fits
from exporter.formats.tflite.foreign_operators import reason_and_hint
from exporter.formats.tflite.operator_view import SLOT_ORDER, OperatorView, Translate
from exporter.formats.tflite.operators import detection, linear, positions, reduce_pool, values
from exporter.graph import Shape, Tensor
from exporter.graph.operations import Gather, Linear, Opaque, Operation

_SIGN_BIT = 5  # of the ActivationFunctionType of the schema


def translate(view: OperatorView) -> Operation:
    """The neutral operation that an operator computes."""
    if refused := _refused(view):
        return refused
    row = TABLE.get(view.operator)
    if row is None or not view.outputs or view.input(0) is None:
        return Opaque()
    try:
        operation = row(view)
    except UntranslatableError as error:
        return Opaque(str(error))
    if isinstance(operation, Linear) and view.option("fusedActivationFunction"):
        operation = replace(operation, altered=True)
    return operation if _fits(operation, view) else Opaque("its tensors do not fit together")


def _refused(view: OperatorView) -> Opaque | None:
    """The reason not to look at the operator's row."""
    if view.operator in REASONS:
        return Opaque(REASONS[view.operator])
    if foreign := reason_and_hint(view.operator):
        return Opaque(*foreign)
    if view.has_sparse_input:
        return Opaque("its constants are stored sparsely")
    if view.option("fusedActivationFunction") == _SIGN_BIT:
        return Opaque("its fused activation keeps only the sign")
    return None


def _fits(operation: Operation, view: OperatorView) -> bool:
    """The runtime checks this when it allocates, which needs kernels for every operator."""
    order = SLOT_ORDER.get(view.operator, range(len(view.inputs)))
    inputs, outputs = [_shape(view.input(slot)) for slot in order], [*map(_shape, view.outputs)]
    if isinstance(operation, Linear) and not _widths_agree(operation, inputs, outputs[0]):
        return False
    if isinstance(operation, Gather) and view.input(1) is None:
        return False
    return fits(operation, NodeRanks.of(inputs, outputs))


def _shape(tensor: Tensor | None) -> Shape | None:
    return None if tensor is None else tensor.shape


def _widths_agree(operation: Linear, inputs: list[Shape | None], result: Shape | None) -> bool:
    """Have the kernel, the bias and the result the same number of channels?"""
    channels = [(result, operation.output_axis), (inputs[operation.kernel], operation.kernel_axis)]
    if operation.bias is not None:
        channels.append((inputs[operation.bias], -1))
    lengths = {
        shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else -1
        for shape, axis in channels
    }
    return len(lengths) == 1 and -1 not in lengths


_MODULES = (linear, values, positions, reduce_pool, detection)

TABLE: Mapping[str, Translate] = dict(
    sorted((name, row) for module in _MODULES for name, row in module.ROWS.items())
)

_GRAPHS = "it runs other subgraphs, which are not traced"

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("CALL", "IF", "STABLEHLO_COMPOSITE", "WHILE"), _GRAPHS),
    "L2_NORMALIZATION": "it divides by the norm of all values",
}
