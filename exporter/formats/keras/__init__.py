"""Keras models, in this process: `.keras` and `.h5` files, and live ones.

Importing this package loads neither Keras nor TensorFlow; `open_file` does.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from exporter.formats.model import Model


def open_file(path: Path) -> Model:
    """Open a Keras file in this process; see `exporter.formats.keras.model.open_file`."""
    model: Model = import_module("exporter.formats.keras.model").open_file(path)
    return model


def files_of(path: Path) -> tuple[Path, ...]:
    """A Keras file holds all of its weights."""
    return (path,)
