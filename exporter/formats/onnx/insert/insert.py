"""Insert operations into an ONNX model, after one tensor or several."""

from __future__ import annotations

from exporter.errors import ModelError
from exporter.formats.onnx.editor import Editor
from exporter.formats.onnx.insert.operations import OPERATIONS
from exporter.formats.onnx.insert.writer import Site
from exporter.formats.writable_operations import CheckedOperation, check_operation
from exporter.graph import Array
from exporter.graph.edits import Compute, ComputeStep, Insert


def insert(editor: Editor, edit: Insert) -> None:
    """Make an Insert.

    Raises:
        ModelError: an operation, operand or attribute that the table does not have, or the model's
            opset is too old for the operation.
    """
    checked = _check(edit, editor.opset)
    if edit.name is None:
        source, result = editor.split_tensor(edit.after, only_output=edit.only_output)
    else:
        editor.types.add(editor.claim_name(edit.name), editor.types.of(edit.after))
        source, result = edit.after, edit.name
    operands = [_operand(editor, edit, edit.after, each) for each in edit.operands]
    inputs = (source, *(source if operand == edit.after else operand for operand in operands))
    site = Site(editor, edit.after, inputs, result, edit.operation, checked.attributes)
    for node in OPERATIONS[edit.operation].write(site):
        editor.append_node(node, branch=edit.name is not None)
    editor.types.set(result, shape=edit.shape, dtype=checked.dtype)


def compute(editor: Editor, edit: Compute) -> None:
    """Make a Compute (raises as `insert` does)."""
    operations = [_check(step, editor.opset) for step in edit.steps]
    source, result = editor.split_tensor(edit.after)
    values = [source]
    for step, checked in zip(edit.steps, operations, strict=True):
        is_last = step is edit.steps[-1]
        name = result if is_last else editor.unique_name(f"{edit.after}__{step.operation}")
        operands = [_operand(editor, step, edit.after, operand) for operand in step.operands]
        inputs = (*(values[index] for index in step.inputs), *operands)
        kind = editor.types.of(inputs[0])
        site = Site(editor, edit.after, inputs, name, step.operation, checked.attributes)
        for node in OPERATIONS[step.operation].write(site):
            editor.append_node(node)
        if not is_last:
            editor.types.add(name, kind)
        editor.types.set(name, shape=step.shape, dtype=checked.dtype)
        values.append(name)
    editor.remove_unread(source)


def _operand(editor: Editor, edit: Insert | ComputeStep, after: str, operand: str | Array) -> str:
    if isinstance(operand, str):
        return operand
    return editor.add_constant(editor.unique_name(f"{after}__{edit.operation}"), operand)


def _check(edit: Insert | ComputeStep, opset: int) -> CheckedOperation:
    checked, since = check_operation(edit, OPERATIONS, "ONNX"), OPERATIONS[edit.operation].since
    if opset < since:
        raise ModelError(
            f"the operation {edit.operation!r} needs opset {since}, the model has {opset}",
            "export the model with a later opset, or use --mode slice",
        )
    return checked
