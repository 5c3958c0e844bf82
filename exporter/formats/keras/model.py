"""A Keras model that fulfills the protocol `Model`, in this process."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

import exporter.layers  # noqa: F401 - registers our layer classes with Keras
from exporter.errors import ModelError, UsageError
from exporter.formats.keras.apply import apply_edits
from exporter.formats.keras.archive import write_archive
from exporter.formats.keras.calls import all_layers, producer_name
from exporter.formats.keras.draw import Drawing, check_structure, draw, output_names
from exporter.formats.keras.files import Container, KerasFile
from exporter.formats.keras.keras2 import HINT_EXPORT, is_keras_2, repaired
from exporter.formats.keras.keras2_build import build
from exporter.formats.keras.keras2_weights import load_weights
from exporter.formats.keras.rebuild import input_structure
from exporter.formats.keras.training import build_optimizer, compile_from_config
from exporter.formats.keras.validate import OUR_CLASSES, check_file
from exporter.formats.model import RunOptions, in_turn
from exporter.graph import Array, Graph
from exporter.graph.edits import AddOutput, Plan, RemoveOutputs
from exporter.remap import Remap

PRECISIONS: Mapping[str, str] = {  # dtype policy -> precision
    "float32": "fp32",
    "float16": "fp16",
    "mixed_float16": "fp16",
    "bfloat16": "bf16",
    "mixed_bfloat16": "bf16",
    "float64": "fp64",
}
_COARSEST_FIRST = ("bf16", "fp16", "fp32", "fp64")
_LOAD_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError),
    *(OSError, ImportError, RuntimeError),
)


class KerasModel:
    """A live Keras model, which is never changed.

    `apply` returns a model that shares no variable with this one. With `share_weights`, both share
    the layers that the plan does not change, so that training one changes the other.

    Attributes:
        model: the `keras.Model`.
        outputs: names of its outputs, as in Keras; outputs that a plan added have the plan's names.
        precision: in which the layers with weights compute; if they differ, the coarsest float, or
            "mixed".
        remap: not part of a Keras file; it is written to a file next to it.
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
    def drawing(self) -> Drawing:
        """The graph, and the Keras object of each name in it."""
        return draw(self.model, self.outputs)

    def graph(self) -> Graph:
        return self.drawing.graph

    @in_turn
    def apply(self, plan: Plan) -> KerasModel:
        removed = {n for e in plan.edits if isinstance(e, RemoveOutputs) for n in e.outputs}
        if removed:
            return self._without(removed).apply(Plan((), plan.remap or self.remap))
        pruned = apply_edits(
            self.model, self.drawing, plan.edits, share_weights=self._share_weights
        )
        added = tuple(edit.name for edit in plan.edits if isinstance(edit, AddOutput))
        remap = plan.remap or self.remap
        return KerasModel(pruned, name=self.name, remap=remap, outputs=self.outputs + added)

    def _without(self, removed: Collection[str]) -> KerasModel:
        """The same layers without some outputs; a single output is returned without a list."""
        model = self.model
        pairs = zip(self.outputs, model.outputs, strict=True)
        kept = {name: tensor for name, tensor in pairs if name not in removed}
        outputs: Any = list(kept.values())
        if isinstance(model.output, dict):
            ids = set(map(id, outputs))
            outputs = {key: each for key, each in model.output.items() if id(each) in ids}
        elif len(outputs) == 1:
            (outputs,) = outputs
        view = keras.Model(input_structure(model), outputs, name=model.name)
        return KerasModel(view, name=self.name, outputs=tuple(kept))

    def runner(self, options: RunOptions) -> KerasRunner:  # noqa: ARG002 - Keras takes no options
        return KerasRunner(self.model, self.outputs)

    def write(self, path: Path) -> None:
        """Write `.keras`, or HDF5 if the suffix is `.h5` or `.hdf5`."""
        build_optimizer(self.model)
        if path.suffix.lower() in {".h5", ".hdf5"}:
            self.model.save(path)
        else:
            write_archive(self.model, path)


class KerasRunner:
    """Calls a Keras model in inference mode; the backend chooses the number of threads."""

    def __init__(self, model: Any, outputs: tuple[str, ...]) -> None:
        self.engine = f"keras {keras.__version__}"
        self._model = model
        self._outputs = outputs

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = keras.tree.map_structure(
            lambda tensor: _value(inputs, tensor), input_structure(self._model)
        )
        results = keras.tree.flatten(self._model(values, training=False))
        return {
            name: np.asarray(keras.ops.convert_to_numpy(result))
            for name, result in zip(self._outputs, results, strict=True)
        }


def _precision(model: Any) -> str:
    policies = {layer.dtype_policy.name for layer in _layers_with_weights(model)}
    found = {PRECISIONS.get(policy, policy) for policy in policies}
    if len(found) > 1 and not found <= {*PRECISIONS.values()}:
        return "mixed"
    return min(found, key=_COARSEST_FIRST.index) if len(found) > 1 else next(iter(found), "fp32")


def _layers_with_weights(model: Any) -> Iterator[Any]:
    """The layers that have weights themselves, not in layers inside them."""
    for layer in all_layers(model):
        inside = all_layers(layer)[1:]
        if layer.weights and not any(inner.weights for inner in inside):
            yield layer


def _value(inputs: Mapping[str, Array], tensor: Any) -> Array:
    name = producer_name(tensor)
    if name not in inputs:
        raise UsageError(f"there are no values for the input {name!r}")
    return np.asarray(inputs[name], tensor.dtype)


def open_file(path: Path) -> KerasModel:
    """Open a `.keras` or `.h5` file in this process.

    A `.keras` file is compiled again as it says, as far as that is possible. Nothing in the file is
    executed. A damaged `.h5` file can crash the process.

    Raises:
        UsageError: there is no such file.
        ModelError: empty, truncated, foreign, with Lambda or custom layers, or not loadable.
    """
    return load(check_contents(Path(path)))


def check_contents(path: Path) -> KerasFile:
    """Check all of a file before Keras loads it; raises as `open_file` does."""
    return check_file(path, _is_keras_layer)


def load(file: KerasFile) -> KerasModel:
    """Load a checked file (ModelError: Keras cannot)."""
    path = file.path.absolute()
    try:
        with _with_suffix(path, file.container) as fitting:
            if is_keras_2(file.version):
                model = _load_keras_2(fitting, repaired(file.config, path.name), path.name)
            else:
                model = keras.saving.load_model(fitting, compile=False, safe_mode=True)
        if file.container == ".keras":
            compile_from_config(model, file.config.get("compile_config"))
    except _LOAD_ERRORS as error:
        again = f"save it again with Keras {keras.__version__}, the version used here"
        raise ModelError(
            f"Keras cannot load {path.name}: {_reason(error)}",
            HINT_EXPORT if is_keras_2(file.version) else again,
        ) from error
    return KerasModel(model, name=path.name, sha256=sha256_of(path))


def _load_keras_2(path: Path, config: Any, source: str) -> Any:
    """Build the model from its repaired configuration, then load the file's weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras 3 warns about files of Keras 2
        model = build(config, source)
        load_weights(model, path)
    return model


@contextmanager
def _with_suffix(path: Path, container: Container) -> Iterator[Path]:
    """Keras decides by the suffix: give a file with another suffix a link with the right one."""
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


def _is_keras_layer(name: str) -> bool:
    """Is this a class of Keras, or one of ours? HDF5 files name ours as they are registered."""
    ours = name.removeprefix("exporter>") in OUR_CLASSES
    return ours or hasattr(keras.layers, name) or name in {"Functional", "Sequential", "Model"}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
