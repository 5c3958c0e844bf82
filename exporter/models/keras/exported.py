"""A Keras model that came as a SavedModel, because its layers are not all of Keras.

It can be run and converted; what is in it cannot be seen, so that it is cut after it is converted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from exporter.errors import ModelError, UsageError
from exporter.graph import Array, Graph, Node, Tensor
from exporter.models.model import RunOptions
from exporter.operations import Opaque
from exporter.plan import Plan
from exporter.remap import Remap

_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Introduction:
    """What the process that exported the model says of it.

    Attributes:
        name: of the model.
        kind: its class.
        reason: why it came as a SavedModel.
        outputs: what to call its outputs; empty for the names in the SavedModel.
    """

    name: str
    kind: str
    reason: str
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shell:
    """As much of a Keras model as a SavedModel still shows: all weights stay inside of it."""

    name: str
    weights: tuple[()] = ()

    def _flatten_layers(self) -> tuple[()]:
        return ()


class ExportedModel:
    """A SavedModel that this package had a live model write; fulfils the protocol `Model`."""

    kind = "keras"
    sha256: str | None = None
    precision = "fp32"

    def __init__(self, folder: Path, told: Introduction) -> None:
        """Load a SavedModel; its folder is not needed afterwards."""
        self._loaded = tf.saved_model.load(str(folder))  # holds the variables
        self._function = self._loaded.signatures[_SIGNATURE]
        self.told = told
        self.name = told.name
        self.model = Shell(told.name)
        self.remap: Remap | None = None
        results = sorted(self._function.structured_outputs, key=_in_order)
        names = told.outputs if len(told.outputs) == len(results) else tuple(results)
        self._results = dict(zip(names, results, strict=True))

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Name -> `tf.TensorSpec`."""
        return dict(sorted(self._function.structured_input_signature[1].items()))

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Name -> `tf.TensorSpec`."""
        specs = self._function.structured_outputs
        return {name: specs[result] for name, result in self._results.items()}

    def call(self, *values: Any) -> tuple[Any, ...]:
        """The model as a flat function, inputs and outputs in the order of their names here."""
        answer = self._function(**dict(zip(self.inputs, values, strict=True)))
        return tuple(answer[result] for result in self._results.values())

    @cached_property
    def _graph(self) -> Graph:
        ends = {**self.inputs, **self.outputs}
        tensors = {name: Tensor(name, _shape(spec), spec.dtype.name) for name, spec in ends.items()}
        told, inputs, outputs = self.told, tuple(self.inputs), tuple(self.outputs)
        node = Node(told.name, told.kind, Opaque(told.reason), inputs, outputs)
        return Graph((node,), tensors, inputs, outputs)

    def graph(self) -> Graph:
        return self._graph

    def apply(self, plan: Plan) -> NoReturn:  # noqa: ARG002 - no plan can be applied
        raise self._refused("cut")

    def runner(self, options: RunOptions) -> ExportedRunner:  # noqa: ARG002 - Keras takes none
        return ExportedRunner(self)

    def write(self, path: Path) -> NoReturn:  # noqa: ARG002 - no file can be written
        raise self._refused("written")

    def _refused(self, what: str) -> ModelError:
        told = self.told
        return ModelError(
            f"{told.kind} {told.name!r} cannot be {what} as a Keras model: {told.reason}",
            "convert it (--to onnx or tflite)",
        )


class ExportedRunner:
    """Calls the SavedModel, not in training."""

    def __init__(self, model: ExportedModel) -> None:
        self.engine = f"keras {keras.__version__}"
        self._model = model

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        missing = [name for name in self._model.inputs if name not in inputs]
        if missing:
            raise UsageError(f"there are no values for the input {missing[0]!r}")
        specs = self._model.inputs
        values = [tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()]
        results = self._model.call(*values)
        return {n: np.asarray(v) for n, v in zip(self._model.outputs, results, strict=True)}


def _in_order(name: str) -> tuple[str, int]:
    """Keras numbers outputs that have no name; ten comes after nine."""
    match = re.fullmatch(r"(.*?_)(\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape.as_list())
