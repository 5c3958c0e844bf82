"""SavedModel folders: what TensorFlow and Keras export, a graph with its weights beside it.

Importing this package does not load TensorFlow; `open_file` does.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from exporter.formats.model import Model
from exporter.formats.savedmodel.files import files_of

__all__ = ["files_of", "open_file"]


def open_file(path: Path) -> Model:
    """Open a SavedModel folder in this process; see `model.open_file`."""
    model: Model = import_module("exporter.formats.savedmodel.model").open_file(path)
    return model
