"""Apply a plan to a Keras model: a new model out of rebuilt layers; the old one stays untouched.

1. The edits are sorted by layer: new values for its weights, new entries for its configuration.
2. Every layer is built anew from its configuration, edited or not, so that no variable is shared.
3. The new variables get the old values, or the edited ones.
4. An output that shows what lies between a Dense and its own activation needs the two apart: the
   Dense then loses its activation, and a layer behind it takes over the activation and the name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.graph import Array
from exporter.models.keras.picture import Picture, layer_weights, made_by
from exporter.models.keras.rebuild import Rebuilt, rebuild
from exporter.plan import AddOutput, Edit, Fill, Replace, SetAttribute, SetShape, Take


@dataclass
class _Changes:
    weights: dict[str, Array] = field(default_factory=dict)  # constant -> values
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # layer -> entries
    outputs: list[AddOutput] = field(default_factory=list)


def apply_edits(model: Any, picture: Picture, edits: Iterable[Edit]) -> Any:
    """A new, uncompiled model of the same kind with the edits made.

    With an added output a Sequential model becomes a Functional one: it has no second output. The
    new outputs stand behind the others; Keras calls them as it can, the caller as the edits say.

    Raises:
        ModelError: an edit that Keras models cannot take, or that does not fit this model; or a
            layer that cannot be rebuilt.
    """
    changes = _sort(picture, edits)
    split = {
        name.removesuffix("/linear")
        for name in (output.tensor for output in changes.outputs)
        if name not in picture.tensors
    }
    rebuilt = rebuild(model, changes.settings, split)
    _set_weights(picture, rebuilt, changes.weights)
    return _with_outputs(picture, rebuilt, changes.outputs)


def _sort(picture: Picture, edits: Iterable[Edit]) -> _Changes:
    changes = _Changes()
    for edit in edits:
        match edit:
            case Take() | Fill() | Replace():
                before = _values(picture, changes, edit.constant)
                changes.weights[edit.constant] = _edited(before, edit)
            case SetAttribute():
                layer = _layer(picture, edit)
                changes.settings.setdefault(layer.name, {})[edit.name] = edit.value
            case SetShape():
                pass  # Keras infers every shape from the layers
            case AddOutput():
                _check_output(picture, edit)
                changes.outputs.append(edit)
            case _:
                raise ModelError(
                    f"a Keras model cannot take the edit: {edit}",
                    "convert the model first (--to onnx or tflite)",
                )
    return changes


def _edited(before: Array, edit: Take | Fill | Replace) -> Array:
    if isinstance(edit, Take):
        return np.take(before, edit.positions, axis=edit.axis)
    if isinstance(edit, Replace):
        return np.asarray(edit.value, before.dtype)
    after = np.array(before)
    index: list[slice | Array] = [slice(None)] * after.ndim
    index[edit.axis] = edit.positions
    after[tuple(index)] = edit.value
    return after


def _values(picture: Picture, changes: _Changes, constant: str) -> Array:
    if constant in changes.weights:
        return changes.weights[constant]
    tensor = picture.graph.tensors.get(constant)
    if tensor is None or tensor.read is None:
        raise ModelError(f"the Keras model has no weight {constant!r}")
    return tensor.read()


def _layer(picture: Picture, edit: SetAttribute) -> Any:
    layer = picture.layers.get(edit.node)
    if layer is None:
        raise ModelError(f"the Keras model has no layer {edit.node!r}")
    if edit.name not in layer.get_config():
        raise ModelError(f"{type(layer).__name__} {edit.node!r} has no setting {edit.name!r}")
    return layer


def _check_output(picture: Picture, edit: AddOutput) -> None:
    tensor = picture.graph.tensors.get(edit.tensor)
    if tensor is None or tensor.is_constant:
        raise ModelError(f"the Keras model has no tensor {edit.tensor!r}")
    if edit.name in picture.graph.outputs:
        raise ModelError(f"the model already has an output named {edit.name!r}")
    if edit.name != edit.tensor and edit.name in picture.graph.tensors:
        raise ModelError(f"the model already has a tensor named {edit.name!r}")


def _set_weights(picture: Picture, rebuilt: Rebuilt, edited: Mapping[str, Array]) -> None:
    new_values = {id(picture.weights[name][1]): values for name, values in edited.items()}
    for old, new in rebuilt.pairs:
        if len(old.variables) != len(new.variables):
            raise _not_rebuilt(old, "its configuration does not give the same weights")
        for source, target in zip(old.variables, new.variables, strict=True):
            values = new_values.get(id(source))
            if values is None:
                values = keras.ops.convert_to_numpy(source.value)
            if tuple(values.shape) != tuple(target.shape):
                raise _not_rebuilt(
                    old, f"{target.name} is {tuple(target.shape)} and not {tuple(values.shape)}"
                )
            target.assign(values)
        _finalize(new)


def _finalize(layer: Any) -> None:
    """Layers that derive values from their weights (Normalization) derive them anew."""
    for inner in layer._flatten_layers():  # noqa: SLF001 - Keras has no public way to inner layers
        if hasattr(inner, "finalize_state"):
            inner.finalize_state()


def _not_rebuilt(layer: Any, reason: str) -> ModelError:
    weights = ", ".join(name for name, _ in layer_weights(layer)) or "no weights"
    return ModelError(
        f"{type(layer).__name__} {layer.name!r} cannot be rebuilt: {reason}", f"it has {weights}"
    )


def _with_outputs(picture: Picture, rebuilt: Rebuilt, outputs: list[AddOutput]) -> Any:
    if not outputs:
        return rebuilt.model
    model = rebuilt.model
    taken = {layer.name for layer in model.layers} | {tensor.name for tensor in model.inputs}
    added = []
    for edit in outputs:
        name = edit.name.replace("/", "_")  # Keras names outputs after layers, and allows no slash
        while name in taken:
            name += "_"
        taken.add(name)
        added.append(keras.layers.Identity(name=name)(rebuilt.tensor(_own_name(picture, edit))))
    return keras.Model(rebuilt.inputs, [*model.outputs, *added], name=model.name)


def _own_name(picture: Picture, edit: AddOutput) -> str:
    """The tensor's name after the layer that makes it; the picture may show it under an alias."""
    if edit.tensor not in picture.tensors:
        return edit.tensor  # inside a layer
    layer, _, index = made_by(picture.tensors[edit.tensor])
    return f"{layer.name}:{index}" if index else str(layer.name)
