"""Applying a plan: the only place where the format is edited. The source stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from exporter.errors import ModelError
from exporter.formats.onnx.draw import Drawing
from exporter.formats.onnx.editor import Draft
from exporter.formats.onnx.insert import compute, insert
from exporter.formats.onnx.labels import narrow_labels
from exporter.formats.onnx.protos import numpy_dtype, tensor_type
from exporter.formats.onnx.quantized_values import encode
from exporter.graph import Array
from exporter.graph.edits import (
    AddInput,
    AddOutput,
    Compute,
    Edit,
    Fill,
    Insert,
    Plan,
    Replace,
    SetAttribute,
    SetShape,
    Take,
)
from exporter.remap import Remap

REMAP = "exporter.remap"  # key of the metadata


def apply_plan(source: ModelProto, drawing: Drawing, plan: Plan) -> ModelProto:
    """A new model with the plan's edits made, and its remap inside.

    Raises:
        ModelError: an edit names something that the model lacks, or that the format cannot hold.
    """
    draft = Draft(source, drawing)
    for edit in plan.edits:
        EDITS[type(edit)](draft, edit)
    if plan.remap is not None:
        narrow_labels(draft.model, drawing.graph, remap_in(source), plan.remap)
        _set_remap(draft.model, plan.remap)
    return draft.finish()


def remap_in(model: ModelProto) -> Remap | None:
    """The remap that a file carries (raises ModelError if it is damaged)."""
    text = next((entry.value for entry in model.metadata_props if entry.key == REMAP), None)
    return Remap.from_json(text) if text is not None else None


def _take(draft: Draft, edit: Take) -> None:
    def taken(values: Array) -> Array:
        plain = values if values.flags.aligned else values.view(f"V{values.dtype.itemsize}")
        return np.take(plain, edit.positions, axis=edit.axis).view(values.dtype)

    draft.change(edit.constant, edit.uses, taken)


def _fill(draft: Draft, edit: Fill) -> None:
    def filled(values: Array) -> Array:
        result = values.copy()
        where: list[Any] = [slice(None)] * values.ndim
        where[edit.axis] = edit.positions
        codes = encode(constant, edit, values.shape)
        result[tuple(where)] = _held(edit.constant, codes, values)
        return result

    constant = draft.constant(edit.constant)

    draft.change(edit.constant, edit.uses, filled)


def _replace(draft: Draft, edit: Replace) -> None:
    draft.change(edit.constant, edit.uses, lambda values: _held(edit.constant, edit.value, values))


def _held(constant: str, wanted: Array, values: Array) -> Array:
    """What was wanted, in the dtype that stands; integers must not change on the way."""
    result = wanted.astype(values.dtype)
    if np.issubdtype(values.dtype, np.integer) and not np.array_equal(result, wanted):
        raise ModelError(f"{constant!r} is {values.dtype} and cannot hold {wanted}")
    return result


def _set_shape(draft: Draft, edit: SetShape) -> None:
    draft.types.set(edit.tensor, shape=edit.shape)


def _set_attribute(draft: Draft, edit: SetAttribute) -> None:
    """In the place of the attribute that stands there, if there is one."""
    node = draft.node(edit.node)
    attribute = helper.make_attribute(edit.name, edit.value)
    for standing in node.attribute:
        if standing.name == edit.name:
            if standing.type != attribute.type:
                raise ModelError(f"{edit.name} of {edit.node!r} cannot be {edit.value!r}")
            standing.CopyFrom(attribute)
            return
    node.attribute.append(attribute)


def _add_input(draft: Draft, edit: AddInput) -> None:
    """A default is an initializer of the same name; a run may leave such an input out.

    Not in files of the first three IR versions, whose initializers no run replaces.
    """
    draft.claim(edit.name)
    kind = tensor_type(edit.dtype, edit.shape)
    draft.types.add(edit.name, kind)
    draft.model.graph.input.append(ValueInfoProto(name=edit.name, type=kind))
    if edit.default is not None and draft.model.ir_version >= _REPLACED:
        draft.set_value(edit.name, edit.default.astype(numpy_dtype(edit.dtype)))


_REPLACED = 4  # the IR version since which what is fed goes before an initializer


def _add_output(draft: Draft, edit: AddOutput) -> None:
    """Under another name than its own through an Identity: nothing else is renamed."""
    kind = draft.types.of(edit.tensor)
    if any(output.name == edit.name for output in draft.model.graph.output):
        raise ModelError(f"the model already has an output named {edit.name!r}")
    if edit.name != edit.tensor:
        draft.types.add(draft.claim(edit.name), kind)
        draft.append(
            NodeProto(name=edit.name, op_type="Identity", input=[edit.tensor], output=[edit.name])
        )
    draft.add_output(ValueInfoProto(name=edit.name, type=kind))


def _set_remap(model: ModelProto, remap: Remap) -> None:
    for entry in model.metadata_props:
        if entry.key == REMAP:
            entry.value = remap.to_json()
            return
    model.metadata_props.add(key=REMAP, value=remap.to_json())


EDITS: Mapping[type[Edit], Callable[[Draft, Any], None]] = {
    Take: _take,
    Fill: _fill,
    Replace: _replace,
    SetShape: _set_shape,
    SetAttribute: _set_attribute,
    Insert: insert,
    Compute: compute,
    AddInput: _add_input,
    AddOutput: _add_output,
}
