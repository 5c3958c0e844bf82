"""The configuration that Keras 2 writes for a model, made from a live model of Keras 3.

Their call graphs were compared once with files of TensorFlow 2.15; `make keras2` opens files that
real releases write, and does not use these.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from tests.builders.keras_models import write_old

Config = dict[str, Any]


def keras_2_config(model: Any) -> Config:
    """The model's configuration in the form of Keras 2.

    A call is a list of references `[layer, call, output, named arguments]`; the calls of a model
    inside the model are counted from 1; single inputs and outputs are lists of one.
    """
    if isinstance(model, keras.Sequential):
        entries = [_input_entry(model.inputs[0]), *map(_entry, model.layers)]
        return {"class_name": "Sequential", "config": {"name": model.name, "layers": entries}}
    written = model.get_config()
    models = {layer.name for layer in model.layers if isinstance(layer, keras.Model)}
    entries = []
    for layer, entry in zip(model.layers, written["layers"], strict=True):
        old = _input_entry(layer.output) if _is_input(layer) else _entry(layer)
        old["inbound_nodes"] = [_call(node, models) for node in entry["inbound_nodes"]]
        entries.append({**old, "name": layer.name})
    ends = {
        "input_layers": _ends(model.inputs, set()),
        "output_layers": _ends(model.outputs, models),
    }
    config = {"name": model.name, "trainable": model.trainable, "layers": entries, **ends}
    return {"class_name": "Functional", "config": config}


def _is_input(layer: Any) -> bool:
    return isinstance(layer, keras.layers.InputLayer)


def _input_entry(tensor: Any) -> Config:
    name = tensor._keras_history.operation.name
    settings = {"batch_input_shape": list(tensor.shape), "dtype": tensor.dtype, "name": name}
    return {"class_name": "InputLayer", "config": {**settings, "sparse": False, "ragged": False}}


def _entry(layer: Any) -> Config:
    if isinstance(layer, keras.Model):
        return keras_2_config(layer)
    settings = {k: v for k, v in layer.get_config().items() if not isinstance(v, dict)}
    if "layer" in layer.get_config():
        settings["layer"] = _entry(layer.layer)
    if type(layer).__name__ == "BatchNormalization":
        settings["axis"] = [layer.axis]
    return {"class_name": type(layer).__name__, "config": settings}


def _call(node: Config, models: set[str]) -> list[Any]:
    first, *_ = node["args"]
    states = node["kwargs"].pop("initial_state", [])
    named = {name: _reference(value, models) for name, value in node["kwargs"].items()}
    tensors = [*(first if isinstance(first, list) else [first]), *states]
    return [[*_reference(tensor, models), named] for tensor in tensors]


def _reference(value: Any, models: set[str]) -> Any:
    if not isinstance(value, dict) or value.get("class_name") != "__keras_tensor__":
        return value
    name, call, output = value["config"]["keras_history"]
    return [name, call + (name in models), output]


def _ends(tensors: list[Any], models: set[str]) -> list[Any]:
    found = [tuple(tensor._keras_history) for tensor in tensors]
    return [[layer.name, call + (layer.name in models), output] for layer, call, output in found]


def write_keras_2(path: Path, model: Any, config: Config, version: str = "2.15.0") -> None:
    """Write the model as `.h5` or `.keras` (by the suffix) with this configuration."""
    if path.suffix == ".h5":
        write_old(path, model, config, version)
        return
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = json.dumps(config).encode()
    members["metadata.json"] = json.dumps({"keras_version": version}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
