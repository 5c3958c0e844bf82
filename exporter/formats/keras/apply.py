"""Apply a plan to a Keras model: build a new model, and leave the original unchanged.

1. The edits are sorted by layer: new values for its weights, new settings in its configuration.
2. Every layer is built again from its configuration, edited or not, so that no variable is shared.
   If sharing is asked for, layers with weights that do not change are used in both models.
3. The new variables get the original values or the edited ones. The new model is compiled like the
   original.
4. To return tensors inside the model, it becomes flat: models inside it are dissolved, and a layer
   is separated from its activation if the values between them are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.formats.keras.calls import all_layers
from exporter.formats.keras.draw import Drawing, layer_weights
from exporter.formats.keras.rebuild import Rebuilt, rebuild, rebuild_flat
from exporter.formats.keras.settings import has_setting
from exporter.formats.keras.training import EditValues, compile_like
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Edit, Fill, Replace, SetAttribute, SetShape, Take

_WeightEdit = Take | Fill | Replace


@dataclass
class _Changes:
    weights: dict[str, Array] = field(default_factory=dict)  # constant -> values
    edits: dict[int, EditValues] = field(default_factory=dict)  # variable -> edit of its values
    settings: dict[int, dict[str, Any]] = field(default_factory=dict)  # layer -> path -> value
    outputs: list[AddOutput] = field(default_factory=list)


def apply_edits(
    model: Any, drawing: Drawing, edits: Iterable[Edit], *, share_weights: bool = False
) -> Any:
    """Build a new model of the same kind with the edits, compiled like the original if that fits.

    With an added output the model becomes a flat Functional one that is not compiled. Added outputs
    come last. Keras cannot use every name that an edit gives to an output; the caller can.

    Args:
        share_weights: use the original layers where weights do not change; without added outputs.

    Raises:
        ModelError: a Keras model cannot take an edit, or an edit does not fit this model; a layer
            cannot be rebuilt; or the calls of one layer would need different weights.
    """
    changes = _sort(drawing, list(edits))
    rebuilt = _rebuild(model, drawing, changes, share_weights=share_weights)
    _set_weights(drawing, rebuilt, changes.weights)
    if changes.outputs:
        return _with_outputs(drawing, rebuilt, changes.outputs)
    compile_like(model, rebuilt.model, changes.edits)
    return rebuilt.model


def _rebuild(model: Any, drawing: Drawing, changes: _Changes, *, share_weights: bool) -> Rebuilt:
    if not changes.outputs:
        changed = {id(drawing.weights[constant][0]) for constant in changes.weights}
        return rebuild(model, changes.settings, changed if share_weights else None)
    tensors = [drawing.aliases.get(edit.tensor, edit.tensor) for edit in changes.outputs]
    split = [drawing.inner[name] for name in tensors if name in drawing.inner]
    return rebuild_flat(model, changes.settings, {id(layer): path for layer, path in split})


def _sort(drawing: Drawing, edits: list[Edit]) -> _Changes:
    changes = _Changes()
    for constant in dict.fromkeys(e.constant for e in edits if isinstance(e, _WeightEdit)):
        of_constant = [e for e in edits if isinstance(e, _WeightEdit) and e.constant == constant]
        _change_weight(drawing, changes, of_constant)
    for edit in edits:
        match edit:
            case SetAttribute():
                layer = _layer(drawing, edit)
                settings = changes.settings.setdefault(id(layer), {})
                if settings.setdefault(edit.name, edit.value) != edit.value:
                    raise _calls_disagree(drawing, layer)
            case AddOutput():
                _check_output(drawing, edit)
                changes.outputs.append(edit)
            case Take() | Fill() | Replace() | SetShape():
                pass  # weights are done; Keras infers every shape from the layers
            case _:
                raise ModelError(
                    f"a Keras model cannot take the edit: {edit}",
                    "convert the model first (--to onnx or tflite)",
                )
    return changes


def _change_weight(drawing: Drawing, changes: _Changes, edits: list[_WeightEdit]) -> None:
    """Collect all edits of one weight. All calls of its layer share it, so the edits must agree."""
    constant = edits[0].constant
    tensor = drawing.graph.tensors.get(constant)
    if tensor is None or tensor.read is None:
        raise ModelError(f"the Keras model has no weight {constant!r}")
    layer, variable = drawing.weights[constant]
    distinct: list[_WeightEdit] = []
    for edit in edits:
        if not any(_is_same_take(known, edit) for known in distinct):
            distinct.append(edit)
    takes = [edit for edit in distinct if isinstance(edit, Take)]
    consumers = {node.name for node, _ in drawing.graph.consumers.get(constant, ())}
    edited = {use.node for edit in edits for use in edit.uses}
    if len(consumers) > 1 and (len(takes) > 1 or not consumers <= edited):
        raise _calls_disagree(drawing, layer)
    values = tensor.read()
    for edit in distinct:
        values = _edited(values, edit)
    changes.weights[constant] = values
    changes.edits[id(variable)] = partial(_edit_optimizer_values, distinct)
    if values.shape != tuple(variable.shape):
        settings = changes.settings.setdefault(id(layer), {})
        if type(layer).__name__ == "UnitMask" and layer.labels is not None:
            kept = [position for take in takes for position in take.positions]
            settings["labels"] = [layer.labels[position] for position in kept]


def _edit_optimizer_values(edits: Sequence[_WeightEdit], values: Array) -> Array:
    """Edit what an optimizer stores for a weight as the weight was edited; 0 for new values."""
    for edit in edits:
        if isinstance(edit, Replace):
            values = np.zeros(np.shape(edit.value), values.dtype)
        else:
            values = _edited(values, replace(edit, value=0.0) if isinstance(edit, Fill) else edit)
    return values


def _is_same_take(one: _WeightEdit, other: _WeightEdit) -> bool:
    """Do two edits of one constant take the same positions, for different uses of it?"""
    return (
        isinstance(one, Take)
        and isinstance(other, Take)
        and (one.axis == other.axis and np.array_equal(one.positions, other.positions))
    )


def _calls_disagree(drawing: Drawing, layer: Any) -> ModelError:
    count = sum(1 for each in drawing.layers.values() if each is layer)
    return ModelError(
        f"{type(layer).__name__} {layer.name!r} is called {count} times, and the cut would need "
        "different weights in these calls",
        "convert the model first (--to onnx or tflite): a converted file can have a copy",
    )


def _edited(values: Array, edit: _WeightEdit) -> Array:
    if isinstance(edit, Take):
        return np.take(values, edit.positions, axis=edit.axis)
    if isinstance(edit, Replace):
        return np.asarray(edit.value, values.dtype)
    filled = np.array(values)
    np.moveaxis(filled, edit.axis, 0)[edit.positions] = edit.value
    return filled


def _layer(drawing: Drawing, edit: SetAttribute) -> Any:
    layer = drawing.layers.get(edit.node)
    if layer is None:
        raise ModelError(f"the Keras model has no layer {edit.node!r}")
    if not has_setting(layer.get_config(), edit.name):
        raise ModelError(f"{type(layer).__name__} {edit.node!r} has no setting {edit.name!r}")
    return layer


def _check_output(drawing: Drawing, edit: AddOutput) -> None:
    tensor = drawing.graph.tensors.get(edit.tensor)
    if tensor is None or tensor.is_constant or edit.tensor in drawing.hidden:
        raise ModelError(f"the Keras model has no tensor {edit.tensor!r}")
    if edit.name in drawing.graph.outputs:
        raise ModelError(f"the model already has an output named {edit.name!r}")
    if edit.name != edit.tensor and edit.name in drawing.graph.tensors:
        raise ModelError(f"the model already has a tensor named {edit.name!r}")


def _set_weights(drawing: Drawing, rebuilt: Rebuilt, edited: Mapping[str, Array]) -> None:
    new_values = {id(drawing.weights[name][1]): values for name, values in edited.items()}
    for original, new in rebuilt.pairs:
        if len(original.variables) != len(new.variables):
            raise _not_rebuilt(original, "its configuration does not give the same weights")
        for source, target in zip(original.variables, new.variables, strict=True):
            values = new_values.get(id(source))
            if values is None:
                values = keras.ops.convert_to_numpy(source.value)
            if tuple(values.shape) != tuple(target.shape):
                raise _not_rebuilt(
                    original,
                    f"{target.name} is {tuple(target.shape)} and not {tuple(values.shape)}",
                )
            target.assign(values)
        for inner in all_layers(new):
            if hasattr(inner, "finalize_state"):  # Normalization computes values from its weights
                inner.finalize_state()


def _not_rebuilt(layer: Any, reason: str) -> ModelError:
    weights = ", ".join(name for name, _ in layer_weights(layer)) or "no weights"
    return ModelError(
        f"{type(layer).__name__} {layer.name!r} cannot be rebuilt: {reason}", f"it has {weights}"
    )


def _with_outputs(drawing: Drawing, rebuilt: Rebuilt, outputs: list[AddOutput]) -> Any:
    model = rebuilt.model
    taken = {operation.name for operation in model.operations}
    added = []
    for edit in outputs:
        name = edit.name.replace("/", "_")  # Keras names outputs after layers, and allows no slash
        while name in taken:
            name += "_"
        taken.add(name)
        tensor = rebuilt.tensors[drawing.aliases.get(edit.tensor, edit.tensor)]
        added.append(keras.layers.Identity(name=name)(tensor))
    return keras.Model(model.input, [*model.outputs, *added], name=model.name)
