"""Load a SavedModel, after its graph was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from exporter.errors import ModelError, UsageError
from exporter.models.savedmodel.files import GRAPH, check_folder
from exporter.models.savedmodel.operators import check_operators

DEFAULT = "serving_default"
_LOAD_ERRORS = (
    tf.errors.OpError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    NotImplementedError,
    RuntimeError,
)


def load(folder: Path, signature: str | None = None) -> tuple[Any, Any]:
    """Load a SavedModel; its folder is not needed afterwards.

    Args:
        signature: which of its signatures; None for serving_default, or the only one.

    Returns:
        What holds the variables, and the signature: a function of named tensors.

    Raises:
        UsageError: no such signature, or several to choose from.
        ModelError: damaged, of TensorFlow 1, without a signature, or a graph that reaches outside
            of itself.
    """
    check_folder(folder)
    graph = _read(folder)
    check_operators(graph, folder.name)
    named = [name for name in graph.signature_def if not name.startswith("__saved_model")]
    chosen = _chosen(named, signature, folder.name)
    try:
        loaded = tf.saved_model.load(str(folder))
        return loaded, loaded.signatures[chosen]
    except _LOAD_ERRORS as error:
        line = str(error).strip().partition("\n")[0]
        raise ModelError(f"TensorFlow cannot load {folder.name}: {line}") from error


def _read(folder: Path) -> Any:
    try:
        proto = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes())
    except DecodeError as error:
        raise ModelError(f"{folder / GRAPH} is damaged or truncated") from error
    if len(proto.meta_graphs) != 1 or not proto.meta_graphs[0].HasField("object_graph_def"):
        raise ModelError(
            f"{folder.name} is a SavedModel in the form of TensorFlow 1",
            "load it there, and save it anew with tf.saved_model.save",
        )
    return proto.meta_graphs[0]


def _chosen(names: Sequence[str], wanted: str | None, source: str) -> str:
    known = ", ".join(sorted(names))
    if not names:
        raise ModelError(
            f"{source} has no signature: nothing says what goes in and comes out",
            "save it with signatures={'serving_default': ...}, or export it from Keras",
        )
    if wanted is not None and wanted not in names:
        raise UsageError(f"{source} has no signature {wanted!r}", f"it has {known}")
    if wanted is not None:
        return wanted
    if DEFAULT in names:
        return DEFAULT
    if len(names) > 1:
        raise UsageError(
            f"{source} has several signatures, and none is called {DEFAULT}",
            f"choose with --signature: {known}",
        )
    return names[0]
