"""A Keras model built anew, layer by layer, from edited configurations."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from exporter.errors import ModelError
from exporter.models.keras.files import check_live
from exporter.models.keras.picture import draw

_VOCABULARY = {"StringLookup", "IntegerLookup", "TextVectorization", "Discretization"}
_REBUILD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)

Settings = Mapping[str, Mapping[str, Any]]  # layer's name -> configuration entries


@dataclass
class Rebuilt:
    """A new model with fresh variables.

    Attributes:
        pairs: each old layer with the new one.
        renamed: tensor inside an old layer -> the new layer that makes it.
    """

    model: Any
    pairs: list[tuple[Any, Any]]
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> Any:
        return structure(self.model)

    def tensor(self, name: str) -> Any:
        """The new model's symbolic tensor of an old name."""
        return draw(self.model).tensors[self.renamed.get(name, name)]


def structure(model: Any) -> Any:
    """The model's inputs as it wants to be called with: a tensor, a list, a dictionary."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def rebuild(model: Any, settings: Settings, split: AbstractSet[str] = frozenset()) -> Rebuilt:
    """Build a model anew; its variables hold initial values.

    Args:
        model: Functional or Sequential, built.
        settings: what changes in the layers' configurations.
        split: names of Dense layers whose activation shall become a layer of its own.

    Raises:
        ModelError: a layer that carries code, is not of Keras, or does not come back from its
            configuration.
    """
    check_live(model)
    builder = _Builder(settings, split)
    try:
        if isinstance(model, keras.Sequential) and not split:
            made = builder.sequential(model)
        else:
            made = builder.functional(model)
    except _REBUILD_ERRORS as error:
        line = str(error).strip().partition("\n")[0]
        raise ModelError(f"the model {model.name!r} cannot be rebuilt: {line}") from error
    return Rebuilt(made, builder.pairs, {f"{name}/linear": _inner(name) for name in split})


def _inner(name: str) -> str:
    """The name of a Dense whose activation layer took over its own."""
    return f"{name}_linear"


@dataclass
class _Builder:
    settings: Settings
    split: AbstractSet[str]
    pairs: list[tuple[Any, Any]] = field(default_factory=list)
    activations: dict[str, Any] = field(default_factory=dict)  # of split layers, by the new name

    def sequential(self, model: Any) -> Any:
        first = model.inputs[0]
        layers = [keras.Input(batch_shape=first.shape, dtype=first.dtype, name=first.name)]
        layers += [self.layer(layer) for layer in model.layers]
        return keras.Sequential(layers, name=model.name, trainable=model.trainable)

    def functional(self, model: Any) -> Any:
        """Through a view of the model that shares its layers: a clone would compile like it."""
        outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
        view = keras.Model(structure(model), outputs, name=model.name)
        made = keras.models.clone_model(
            view, clone_function=self.layer, call_function=self.call if self.split else None
        )
        if not model.trainable:  # setting it reaches every layer, and would thaw frozen ones
            made.trainable = False
        return made

    def layer(self, layer: Any) -> Any:
        """A new layer (or other operation) like this one, but for the settings."""
        if not isinstance(layer, keras.Layer):
            return type(layer).from_config(layer.get_config())
        config = layer.get_config()
        if type(layer).__name__ in _VOCABULARY:
            raise ModelError(
                f"{type(layer).__name__} {layer.name!r} cannot be rebuilt: its configuration may "
                "lack what it learnt",
                "prune the model that follows it",
            )
        config.update(self.settings.get(layer.name, {}))
        if layer.name in self.settings:
            _drop_initial_arrays(layer, config)
        if layer.name in self.split:
            self.take_apart(layer, config)
        new = type(layer).from_config(config)
        self.pairs.append((layer, new))
        return new

    def take_apart(self, layer: Any, config: dict[str, Any]) -> None:
        self.activations[_inner(layer.name)] = keras.layers.Activation.from_config(
            {"name": layer.name, "activation": config["activation"], "dtype": config["dtype"]}
        )
        config.update(name=_inner(layer.name), activation="linear")

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = layer(*args, **kwargs)
        behind = self.activations.get(layer.name)
        return result if behind is None else behind(result)


def _drop_initial_arrays(layer: Any, config: dict[str, Any]) -> None:
    """An initial value given as an array fits the old width only; the weights are set anyway."""
    for name in ("kernel_initializer", "bias_initializer"):
        initializer = getattr(layer, name, None)
        if np.ndim(getattr(initializer, "value", 0.0)):
            config[name] = "zeros"
