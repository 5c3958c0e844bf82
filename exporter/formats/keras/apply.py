"""Apply a plan to a Keras model: a new model out of rebuilt layers; the old one stays untouched.

1. The edits are sorted by layer: new values for its weights, new entries for its configuration.
2. Every layer is built anew from its configuration, edited or not, so that no variable is shared;
   where that is asked for, those that hold weights and do not change are the same in both models.
3. The new variables get the old values, or the edited ones; the new model is compiled as the old
   one was.
4. Inner tensors are returned by a flat model, in which models in the model are taken apart, and
   where it has to be so, layers and their own activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.formats.keras.draw import Picture, layer_weights
from exporter.formats.keras.rebuild import Rebuilt, rebuild, rebuild_flat
from exporter.formats.keras.settings import has_entry
from exporter.formats.keras.training import Cut, compile_alike
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Edit, Fill, Replace, SetAttribute, SetShape, Take

_Values = Take | Fill | Replace


@dataclass
class _Changes:
    weights: dict[str, Array] = field(default_factory=dict)  # constant -> values
    cuts: dict[int, Cut] = field(default_factory=dict)  # variable -> what happens to its values
    settings: dict[int, dict[str, Any]] = field(default_factory=dict)  # layer -> entries
    outputs: list[AddOutput] = field(default_factory=list)


def apply_edits(
    model: Any, picture: Picture, edits: Iterable[Edit], *, share_weights: bool = False
) -> Any:
    """A new model of the same kind with the edits made, compiled as the old one is where it fits.

    With an added output the model becomes a flat Functional one that is not compiled. The new
    outputs stand behind the others; Keras calls them as it can, the caller as the edits say.

    Args:
        share_weights: layers whose weights do not change are those of the old model; without added
            outputs.

    Raises:
        ModelError: an edit that Keras models cannot take, or that does not fit this model; a layer
            that cannot be rebuilt; or one called several times whose calls would need different
            weights.
    """
    changes = _sort(picture, list(edits))
    rebuilt = _rebuilt(model, picture, changes, share_weights=share_weights)
    _set_weights(picture, rebuilt, changes.weights)
    if not changes.outputs:
        compile_alike(model, rebuilt.model, changes.cuts)
    return _with_outputs(picture, rebuilt, changes.outputs)


def _rebuilt(model: Any, picture: Picture, changes: _Changes, *, share_weights: bool) -> Rebuilt:
    if not changes.outputs:
        changed = {id(picture.weights[constant][0]) for constant in changes.weights}
        return rebuild(model, changes.settings, changed if share_weights else None)
    shown = [picture.aliases.get(edit.tensor, edit.tensor) for edit in changes.outputs]
    split = [picture.inner[name] for name in shown if name in picture.inner]
    return rebuild_flat(model, changes.settings, {id(layer): path for layer, path in split})


def _sort(picture: Picture, edits: list[Edit]) -> _Changes:
    changes = _Changes()
    for constant in dict.fromkeys(e.constant for e in edits if isinstance(e, _Values)):
        mine = [e for e in edits if isinstance(e, _Values) and e.constant == constant]
        _change_weight(picture, changes, mine)
    for edit in edits:
        match edit:
            case SetAttribute():
                layer = _layer(picture, edit)
                entries = changes.settings.setdefault(id(layer), {})
                if entries.setdefault(edit.name, edit.value) != edit.value:
                    raise _disagree(picture, layer)
            case AddOutput():
                _check_output(picture, edit)
                changes.outputs.append(edit)
            case Take() | Fill() | Replace() | SetShape():
                pass  # weights were seen to; Keras infers every shape from the layers
            case _:
                raise ModelError(
                    f"a Keras model cannot take the edit: {edit}",
                    "convert the model first (--to onnx or tflite)",
                )
    return changes


def _change_weight(picture: Picture, changes: _Changes, edits: list[Take | Fill | Replace]) -> None:
    """All that happens to one weight; a layer's calls share it, and so must agree."""
    constant = edits[0].constant
    values = _values(picture, constant)
    layer, _ = picture.weights[constant]
    users = {node.name for node, _ in picture.graph.consumers.get(constant, ())}
    once: list[Take | Fill | Replace] = []
    for edit in edits:
        same = [e for e in once if _is_same(e, edit)]
        once += [] if same else [edit]
    takes = [edit for edit in once if isinstance(edit, Take)]
    told = {use.node for edit in edits for use in edit.uses}
    if len(users) > 1 and (len(takes) > 1 or not users <= told):
        raise _disagree(picture, layer)
    for edit in once:
        values = _edited(values, edit)
    changes.weights[constant] = values
    changes.cuts[id(picture.weights[constant][1])] = partial(_remade, once)
    if values.shape != tuple(picture.weights[constant][1].shape):
        settings = changes.settings.setdefault(id(layer), {})
        if type(layer).__name__ == "UnitMask" and layer.labels is not None:
            settings["labels"] = [layer.labels[place] for take in takes for place in take.positions]


def _remade(edits: Sequence[_Values], memory: Array) -> Array:
    """What is remembered of a weight, after these edits of the weight; of a new value nothing."""
    for edit in edits:
        if isinstance(edit, Replace):
            memory = np.zeros(np.shape(edit.value), memory.dtype)
        else:
            memory = _edited(memory, replace(edit, value=0.0) if isinstance(edit, Fill) else edit)
    return memory


def _is_same(one: _Values, other: _Values) -> bool:
    """Do two edits of one constant the same, for different uses of it?"""
    return (
        isinstance(one, Take)
        and isinstance(other, Take)
        and (one.axis == other.axis and np.array_equal(one.positions, other.positions))
    )


def _disagree(picture: Picture, layer: Any) -> ModelError:
    calls = sum(1 for each in picture.layers.values() if each is layer)
    return ModelError(
        f"{type(layer).__name__} {layer.name!r} is called {calls} times, and the cut would need "
        "different weights in these calls",
        "convert the model first (--to onnx or tflite): there a copy can be cut",
    )


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


def _values(picture: Picture, constant: str) -> Array:
    tensor = picture.graph.tensors.get(constant)
    if tensor is None or tensor.read is None:
        raise ModelError(f"the Keras model has no weight {constant!r}")
    return tensor.read()


def _layer(picture: Picture, edit: SetAttribute) -> Any:
    layer = picture.layers.get(edit.node)
    if layer is None:
        raise ModelError(f"the Keras model has no layer {edit.node!r}")
    if not has_entry(layer.get_config(), edit.name):
        raise ModelError(f"{type(layer).__name__} {edit.node!r} has no setting {edit.name!r}")
    return layer


def _check_output(picture: Picture, edit: AddOutput) -> None:
    tensor = picture.graph.tensors.get(edit.tensor)
    if tensor is None or tensor.is_constant or edit.tensor in picture.hidden:
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
    taken = {operation.name for operation in model.operations}
    added = []
    for edit in outputs:
        name = edit.name.replace("/", "_")  # Keras names outputs after layers, and allows no slash
        while name in taken:
            name += "_"
        taken.add(name)
        shown = rebuilt.tensors[picture.aliases.get(edit.tensor, edit.tensor)]
        added.append(keras.layers.Identity(name=name)(shown))
    return keras.Model(model.input, [*model.outputs, *added], name=model.name)
