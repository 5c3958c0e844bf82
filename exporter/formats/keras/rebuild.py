"""Build a Keras model again, layer by layer, from edited configurations.

1. `rebuild` keeps the structure: models inside the model stay models, Sequential stays Sequential.
2. `rebuild_flat` dissolves models inside the model, so that any inner tensor can be returned: every
   call is repeated on new tensors. A layer loses its activation if the values before it are wanted;
   a new layer after it applies the activation and gets the layer's name.
3. With shared weights, `rebuild` uses the original object for each layer, or model inside the
   model, that has weights and does not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError, first_line
from exporter.formats.keras.calls import (
    KerasCall,
    all_layers,
    follow,
    is_plain_model,
    producer_name,
)
from exporter.formats.keras.settings import setting, with_setting
from exporter.formats.keras.validate import check_live

_VOCABULARY = {"StringLookup", "IntegerLookup", "TextVectorization", "Discretization"}
REBUILD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)

Settings = Mapping[int, Mapping[str, Any]]  # identity of a layer -> path in its configuration
Split = Mapping[int, str]  # identity of a layer -> path of its activation


@dataclass
class Rebuilt:
    """A new model with new variables.

    Attributes:
        pairs: (original layer, new layer).
        tensors: name -> symbolic tensor of the new model; filled by `rebuild_flat` only.
    """

    model: Any
    pairs: list[tuple[Any, Any]]
    tensors: dict[str, Any] = field(default_factory=dict)


def input_structure(model: Any) -> Any:
    """The model's inputs in the structure of its call: a tensor, a list or a dictionary."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def rebuild(model: Any, settings: Settings, changed: AbstractSet[int] | None = None) -> Rebuilt:
    """Build a model again; its variables contain initial values.

    Args:
        model: Functional or Sequential, built.
        settings: new settings in the layers' configurations. A layer that is listed has weights of
            other shapes.
        changed: identities of the layers whose weights change, to share the other layers' weights;
            None to share nothing.

    Raises:
        ModelError: a layer carries code, is not of Keras, or cannot be built again.
    """
    check_live(model)
    builder = _Builder(settings, None if changed is None else {*changed, *settings})
    flags = [(layer, layer.trainable) for layer in all_layers(model)]
    try:
        new = builder.model(model)
    except REBUILD_ERRORS as error:
        raise _not_rebuilt(model, error) from error
    for layer, trainable in flags:  # building may set `trainable` of a shared layer
        if layer.trainable != trainable:
            layer.trainable = trainable
    return Rebuilt(new, builder.pairs)


def rebuild_flat(model: Any, settings: Settings, split: Split) -> Rebuilt:
    """Build a model again as a Functional one without models inside it.

    Args:
        settings: as for `rebuild`.
        split: layers whose activation becomes a separate layer.

    Raises:
        ModelError: as `rebuild`.
    """
    check_live(model)
    builder = _FlatBuilder(settings, split)
    try:
        new = builder.flat(model)
    except REBUILD_ERRORS as error:
        raise _not_rebuilt(model, error) from error
    return Rebuilt(new, builder.pairs, builder.tensors)


def _not_rebuilt(model: Any, error: Exception) -> ModelError:
    return ModelError(f"the model {model.name!r} cannot be rebuilt: {first_line(error)}")


@dataclass
class _Builder:
    settings: Settings
    changed: AbstractSet[int] | None = None  # None: nothing is shared
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    new: dict[int, Any] = field(default_factory=dict)  # original layer -> new one, for all calls

    def model(self, model: Any) -> Any:
        if isinstance(model, keras.Sequential):
            layers = [_new_input(model.inputs[0]), *map(self.layer, model.layers)]
            return keras.Sequential(layers, name=model.name, trainable=model.trainable)
        return self.functional(model)

    def functional(self, model: Any) -> Any:
        """Clone a view that shares the model's layers: a clone of the model would be compiled."""
        view = keras.Model(input_structure(model), model.output, name=model.name)
        inputs = keras.tree.map_structure(_new_input, input_structure(model))
        new = keras.models.clone_model(view, input_tensors=inputs, clone_function=self.layer)
        if not model.trainable:  # setting it changes every layer: True would unfreeze frozen ones
            new.trainable = False
        return new

    def layer(self, layer: Any) -> Any:
        """A new layer or other operation with the new settings; the same one if it is shared."""
        if self.is_shared(layer):
            return layer
        if id(layer) not in self.new:
            self.new[id(layer)] = self.model(layer) if is_plain_model(layer) else self.one(layer)
        return self.new[id(layer)]

    def is_shared(self, layer: Any) -> bool:
        """Is this a layer, or a model inside the model, that has weights and does not change?"""
        if self.changed is None or not getattr(layer, "weights", None):
            return False
        inner = all_layers(layer)
        return not any(id(each) in self.changed for each in inner)

    def one(self, layer: Any) -> Any:
        """A new layer that is not a model, or another operation."""
        config = layer.get_config()
        if type(layer).__name__ in _VOCABULARY:
            raise ModelError(
                f"{type(layer).__name__} {layer.name!r} cannot be rebuilt: its configuration may "
                "lack its learned vocabulary",
                "prune the model that follows it",
            )
        if id(layer) in self.settings:
            config = _without_arrays(config)
        for path, value in self.settings.get(id(layer), {}).items():
            config = with_setting(config, path, value)
        new = self.from_config(layer, config)
        if isinstance(layer, keras.Layer):
            self.pairs.append((layer, new))
        return new

    def from_config(self, layer: Any, config: dict[str, Any]) -> Any:
        return type(layer).from_config(config)


class _FlatBuilder(_Builder):
    def __init__(self, settings: Settings, split: Split) -> None:
        super().__init__(settings)
        self.split = split
        self.tensors: dict[str, Any] = {}
        self.taken: set[str] = set()
        self.call = ""  # name of the call that is being repeated
        self.activations: dict[int, Any] = {}  # layer -> its activation as a separate layer

    def flat(self, model: Any) -> Any:
        inputs = keras.tree.map_structure(_new_input, input_structure(model))
        flat_inputs = keras.tree.flatten(inputs)
        self.tensors.update((producer_name(tensor), tensor) for tensor in flat_inputs)
        self.taken.update(self.tensors)
        return keras.Model(inputs, follow(model, flat_inputs, self.visit), name=model.name)

    def visit(self, name: str, call: KerasCall, values: Mapping[int, Any]) -> Sequence[Any]:
        """Repeat a call; returns the new tensors."""
        self.call = name
        new = self.layer(call.operation)
        positional, named = call.fill(values)
        results: list[Any] = keras.tree.flatten(new(*positional, **named))
        if id(call.operation) in self.activations:
            self.tensors[f"{name}/linear"] = results[0]
            results = [self.activations[id(call.operation)](results[0])]
        for i, result in enumerate(results):
            self.tensors[f"{name}:{i}" if i else name] = result
        return results

    def from_config(self, layer: Any, config: dict[str, Any]) -> Any:
        """Give the layer a name that is unique in the flat model; split off its activation."""
        name, path = self.unique(self.call), self.split.get(id(layer))
        if path is not None:
            settings = {"name": name, "dtype": config["dtype"], "activation": setting(config, path)}
            activation = keras.layers.Activation.from_config(settings)
            if isinstance(layer, keras.layers.TimeDistributed):
                # Step by step as in the original: over all steps at once, the last bit differs.
                activation = keras.layers.TimeDistributed(activation, name=name)
            self.activations[id(layer)] = activation
            config = with_setting(config, path, "linear")
            name = self.unique(f"{name}_linear")
        return super().from_config(layer, {**config, "name": name})

    def unique(self, name: str) -> str:
        """A name that Keras allows and that no other layer has."""
        name = name.replace("/", "_")
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _new_input(tensor: Any) -> Any:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=producer_name(tensor))


def _without_arrays(config: dict[str, Any]) -> dict[str, Any]:
    """Drop arrays of the original width: initial values, which are replaced anyway, and labels."""
    copy = dict(config)
    for name, value in config.items():
        if name.endswith("_initializer") and isinstance(value, dict):
            initial = value.get("config", {}).get("value", 0.0)
            if isinstance(initial, dict) or np.ndim(initial):
                copy[name] = "zeros"
        elif name == "labels":  # of a UnitMask; the edits of its weight set the kept labels
            copy[name] = None
        elif name == "layer" and isinstance(value, dict):
            copy[name] = {**value, "config": _without_arrays(value["config"])}
    return copy
