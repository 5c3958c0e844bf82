"""A Keras model built anew, layer by layer, from edited configurations.

1. As it is: models in the model stay models, Sequential ones Sequential.
2. Flat, so that any inner tensor can be returned: every call is made once more on new tensors,
   those of models in the model too. A layer whose values before its own activation are wanted
   loses the activation; a layer behind it takes over the activation and the name.
3. Where weights are shared, the first way, but for layers and models in the model that hold weights
   and do not change: those are the same objects in both models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.formats.keras.calls import Call, follow, input_name, is_plain_model
from exporter.formats.keras.files import check_live
from exporter.formats.keras.settings import entry_of, with_entry

_VOCABULARY = {"StringLookup", "IntegerLookup", "TextVectorization", "Discretization"}
_REBUILD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)

Settings = Mapping[int, Mapping[str, Any]]  # identity of a layer -> path in its configuration
Split = Mapping[int, str]  # identity of a layer -> path to its activation


@dataclass
class Rebuilt:
    """A new model with fresh variables.

    Attributes:
        pairs: each old layer with the new one.
        tensors: name -> symbolic tensor of the new model; filled by `rebuild_flat` alone.
    """

    model: Any
    pairs: list[tuple[Any, Any]]
    tensors: dict[str, Any] = field(default_factory=dict)


def structure(model: Any) -> Any:
    """The model's inputs as it wants to be called with: a tensor, a list, a dictionary."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def rebuild(model: Any, settings: Settings, changed: AbstractSet[int] | None = None) -> Rebuilt:
    """Build a model anew; its variables hold initial values.

    Args:
        model: Functional or Sequential, built.
        settings: what changes in the layers' configurations; a layer that is listed has weights of
            other shapes.
        changed: identities of the layers whose weights change, where the others' are to be shared;
            None to share nothing.

    Raises:
        ModelError: a layer that carries code, is not of Keras, or does not come back from its
            configuration.
    """
    check_live(model)
    builder = _Builder(settings, None if changed is None else {*changed, *settings})
    flags = [(layer, layer.trainable) for layer in model._flatten_layers()]  # noqa: SLF001 - Keras has no public way to inner layers
    try:
        made = builder.model(model)
    except _REBUILD_ERRORS as error:
        raise _cannot(model, error) from error
    for layer, trainable in flags:  # a shared one may have been thawed in a frozen model
        if layer.trainable != trainable:
            layer.trainable = trainable
    return Rebuilt(made, builder.pairs)


def rebuild_flat(model: Any, settings: Settings, split: Split) -> Rebuilt:
    """Build a model anew as a Functional one without models in it.

    Args:
        settings: as for `rebuild`.
        split: layers whose activation shall become a layer of its own.

    Raises:
        ModelError: as `rebuild`.
    """
    check_live(model)
    builder = _FlatBuilder(settings, split)
    try:
        made = builder.flat(model)
    except _REBUILD_ERRORS as error:
        raise _cannot(model, error) from error
    return Rebuilt(made, builder.pairs, builder.tensors)


def _cannot(model: Any, error: Exception) -> ModelError:
    line = str(error).strip().partition("\n")[0]
    return ModelError(f"the model {model.name!r} cannot be rebuilt: {line}")


@dataclass
class _Builder:
    settings: Settings
    changed: AbstractSet[int] | None = None  # None: nothing is shared
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    made: dict[int, Any] = field(default_factory=dict)  # one new layer for all calls of an old one

    def model(self, model: Any) -> Any:
        if isinstance(model, keras.Sequential):
            return self.sequential(model)
        return self.functional(model)

    def sequential(self, model: Any) -> Any:
        layers = [_new_input(model.inputs[0])]
        layers += [self.layer(layer) for layer in model.layers]
        return keras.Sequential(layers, name=model.name, trainable=model.trainable)

    def functional(self, model: Any) -> Any:
        """Through a view of the model that shares its layers: a clone would compile like it."""
        view = keras.Model(structure(model), model.output, name=model.name)
        given = keras.tree.map_structure(_new_input, structure(model))
        made = keras.models.clone_model(view, input_tensors=given, clone_function=self.layer)
        if not model.trainable:  # setting it reaches every layer, and would thaw frozen ones
            made.trainable = False
        return made

    def layer(self, layer: Any) -> Any:
        """A new layer (or other operation) like this one, but for the settings."""
        if self.shares(layer):
            return layer
        if id(layer) not in self.made:
            self.made[id(layer)] = self.model(layer) if is_plain_model(layer) else self.one(layer)
        return self.made[id(layer)]

    def shares(self, layer: Any) -> bool:
        """Is this a layer, or a model in the model, that holds weights and does not change?"""
        if self.changed is None or not getattr(layer, "weights", None):
            return False
        inner = layer._flatten_layers()  # noqa: SLF001 - Keras has no public way to inner layers
        return not any(id(each) in self.changed for each in inner)

    def one(self, layer: Any) -> Any:
        """A new layer that is no model, or another operation."""
        config = layer.get_config()
        if type(layer).__name__ in _VOCABULARY:
            raise ModelError(
                f"{type(layer).__name__} {layer.name!r} cannot be rebuilt: its configuration may "
                "lack what it learnt",
                "prune the model that follows it",
            )
        if id(layer) in self.settings:
            config = _without_arrays(config)
        for path, value in self.settings.get(id(layer), {}).items():
            config = with_entry(config, path, value)
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
        self.call = ""  # the one that is being made
        self.behind: dict[int, Any] = {}  # layer -> the activation that it has lost

    def flat(self, model: Any) -> Any:
        given = keras.tree.map_structure(_new_input, structure(model))
        inputs = keras.tree.flatten(given)
        self.tensors.update((input_name(tensor), tensor) for tensor in inputs)
        self.taken.update(self.tensors)
        results = follow(model, inputs, self.visit)
        return keras.Model(given, results, name=model.name)

    def visit(self, name: str, call: Call, values: Mapping[int, Any]) -> Sequence[Any]:
        """Make a call once more; gives the new tensors."""
        self.call = name
        new = self.layer(call.operation)
        positional, named = call.filled(values)
        results: list[Any] = keras.tree.flatten(new(*positional, **named))
        if id(call.operation) in self.behind:
            self.tensors[f"{name}/linear"] = results[0]
            results = [self.behind[id(call.operation)](results[0])]
        for i, result in enumerate(results):
            self.tensors[f"{name}:{i}" if i else name] = result
        return results

    def from_config(self, layer: Any, config: dict[str, Any]) -> Any:
        """Under a name that is unique in the flat model; without its activation if it is split."""
        name, place = self.unique(self.call), self.split.get(id(layer))
        if place is not None:
            entries = {"name": name, "dtype": config["dtype"]}
            entries["activation"] = entry_of(config, place)
            activation = keras.layers.Activation.from_config(entries)
            if isinstance(layer, keras.layers.TimeDistributed):
                # Step by step as before: softmax over all steps at once differs in the last bit.
                activation = keras.layers.TimeDistributed(activation, name=name)
            self.behind[id(layer)] = activation
            config = with_entry(config, place, "linear")
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
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=input_name(tensor))


def _without_arrays(config: dict[str, Any]) -> dict[str, Any]:
    """Initial values given as arrays fit the old width only; the weights are set anyway."""
    made = dict(config)
    for name, value in config.items():
        if name.endswith("_initializer") and isinstance(value, dict):
            number = value.get("config", {}).get("value", 0.0)
            if isinstance(number, dict) or np.ndim(number):
                made[name] = "zeros"
        elif name == "labels":  # of a UnitMask, one a unit; its own cut tells those that stay
            made[name] = None
        elif name == "layer" and isinstance(value, dict):
            made[name] = {**value, "config": _without_arrays(value["config"])}
    return made
