"""Load a SavedModel after its graph was checked."""

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

from exporter.errors import ModelError, UsageError, first_line
from exporter.formats.savedmodel.files import GRAPH, check_folder
from exporter.formats.savedmodel.validate import check_operators

DEFAULT = "serving_default"
_LOAD_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError),
    tf.errors.OpError,
)


def load(folder: Path, signature: str | None = None) -> tuple[Any, Any]:
    """Load a SavedModel; its folder is not needed afterwards.

    Args:
        signature: name of the signature; None for serving_default, or the only one.

    Returns:
        The loaded object, which owns the variables, and the signature: a function of named tensors.

    Raises:
        UsageError: no such signature, or several to choose from.
        ModelError: damaged, of TensorFlow 1, without a signature, or with an operator that does
            more than compute.
    """
    check_folder(folder)
    proto = _read(folder)
    graph = proto.meta_graphs[0]
    check_operators(graph, folder.name)
    names = [name for name in graph.signature_def if not name.startswith("__saved_model")]
    chosen = _choose(names, signature, folder.name)
    try:
        with _without_slots(folder, proto) as ready:
            loaded = tf.saved_model.load(str(ready))
        return loaded, loaded.signatures[chosen]
    except _LOAD_ERRORS as error:
        raise ModelError(f"TensorFlow cannot load {folder.name}: {first_line(error)}") from error


@contextmanager
def _without_slots(folder: Path, proto: Any) -> Iterator[Path]:
    """The folder, or a copy without the slot variables of an optimizer.

    Keras 2 saved them with every compiled model, and TensorFlow can restore them only to an
    optimizer of Keras 2: otherwise it fails.
    """
    objects = proto.meta_graphs[0].object_graph_def.nodes
    optimizers = [each for each in objects if each.slot_variables]
    if not optimizers:
        yield folder
        return
    for each in optimizers:
        del each.slot_variables[:]
    with tempfile.TemporaryDirectory(prefix="exporter-") as temporary:
        ready = Path(temporary, folder.name)
        shutil.copytree(folder, ready, copy_function=_link)
        (ready / GRAPH).unlink()
        (ready / GRAPH).write_bytes(proto.SerializeToString())
        yield ready


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it if the file system cannot."""
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
            f"{folder.name} is a SavedModel in the format of TensorFlow 1",
            "load it with TensorFlow 1 and save it again with tf.saved_model.save",
        )
    return proto


def _choose(names: Sequence[str], wanted: str | None, source: str) -> str:
    known = ", ".join(sorted(names))
    if not names:
        raise ModelError(
            f"{source} has no signature, so its inputs and outputs are not known",
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
            f"{source} has several signatures, and none is named {DEFAULT}",
            f"choose with --signature: {known}",
        )
    return names[0]
