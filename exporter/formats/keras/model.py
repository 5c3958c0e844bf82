"""A Keras model as one of the kinds: drawn, pruned, run and written in this process."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

import exporter.layers  # noqa: F401 - Keras finds a class of ours only after it was defined
from exporter.errors import ModelError, UsageError
from exporter.formats.keras.apply import apply_edits
from exporter.formats.keras.archive import write_archive
from exporter.formats.keras.calls import input_name
from exporter.formats.keras.draw import Picture, check_structure, draw, output_names
from exporter.formats.keras.files import (
    OWN,
    Container,
    Hdf5,
    check_file,
    check_hdf5,
    check_weights,
    training_of,
)
from exporter.formats.keras.keras2 import is_keras_2, repaired
from exporter.formats.keras.rebuild import structure
from exporter.formats.keras.training import compile_as_told, make_ready
from exporter.formats.model import RunOptions
from exporter.graph import Array, Graph
from exporter.graph.edits import AddOutput, Plan
from exporter.remap import Remap

PRECISIONS: Mapping[str, str] = {
    "float32": "fp32",
    "float16": "fp16",
    "mixed_float16": "fp16",
    "bfloat16": "bf16",
    "mixed_bfloat16": "bf16",
    "float64": "fp64",
}
_LOAD_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    ImportError,
    NotImplementedError,
    RuntimeError,
)


class KerasModel:
    """A live Keras model; it is never changed, and shares no variable with what `apply` gives.

    Unless that is asked for: with `share_weights` what changes in one model's kept layers changes
    in the other's.

    Attributes:
        model: the `keras.Model`.
        outputs: names of its outputs; Keras', but for those that a plan has added.
        precision: in what the layers with weights compute; where they differ, the coarsest float,
            or "mixed".
        remap: Keras files have no place for it; it is written beside them.
    """

    kind = "keras"

    def __init__(
        self,
        model: Any,
        *,
        name: str | None = None,
        sha256: str | None = None,
        remap: Remap | None = None,
        outputs: tuple[str, ...] = (),
        share_weights: bool = False,
    ) -> None:
        """Wrap a built Functional or Sequential model (ModelError otherwise)."""
        check_structure(model)
        self.outputs = outputs or output_names(model)
        self.model = model
        self.name = name or str(model.name)
        self.sha256 = sha256
        self.remap = remap
        self.precision = _precision(model)
        self._share_weights = share_weights

    @cached_property
    def picture(self) -> Picture:
        """The graph and what each of its names stands for in Keras."""
        return draw(self.model, self.outputs)

    def graph(self) -> Graph:
        return self.picture.graph

    def apply(self, plan: Plan) -> KerasModel:
        share = self._share_weights
        made = apply_edits(self.model, self.picture, plan.edits, share_weights=share)
        added = tuple(edit.name for edit in plan.edits if isinstance(edit, AddOutput))
        remap = plan.remap or self.remap
        return KerasModel(made, name=self.name, remap=remap, outputs=self.outputs + added)

    def runner(self, options: RunOptions) -> KerasRunner:  # noqa: ARG002 - Keras takes no options
        return KerasRunner(self.model, self.outputs)

    def write(self, path: Path) -> None:
        """Write `.keras`, or HDF5 where the suffix asks for it."""
        make_ready(self.model)
        if path.suffix.lower() in {".h5", ".hdf5"}:
            self.model.save(path)
        else:
            write_archive(self.model, path)


class KerasRunner:
    """A Keras model that is called, not in training; thread counts are left to its backend."""

    def __init__(self, model: Any, outputs: tuple[str, ...]) -> None:
        self.engine = f"keras {keras.__version__}"
        self._model = model
        self._names = outputs

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = keras.tree.map_structure(
            lambda tensor: _value(inputs, tensor), structure(self._model)
        )
        results = keras.tree.flatten(self._model(values, training=False))
        return {
            name: np.asarray(keras.ops.convert_to_numpy(result))
            for name, result in zip(self._names, results, strict=True)
        }


def _precision(model: Any) -> str:
    policies = {layer.dtype_policy.name for layer in _holders(model)}
    found = {PRECISIONS.get(policy, policy) for policy in policies}
    if len(found) > 1 and not found <= {*PRECISIONS.values()}:
        return "mixed"
    return min(found, key=_COARSEST.index) if len(found) > 1 else next(iter(found), "fp32")


_COARSEST = ("bf16", "fp16", "fp32", "fp64")


def _holders(model: Any) -> Iterator[Any]:
    """The layers that hold weights themselves, not in layers inside them."""
    for layer in model._flatten_layers():  # noqa: SLF001 - Keras has no public way to inner layers
        inside = layer._flatten_layers(include_self=False)  # noqa: SLF001 - likewise
        if layer.weights and not any(inner.weights for inner in inside):
            yield layer


def _value(inputs: Mapping[str, Array], tensor: Any) -> Array:
    name = input_name(tensor)
    if name not in inputs:
        raise UsageError(f"there are no values for the input {name!r}")
    return np.asarray(inputs[name], tensor.dtype)


def open_file(path: Path) -> KerasModel:
    """Open a `.keras` or `.h5` file in this process.

    What a `.keras` file was compiled with is read apart: what of it is not to be had is left out.
    Nothing in the file is executed. A damaged `.h5` can take the process down.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, foreign, with Lambda or custom layers, or not to be loaded.
    """
    path = Path(path)
    container = check_file(path)
    held = check_contents(path, container)
    try:
        if held is not None and is_keras_2(held.version):
            model = _load_keras_2(path.absolute(), repaired(held.config, path.name))
        else:
            with _suffixed(path.absolute(), container) as fitting:
                model = keras.saving.load_model(fitting, compile=False, safe_mode=True)
        if held is None:
            compile_as_told(model, training_of(path))
    except _LOAD_ERRORS as error:
        raise ModelError(
            f"Keras cannot load {path.name}: {_reason(error)}",
            f"save it anew with Keras {keras.__version__}, which reads it here",
        ) from error
    return KerasModel(model, name=path.name, sha256=sha256_of(path))


def check_contents(path: Path, container: Container) -> Hdf5 | None:
    """Check what HDF5 holds in a file whose container was checked (ModelError)."""
    if container == ".h5":
        return check_hdf5(path, _is_known_layer)
    check_weights(path)
    return None


def _load_keras_2(path: Path, config: Any) -> Any:
    """Build the model from its repaired configuration, then give it the file's weights."""
    kind = keras.Sequential if config["class_name"] == "Sequential" else keras.Model
    with warnings.catch_warnings(), _suffixed(path, ".h5") as fitting:
        warnings.simplefilter("ignore", UserWarning)  # Keras dislikes how its past self wrote
        model = kind.from_config(config["config"])
        model.load_weights(fitting)
    return model


@contextmanager
def _suffixed(path: Path, container: Container) -> Iterator[Path]:
    """Keras goes by the suffix: a file of another gets a link with the right one."""
    if path.suffix in {".keras": {".keras"}, ".h5": {".h5", ".hdf5"}}[container]:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{container}"
        link.symlink_to(path)
        yield link


def _reason(error: Exception) -> str:
    """The first sentence of the innermost message; Keras wraps it and appends configurations."""
    inner = str(error).rpartition("Exception encountered:")[2]
    return inner.strip().partition("\n")[0].partition(". ")[0]


def _is_known_layer(name: str) -> bool:
    """HDF5 files call a class that is not of Keras by the name under which it is registered."""
    own = name.removeprefix("exporter>") in OWN
    return own or hasattr(keras.layers, name) or name in {"Functional", "Sequential", "Model"}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
