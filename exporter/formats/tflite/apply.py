"""Applying a plan: the only place where the format is edited. The source stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporter.errors import ModelError
from exporter.formats.tflite import constants, label_files
from exporter.formats.tflite.custom import set_option
from exporter.formats.tflite.draw import Picture, signatures
from exporter.formats.tflite.editor import Editor, set_shape
from exporter.formats.tflite.insert import compute, insert
from exporter.formats.tflite.schema import File, metadata, set_metadata, text
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

REMAP = "exporter.remap"  # the name of the metadata


def apply_plan(file: File, picture: Picture, plan: Plan) -> None:
    """Make the plan's edits in a file that was taken apart for them alone.

    Raises:
        ModelError: an edit names something that the file does not have, or that the format cannot
            hold. The file is then half edited: throw it away.
    """
    editor = Editor(file, picture)
    for edit in plan.edits:
        EDITS[type(edit)](editor, edit)
    editor.drop_unused()
    if plan.remap is not None:
        remaps = carried(file), plan.remap
        label_files.follow(file, picture.graph, picture.returned, remaps)
        set_metadata(file.model, REMAP, plan.remap.to_json().encode())


def carried(file: File) -> Remap | None:
    """The remap inside a file; ModelError if it is damaged."""
    data = metadata(file.model, REMAP)
    return None if data is None else Remap.from_json(data.tobytes())


def _take(editor: Editor, edit: Take) -> None:
    for tensor in editor.seen_by(edit.constant, edit.uses):
        constants.take_scales(tensor, edit.axis, edit.positions)
        values = constants.take(editor.values(tensor), edit.axis, edit.positions)
        editor.set_values(tensor, values)


def _fill(editor: Editor, edit: Fill) -> None:
    for tensor in editor.seen_by(edit.constant, edit.uses):
        values = editor.values(tensor).copy()
        where: list[Any] = [slice(None)] * values.ndim
        where[edit.axis] = edit.positions
        values[tuple(where)] = constants.encode(edit.value, tensor, edit.axis, edit.positions)
        editor.set_values(tensor, values)


def _replace(editor: Editor, edit: Replace) -> None:
    """Also of what the file computes, such as the shape of a reshape: it is a constant then."""
    for tensor in editor.seen_by(edit.constant, edit.uses):
        editor.set_values(tensor, constants.cast(edit.value, tensor))


def _set_shape(editor: Editor, edit: SetShape) -> None:
    set_shape(editor.main.tensors[editor.index(edit.tensor)], edit.shape)


def _set_attribute(editor: Editor, edit: SetAttribute) -> None:
    operator = editor.operator(edit.node)
    options = operator.builtinOptions
    if options is None and operator.customOptions is not None:
        set_option(operator, edit.name, edit.value)
        return
    if not hasattr(options, edit.name):
        raise ModelError(f"the operation {edit.node!r} has no option {edit.name!r}")
    value = np.array(edit.value, np.int32) if isinstance(edit.value, tuple) else edit.value
    setattr(options, edit.name, value)


def _add_input(editor: Editor, edit: AddInput) -> None:
    """A signature that leaves the input out would never feed it, and read arbitrary memory.

    The format has no defaults: the input has to be fed in every run.
    """
    if edit.name in editor.tensors:
        raise ModelError(f"there is a tensor {edit.name!r} already")
    index = editor.new_tensor(edit.name, edit.dtype, edit.shape)
    editor.tensors[edit.name] = index
    editor.main.inputs = _appended(editor.main.inputs, index)
    for signature in signatures(editor.file.model):
        signature.inputs = [*(signature.inputs or ()), _end(edit.name, index)]


def _add_output(editor: Editor, edit: AddOutput) -> None:
    """The name stands in the signatures; a file without any is given one with the names it has."""
    index = editor.index(edit.tensor)
    if not signatures(editor.file.model):
        _add_signature(editor)
    if index not in _list(editor.main.outputs):
        editor.main.outputs = _appended(editor.main.outputs, index)
    for signature in signatures(editor.file.model):
        if edit.name in {text(end.name) for end in signature.outputs or ()}:
            raise ModelError(f"there is an output {edit.name!r} already")
        signature.outputs = [*(signature.outputs or ()), _end(edit.name, index)]


def _add_signature(editor: Editor) -> None:
    """The interface as it stands, also after inputs were added and operations inserted."""
    names = {index: name for name, index in editor.tensors.items()}
    inputs, outputs = (
        [_end(names.get(i) or text(editor.main.tensors[i].name), i) for i in _list(indices)]
        for indices in (editor.main.inputs, editor.main.outputs)
    )
    signature = schema.SignatureDefT(inputs, outputs, signatureKey="serving_default")
    editor.file.model.signatureDefs = [*(editor.file.model.signatureDefs or ()), signature]


def _end(name: str, index: int) -> Any:
    return schema.TensorMapT(name=name, tensorIndex=index)


def _list(indices: Any) -> list[int]:
    return [] if indices is None else [int(index) for index in indices]


def _appended(indices: Any, index: int) -> Any:
    return np.array([*_list(indices), index], np.int32)


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
}
