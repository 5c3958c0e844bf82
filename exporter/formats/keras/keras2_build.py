"""Build a Keras 3 model from the configuration of a Keras 2 model.

Keras 3 reads only a part of these configurations itself: it counts the calls of a model inside a
model from another number, and does not find tensors in the named arguments of a call. So the model
is built here, call by call, from layers that Keras 3 makes of repaired configurations (`keras2`).

A call in the configuration lists references, each to one output of another call:
`[layer, number of the call, number of the output, named arguments]`. The numbers of a layer's calls
start at 0; those of a model inside the model mostly start at 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from exporter.errors import ModelError
from exporter.formats.keras.keras2 import HINT_EXPORT, Config

MODELS = {"Functional", "Model", "Sequential"}
_CONSTANT = "_CONSTANT_VALUE"  # in the place of a layer's name
_MODULES = ("layers", "initializers", "regularizers", "constraints")
_RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM2D"}


def build(config: Config, source: str) -> Any:
    """Build a model without its weights.

    Args:
        config: repaired; its classes are checked.
        source: the file's name, for messages.

    Raises:
        ModelError: a call reads an output that no call makes, or needs an argument that Keras 3
            lacks.
    """
    return _Builder(source).layer(config)


class _Builder:
    def __init__(self, source: str) -> None:
        self.source = source
        self.shared: dict[int, Any] = {}  # number that the file gives to a shared object -> layer

    def layer(self, entry: Config) -> Any:
        """The layer or model of an entry; one object for all entries of a shared layer."""
        number = entry.get("shared_object_id")
        if number is not None and number in self.shared:
            return self.shared[number]
        new = self.new_layer(entry["class_name"], entry["config"])
        if number is not None:
            self.shared[number] = new
        return new

    def new_layer(self, kind: str, config: Config) -> Any:
        config = {name: value for name, value in config.items() if name != "batch_input_shape"}
        if kind == "Sequential":
            return self.sequential(config)
        if kind in MODELS:
            return _Functional(self, config).model()
        inner = config.get("layer")
        if isinstance(inner, dict) and inner.get("class_name") in MODELS:
            outer = {name: value for name, value in config.items() if name != "layer"}
            return getattr(keras.layers, kind)(self.layer(inner), **outer)
        parameters = inspect.signature(getattr(keras.layers, kind)).parameters.values()
        if not any(
            each.name == "trainable" or each.kind is each.VAR_KEYWORD for each in parameters
        ):
            config.pop("trainable", None)
        return keras.layers.deserialize(_with_modules({"class_name": kind, "config": config}))

    def sequential(self, config: Config) -> Any:
        layers = config["layers"]
        model = keras.Sequential(name=config["name"])
        for i, entry in enumerate(layers):
            settings = entry["config"]
            if entry["class_name"] == "InputLayer":
                model.add(_input(settings))
                continue
            if i == 0 and settings.get("batch_input_shape") is not None:
                model.add(_input({**settings, "name": f"{settings['name']}_input"}))
            model.add(self.layer(entry))
        if not model.built and config.get("build_input_shape"):
            model.build(tuple(config["build_input_shape"]))
        return model


class _Functional:
    """Repeats the calls of one Functional model."""

    def __init__(self, builder: _Builder, config: Config) -> None:
        self.builder = builder
        self.config = config
        self.entries: Mapping[str, Config] = {_name(entry): entry for entry in config["layers"]}
        self.layers: dict[str, Any] = {}
        self.outputs: dict[tuple[str, int], list[Any]] = {}  # (layer, call) -> its outputs
        self.first = self.first_calls()

    def first_calls(self) -> Mapping[str, int]:
        """The number of each layer's first call: every call that a file lists is read."""
        first: dict[str, int] = {}
        ends = [self.config["input_layers"], self.config["output_layers"]]
        calls = [entry.get("inbound_nodes", []) for entry in self.entries.values()]
        for name, number in self.references([*ends, *calls]):
            first[name] = min(number, first.get(name, number))
        return first

    def references(self, value: Any) -> Iterator[tuple[str, int]]:
        if self.is_reference(value):
            yield value[0], value[1]
            value = value[3:]
        if isinstance(value, list | dict):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from self.references(inner)

    def is_reference(self, value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) in {3, 4}
            and isinstance(value[0], str)
            and (value[0] in self.entries or value[0] == _CONSTANT)
            and isinstance(value[1], int)
        )

    def model(self) -> Any:
        waiting: dict[str, list[Any]] = {}
        for name, entry in self.entries.items():
            if entry["class_name"] == "InputLayer":
                self.outputs[name, 0] = [_input(entry["config"])]
            else:
                self.layers[name] = self.builder.layer(entry)
                waiting[name] = list(entry.get("inbound_nodes", []))
        done = dict.fromkeys(waiting, 0)  # calls of each layer
        while any(waiting.values()):
            ready = [name for name in waiting if waiting[name] and self.is_known(waiting[name][0])]
            if not ready:
                missing = ", ".join(repr(name) for name in waiting if waiting[name])
                raise ModelError(
                    f"{self.builder.source}: the calls of {missing} read outputs that no call makes"
                )
            for name in ready:
                self.outputs[name, done[name]] = self.call(name, waiting[name].pop(0))
                done[name] += 1
        inputs, outputs = self.config["input_layers"], self.config["output_layers"]
        model = keras.Model(self.value(inputs), self.value(outputs), name=self.config.get("name"))
        if self.config.get("trainable") is False:  # True would unfreeze frozen layers
            model.trainable = False
        return model

    def is_known(self, call: Any) -> bool:
        return all(self.key(*found) in self.outputs for found in self.references(call))

    def key(self, name: str, number: int) -> tuple[str, int]:
        return name, number - self.first[name]

    def call(self, name: str, call: Any) -> list[Any]:
        """Repeat a call of a layer; returns its outputs."""
        layer, named = self.layers[name], self.named_arguments(call)
        given = self.value(call)
        if type(layer).__name__ in _RECURRENT and isinstance(given, list):
            given, *states = given
            named["initial_state"] = states
        try:
            results: list[Any] = keras.tree.flatten(layer(given, **named))
        except TypeError as error:
            used = ", ".join(named)
            raise ModelError(
                f"{self.builder.source}: {type(layer).__name__} {name!r} is called with {used}, "
                f"and Keras 3 reports: {str(error).partition(chr(10))[0]}",
                HINT_EXPORT,
            ) from error
        return results

    def named_arguments(self, call: Any) -> dict[str, Any]:
        """Every reference of a call repeats its named arguments; None is the default of all."""
        while isinstance(call, list | dict) and call and not self.is_reference(call):
            call = next(iter(call.values())) if isinstance(call, dict) else call[0]
        named = call[3] if isinstance(call, list) and len(call) > 3 else {}  # noqa: PLR2004
        return {name: self.value(value, ()) for name, value in named.items() if value is not None}

    def value(self, value: Any, unwrapped: tuple[type, ...] = (list,)) -> Any:
        """Tensors in the place of references; a list of one reference is that tensor."""
        if self.is_reference(value):
            name, number, output, *_ = value
            return output if name == _CONSTANT else self.outputs[self.key(name, number)][output]
        if isinstance(value, dict):
            return {name: self.value(inner, ()) for name, inner in value.items()}
        if not isinstance(value, list):
            return value
        inner = [self.value(each, ()) for each in value]
        return inner[0] if unwrapped and len(inner) == 1 else inner


def _name(entry: Config) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _input(config: Config) -> Any:
    shape = config.get("batch_shape") or config.get("batch_input_shape") or (None,)
    options = {name: True for name in ("sparse", "ragged") if config.get(name)}
    dtype = _value_dtype(config.get("dtype", "float32"))
    return keras.Input(batch_shape=shape, dtype=dtype, name=config.get("name"), **options)


def _value_dtype(policy: Any) -> str:
    """The dtype of the values that a layer with this policy takes."""
    return str(policy).removeprefix("mixed_") if isinstance(policy, str) else "float32"


def _with_modules(config: Any) -> Any:
    """Name the module of Keras 3 for each object, in the place of one of Keras 2 or none."""
    if isinstance(config, list):
        return [_with_modules(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    copy = {name: _with_modules(value) for name, value in config.items()}
    kind = copy.get("class_name")
    found = [name for name in _MODULES if hasattr(getattr(keras, name), str(kind))]
    if found and "config" in copy:
        return {"module": f"keras.{found[0]}", "class_name": kind, "config": copy["config"]}
    return copy
