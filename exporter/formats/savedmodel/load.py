"""Load a SavedModel, after its graph was looked at."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from exporter.errors import ModelError, UsageError
from exporter.formats.savedmodel.files import GRAPH, check_folder
from exporter.formats.savedmodel.operators import check_operators

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
    whole = _read(folder)
    graph = whole.meta_graphs[0]
    check_operators(graph, folder.name)
    named = [name for name in graph.signature_def if not name.startswith("__saved_model")]
    chosen = _chosen(named, signature, folder.name)
    try:
        with _without_slots(folder, whole) as ready:
            loaded = tf.saved_model.load(str(ready))
        return loaded, loaded.signatures[chosen]
    except _LOAD_ERRORS as error:
        line = str(error).strip().partition("\n")[0]
        raise ModelError(f"TensorFlow cannot load {folder.name}: {line}") from error


@contextmanager
def _without_slots(folder: Path, whole: Any) -> Iterator[Path]:
    """The folder, or one like it whose optimizer has lost its slots.

    Keras 2 saved them with every model that was compiled, and TensorFlow gives them back only to an
    optimizer of Keras 2: without one it fails.
    """
    objects = whole.meta_graphs[0].object_graph_def.nodes
    optimizers = [each for each in objects if each.slot_variables]
    if not optimizers:
        yield folder
        return
    for each in optimizers:
        del each.slot_variables[:]
    with tempfile.TemporaryDirectory(prefix="exporter-") as made:
        ready = Path(made, folder.name)
        shutil.copytree(folder, ready, copy_function=_linked)
        (ready / GRAPH).unlink()
        (ready / GRAPH).write_bytes(whole.SerializeToString())
        yield ready


def _linked(source: str, target: str) -> None:
    """The same file under another name, or a copy where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


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
    return proto


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
