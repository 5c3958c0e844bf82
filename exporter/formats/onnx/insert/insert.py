"""Writes operations into a model, one behind a tensor or several."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.onnx.editor import Draft
from exporter.formats.onnx.insert.operations import OPERATIONS
from exporter.formats.onnx.insert.writer import Site
from exporter.formats.onnx.protos import dtype_of, numpy_dtype
from exporter.formats.writable_operations import CheckedOperation, check_operation
from exporter.graph import Array
from exporter.graph.edits import Compute, ComputeStep, Insert


def insert(draft: Draft, edit: Insert) -> None:
    """Make an Insert.

    Raises:
        ModelError: an operation, operand or attribute that the table does not have, or a model
            whose operators are too old for it.
    """
    checked = _checked(edit, draft.opset)
    before, result = _ends(draft, edit)
    operands = [_operand(draft, edit.after, edit.operation, each) for each in edit.operands]
    inputs = (before, *(before if operand == edit.after else operand for operand in operands))
    _write(draft, checked.attributes, (inputs, result), edit, edit.after)
    draft.types.set(result, shape=edit.shape, dtype=checked.dtype)


def _ends(draft: Draft, edit: Insert) -> tuple[str, str]:
    """The tensor to read, and the one to make."""
    if edit.name is None:
        return draft.part(edit.after)
    draft.types.add(draft.claim(edit.name), draft.types.of(edit.after))
    return edit.after, edit.name


def compute(draft: Draft, edit: Compute) -> None:
    """Make a Compute (raises as `insert` does)."""
    checked = [_checked(step, draft.opset) for step in edit.steps]
    before, result = draft.part(edit.after)
    values = [before]
    for step, each in zip(edit.steps, checked, strict=True):
        is_last = step is edit.steps[-1]
        name = result if is_last else draft.fresh(f"{edit.after}__{step.operation}")
        operands = [_operand(draft, edit.after, step.operation, it) for it in step.operands]
        inputs = (*(values[number] for number in step.inputs), *operands)
        first = draft.types.of(inputs[0])
        _write(draft, each.attributes, (inputs, name), step, edit.after)
        if not is_last:
            draft.types.add(name, first)
        draft.types.set(name, shape=step.shape, dtype=each.dtype)
        values.append(name)
    draft.drop_unread(before)


def _operand(draft: Draft, after: str, operation: str, operand: str | Array) -> str:
    if isinstance(operand, str):
        return operand
    return draft.add_constant(draft.fresh(f"{after}__{operation}"), operand)


def _write(
    draft: Draft,
    attributes: Mapping[str, Any],
    ends: tuple[tuple[str, ...], str],
    edit: Insert | ComputeStep,
    after: str,
) -> None:
    """The nodes from some inputs to a result, somewhere behind a tensor."""
    inputs, result = tuple(ends[0]), ends[1]
    shape = draft.types.shape(inputs[0])
    rank = None if shape is None else len(shape)

    def constant(value: Array) -> str:
        return _operand(draft, result, edit.operation, value)

    encoded = partial(_encoded, draft, after)
    site = Site(
        inputs=tuple(inputs),
        result=result,
        attributes=attributes,
        opset=draft.opset,
        rank=rank,
        dtype=dtype_of(draft.types.of(inputs[0])),
        fresh=draft.fresh,
        constant=constant,
        encoded=encoded,
    )
    for node in OPERATIONS[edit.operation].write(site):
        draft.append(node, branch=isinstance(edit, Insert) and edit.name is not None)


def _checked(edit: Insert | ComputeStep, opset: int) -> CheckedOperation:
    checked, since = check_operation(edit, OPERATIONS, "ONNX"), OPERATIONS[edit.operation].since
    if opset < since:
        raise ModelError(
            f"the operation {edit.operation!r} needs opset {since}, the model has {opset}",
            "export the model with a later opset, or use --mode slice",
        )
    return checked


def _encoded(draft: Draft, tensor: str, value: float) -> Array:
    """A real value in a tensor's dtype, as a scalar (raises ModelError if it has no code)."""
    dtype, known = numpy_dtype(dtype_of(draft.types.of(tensor))), draft.quantization(tensor)
    code = value if known is None else known.quantize(np.asarray(value))
    return np.asarray(code).astype(dtype).reshape(())
