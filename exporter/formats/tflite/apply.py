"""Apply a plan: the only place where a file is edited. The source is not changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exporter.errors import ModelError
from exporter.formats.tflite import constants, label_files
from exporter.formats.tflite.custom import set_option
from exporter.formats.tflite.draw import Drawing
from exporter.formats.tflite.editor import Editor, set_shape
from exporter.formats.tflite.schema import (
    File,
    add_signature,
    all_metadata,
    integers,
    metadata,
    set_metadata,
    signature_end,
    signatures,
    text,
)
from exporter.formats.tflite.without_outputs import remove_outputs
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
from exporter.remap import Remap
from exporter.remap.remap import only_remap

REMAP = "exporter.remap"  # the name of the metadata entry
PRECISION = "exporter.precision"


def apply_plan(file: File, drawing: Drawing, plan: Plan) -> None:
    """Make the plan's edits in a file that was unpacked for them.

    Raises:
        ModelError: an edit names something that the file lacks, or needs something that the format
            lacks. The file is then partly edited: discard it.
    """
    editor = Editor(file, drawing)
    for edit in plan.edits:
        EDITS[type(edit)](editor, edit)
    editor.clear_unused_buffers()
    if plan.remap is not None:
        label_files.cut_files(file, drawing.graph, drawing.returned, remap_in(file), plan.remap)
        inputs, outputs = ([n for n, _ in _named(editor, ends)] for ends in _interface(editor))
        returned = *drawing.returned, *outputs[len(drawing.returned) :]  # an insert renames outputs
        if any(head.labels for head in plan.remap.heads):
            from exporter.formats.tflite.client_metadata import add_metadata

            add_metadata(file, drawing.graph, inputs, returned, plan)
        set_metadata(file.model, REMAP, plan.remap.to_json(short=True).encode())
    if plan.precision is not None:
        set_metadata(file.model, PRECISION, plan.precision.encode())


def _interface(editor: Editor) -> tuple[Any, Any]:
    """The indices of the inputs, and of the outputs."""
    return editor.main.inputs, editor.main.outputs


def remap_in(file: File) -> Remap | None:
    """The remap inside a file; ModelError if it is damaged."""
    return only_remap([data.tobytes() for data in all_metadata(file.model, REMAP)])


def precision_in(file: File) -> str | None:
    """The precision that a file says it was quantized to, apart from its remap."""
    data = metadata(file.model, PRECISION)
    return None if data is None else text(data.tobytes())


def _take(editor: Editor, edit: Take) -> None:
    for tensor in editor.editable_tensors(edit.constant, edit.uses):
        constants.take_scales(tensor, edit.axis, edit.positions)
        values = constants.take(editor.values(tensor), edit.axis, edit.positions)
        editor.set_values(tensor, values)


def _fill(editor: Editor, edit: Fill) -> None:
    for tensor in editor.editable_tensors(edit.constant, edit.uses):
        values = editor.values(tensor).copy()
        where: list[Any] = [slice(None)] * values.ndim
        where[edit.axis] = edit.positions
        values[tuple(where)] = constants.encode(edit.value, tensor, edit.axis, edit.positions)
        editor.set_values(tensor, values)


def _replace(editor: Editor, edit: Replace) -> None:
    """A computed tensor, such as the shape of a reshape, becomes a constant."""
    for tensor in editor.editable_tensors(edit.constant, edit.uses):
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


def _insert(editor: Editor, edit: Insert) -> None:
    from exporter.formats.tflite.insert import insert

    insert(editor, edit)


def _compute(editor: Editor, edit: Compute) -> None:
    from exporter.formats.tflite.insert import compute

    compute(editor, edit)


def _add_input(editor: Editor, edit: AddInput) -> None:
    """The format has no default values: every run has to feed the input.

    It is added to every signature: a signature without it would run with uninitialized memory.
    """
    if edit.name in editor.tensors:
        raise ModelError(f"there is a tensor {edit.name!r} already")
    index = editor.new_tensor(edit.name, edit.dtype, edit.shape)
    editor.tensors[edit.name] = index
    editor.main.inputs = _appended(editor.main.inputs, index)
    for signature in signatures(editor.file.model):
        signature.inputs = [*(signature.inputs or ()), signature_end(edit.name, index)]


def _add_output(editor: Editor, edit: AddOutput) -> None:
    """The name is in the signatures; a file without one gets a signature with its present names."""
    index = editor.index(edit.tensor)
    if not signatures(editor.file.model):
        add_signature(
            editor.file.model,
            *(_named(editor, ends) for ends in _interface(editor)),
        )
    if index not in integers(editor.main.outputs):
        editor.main.outputs = _appended(editor.main.outputs, index)
    for signature in signatures(editor.file.model):
        if edit.name in {text(end.name) for end in signature.outputs or ()}:
            raise ModelError(f"there is an output {edit.name!r} already")
        signature.outputs = [*(signature.outputs or ()), signature_end(edit.name, index)]


def _remove_outputs(editor: Editor, edit: RemoveOutputs) -> None:
    remove_outputs(editor.file, {editor.drawing.outputs[name] for name in edit.outputs})


def _named(editor: Editor, indices: Any) -> list[tuple[str, int]]:
    """Inputs or outputs by their names after the previous edits."""
    names = {index: name for name, index in editor.tensors.items()}
    return [(names.get(i) or text(editor.main.tensors[i].name), i) for i in integers(indices)]


def _appended(indices: Any, index: int) -> Any:
    return np.array([*integers(indices), index], np.int32)


EDITS: Mapping[type[Edit], Callable[[Editor, Any], None]] = {
    Take: _take,
    Fill: _fill,
    Replace: _replace,
    SetShape: _set_shape,
    SetAttribute: _set_attribute,
    Insert: _insert,
    Compute: _compute,
    AddInput: _add_input,
    AddOutput: _add_output,
    RemoveOutputs: _remove_outputs,
}
