"""Load the weights of a `.keras` archive of TensorFlow 2.13 into a model of Keras 3.

That release wrote the weights of a model's layers into a group of another name, and numbered them
in another way: a layer with weights counts twice.
"""

from __future__ import annotations

import tempfile
from collections import Counter
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
    """Write the weights as Keras 3 does; False if the archive has no groups of that release."""
    with open_hdf5(path, ".keras") as old:
        if _OLD not in old:
            return False
        with h5py.File(target, "w") as new:
            _copy_layers(model, old, new)
    return True


def _copy_layers(model: Any, old: Any, new: Any) -> None:
    old_counts, new_counts = Counter[str](), Counter[str]()
    for layer in model.layers:
        kind = keras.src.utils.naming.to_snake_case(type(layer).__name__)
        source = f"{_OLD}/{_numbered(kind, old_counts[kind])}"
        target = f"{_NEW}/{_numbered(kind, new_counts[kind])}"
        old_counts[kind] += 2 if layer.weights else 1
        new_counts[kind] += 1
        if source in old:
            _copy_layer(layer, old[source], new.create_group(target))


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


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
