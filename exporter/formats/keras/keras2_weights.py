"""Load the weights of a `.keras` archive of TensorFlow 2.12 to 2.14 into a model of Keras 3.

These releases wrote the weights of a model's layers into a group of another name. Before 2.14, they
numbered them in another way: a layer with weights counts twice.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import h5py
import keras

from exporter.formats.keras.files import open_hdf5
from exporter.formats.keras.keras2_build import MODELS

_OLD, _NEW = "_layer_checkpoint_dependencies", "layers"


def load_weights(model: Any, path: Path) -> None:
    """Load the weights of a `.keras` or `.h5` file of Keras 2 (raises as Keras does)."""
    with tempfile.TemporaryDirectory() as folder:
        renamed = Path(folder) / "model.weights.h5"
        if path.suffix == ".keras" and _rename(model, path, renamed):
            model.load_weights(renamed)
        else:
            model.load_weights(path)


def _rename(model: Any, path: Path, target: Path) -> bool:
    """Write the weights as Keras 3 does; False if the archive has no groups of these releases."""
    with open_hdf5(path, ".keras") as old:
        if _OLD not in old:
            return False
        with h5py.File(target, "w") as new:
            _copy_layers(model, old, new)
    return True


def _copy_layers(model: Any, old: Any, new: Any) -> None:
    """Copy the groups of the layers of a model: of each kind, in the order of their numbers."""
    layers: dict[str, list[Any]] = {}
    for layer in model.layers:
        kind = keras.src.utils.naming.to_snake_case(type(layer).__name__)
        layers.setdefault(kind, []).append(layer)
    for kind, those in layers.items():
        pattern = re.compile(rf"{kind}(?:_(\d+))?")
        found = ((pattern.fullmatch(name), name) for name in old[_OLD])
        names = [name for _, name in sorted((int(m[1] or 0), name) for m, name in found if m)]
        if len(names) != len(those):
            continue  # Keras reports the layers whose weights are missing
        for number, (layer, name) in enumerate(zip(those, names, strict=True)):
            target = f"{_NEW}/{kind}_{number}" if number else f"{_NEW}/{kind}"
            _copy_layer(layer, old[_OLD][name], new.create_group(target))


def _copy_layer(layer: Any, old: Any, new: Any) -> None:
    """Copy a layer's group; of a wrapper, also the group of the model in it."""
    if type(layer).__name__ in MODELS:
        _copy_layers(layer, old, new)
        return
    for name, item in old.items():
        inner = getattr(layer, name, None)
        if type(inner).__name__ in MODELS:
            _copy_layer(inner, item, new.create_group(name))
        else:
            old.copy(item, new, name)
