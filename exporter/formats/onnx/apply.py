"""Apply a plan to an ONNX model: one function for each kind of edit. The source is not changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from exporter.errors import ModelError
from exporter.formats.onnx.draw import Drawing
from exporter.formats.onnx.editor import Editor
from exporter.formats.onnx.external_data import ExternalData
from exporter.formats.onnx.insert import compute, insert
from exporter.formats.onnx.labels import update_labels
from exporter.formats.onnx.protos import numpy_dtype, set_metadata, tensor_type
from exporter.formats.onnx.quantized_values import quantize_fill
from exporter.formats.onnx.types import Types
from exporter.graph import Array
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Compute,
    Edit,
    Fill,
    Insert,
    Plan,
    RemoveOutputs,
    Replace,
    SetAttribute,
    SetShape,
    Take,
)
from exporter.graph.gathered import Gathered
from exporter.remap import Remap
from exporter.remap.remap import only_remap

REMAP = "exporter.remap"  # key of the metadata
PRECISION = "exporter.precision"


def apply_plan(
    source: ModelProto, drawing: Drawing, plan: Plan, external: ExternalData
) -> tuple[ModelProto, Types]:
    """A new model with the plan's edits and its remap, and the types of its tensors.

    Args:
        external: receives the values of large constants.

    Raises:
        ModelError: an edit names something that the model does not have, or that ONNX cannot store.
    """
    editor = Editor(source, drawing, external)
    for edit in plan.edits:
        EDITS[type(edit)](editor, edit)
    if plan.remap is not None:
        update_labels(editor.model, drawing.graph, remap_in(source), plan.remap)
        set_metadata(editor.model, REMAP, plan.remap.to_json(short=True))
    if plan.precision is not None:
        set_metadata(editor.model, PRECISION, plan.precision)
    return editor.finish(), editor.types


def remap_in(model: ModelProto) -> Remap | None:
    """The remap in a file's metadata (raises ModelError if it is damaged)."""
    texts = [entry.value for entry in model.metadata_props if entry.key == REMAP]
    return only_remap(texts)


def precision_in(model: ModelProto) -> str | None:
    """The precision that a file says it was quantized to, apart from its remap."""
    return next((each.value for each in model.metadata_props if each.key == PRECISION), None)


def _take(editor: Editor, edit: Take) -> None:
    def taken(values: Array) -> Array | Gathered:
        if values.dtype.hasobject or not values.flags.c_contiguous:
            return np.take(values, edit.positions, axis=edit.axis)
        return Gathered(values, edit.axis, edit.positions)

    editor.change_constant(edit.constant, edit.uses, taken)


def _fill(editor: Editor, edit: Fill) -> None:
    def filled(values: Array) -> Array:
        result = values.copy()
        index: list[Any] = [slice(None)] * values.ndim
        index[edit.axis] = edit.positions
        value = quantize_fill(constant, edit, values.shape)
        result[tuple(index)] = _as_dtype_of(values, value, edit.constant)
        return result

    constant = editor.constant(edit.constant)
    editor.change_constant(edit.constant, edit.uses, filled)


def _replace(editor: Editor, edit: Replace) -> None:
    def replaced(values: Array) -> Array:
        return _as_dtype_of(values, edit.value, edit.constant)

    editor.change_constant(edit.constant, edit.uses, replaced)


def _as_dtype_of(old: Array, new: Array, name: str) -> Array:
    """New values in the dtype of the old ones; integers must not be rounded."""
    result = new.astype(old.dtype)
    if np.issubdtype(old.dtype, np.integer) and not np.array_equal(result, new):
        raise ModelError(f"{name!r} is {old.dtype} and cannot hold {new}")
    return result


def _set_shape(editor: Editor, edit: SetShape) -> None:
    editor.types.set(edit.tensor, shape=edit.shape)


def _set_attribute(editor: Editor, edit: SetAttribute) -> None:
    node = editor.node(edit.node)
    new = helper.make_attribute(edit.name, edit.value)
    old = next((attribute for attribute in node.attribute if attribute.name == edit.name), None)
    if old is None:
        node.attribute.append(new)
    elif old.type == new.type:
        old.CopyFrom(new)
    else:
        raise ModelError(f"{edit.name} of {edit.node!r} cannot be {edit.value!r}")


def _add_input(editor: Editor, edit: AddInput) -> None:
    """A default value is an initializer of the same name; a run may leave such an input out.

    Files of the first three IR versions get none: a run cannot replace their initializers.
    """
    editor.claim_name(edit.name)
    kind = tensor_type(edit.dtype, edit.shape)
    editor.types.add(edit.name, kind)
    editor.model.graph.input.append(ValueInfoProto(name=edit.name, type=kind))
    if edit.default is not None and editor.model.ir_version >= _FIRST_IR_WITH_DEFAULTS:
        editor.set_value(edit.name, edit.default.astype(numpy_dtype(edit.dtype)))


_FIRST_IR_WITH_DEFAULTS = 4


def _add_output(editor: Editor, edit: AddOutput) -> None:
    """An output of another name than its tensor's goes through an Identity."""
    kind = editor.types.of(edit.tensor)
    if any(output.name == edit.name for output in editor.model.graph.output):
        raise ModelError(f"the model already has an output named {edit.name!r}")
    if edit.name != edit.tensor:
        editor.types.add(editor.claim_name(edit.name), kind)
        editor.append_node(
            NodeProto(name=edit.name, op_type="Identity", input=[edit.tensor], output=[edit.name])
        )
    editor.add_output(ValueInfoProto(name=edit.name, type=kind))


def _remove_outputs(editor: Editor, edit: RemoveOutputs) -> None:
    editor.removed_outputs = edit.outputs


EDITS: Mapping[type[Edit], Callable[[Editor, Any], None]] = {
    Take: _take,
    Fill: _fill,
    Replace: _replace,
    SetShape: _set_shape,
    SetAttribute: _set_attribute,
    Insert: insert,
    Compute: compute,
    AddInput: _add_input,
    AddOutput: _add_output,
    RemoveOutputs: _remove_outputs,
}
