"""A SavedModel as one of the kinds: run and converted; what is in it cannot be looked into.

It is cut after it is converted. A live Keras model whose classes are not all of Keras comes as one
too, which this package had it write.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from exporter.errors import ModelError, UsageError
from exporter.formats.model import RunOptions
from exporter.formats.savedmodel.files import check_folder, sha256_of
from exporter.formats.savedmodel.load import load
from exporter.graph import Array, Graph, Node, Tensor
from exporter.graph.edits import Plan
from exporter.graph.operations import Opaque
from exporter.remap import Remap

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of the model besides its SavedModel.

    Attributes:
        name: of the model.
        what: to call it in messages: its class.
        reason: why it cannot be looked into.
        kind: key of `models.KINDS`; "keras" for a live model.
        outputs: what to call its outputs; empty for the names in the SavedModel.
        sha256: of the folder; None for a live model.
    """

    name: str
    what: str
    reason: str
    kind: str
    outputs: tuple[str, ...] = ()
    sha256: str | None = None


class SavedModel:
    """A loaded SavedModel; fulfils the protocol `Model`.

    Attributes:
        variables: that the signature reads.
    """

    def __init__(self, folder: Path, told: ModelInfo, signature: str | None = None) -> None:
        """Load one (raises as `load.load` does); its folder is not needed afterwards."""
        self._loaded, self._function = load(folder, signature)  # the first holds the variables
        self.told = told
        self.kind = told.kind
        self.name = told.name
        self.sha256 = told.sha256
        self.remap: Remap | None = None
        self.variables: tuple[Any, ...] = tuple(self._function.variables)
        self.precision = _precision(self.variables)
        results = sorted(self._function.structured_outputs, key=_in_order)
        names = told.outputs if len(told.outputs) == len(results) else tuple(results)
        self._results = dict(zip(map(self._unlike_inputs, names), results, strict=True))

    @property
    def weight_bytes(self) -> int:
        """How much its variables hold."""
        return sum(prod(each.shape) * each.dtype.size for each in self.variables)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Name -> `tf.TensorSpec`."""
        return dict(sorted(self._function.structured_input_signature[1].items()))

    def _unlike_inputs(self, name: str) -> str:
        """A signature may call an output like an input, other formats may not."""
        while name in self.inputs:
            name += "_"
        return name

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
        node = Node(told.name, told.what, Opaque(told.reason), inputs, outputs)
        return Graph((node,), tensors, inputs, outputs)

    def graph(self) -> Graph:
        return self._graph

    def apply(self, plan: Plan) -> NoReturn:  # noqa: ARG002 - no plan can be applied
        raise self._refused("cut")

    def runner(self, options: RunOptions) -> SavedModelRunner:  # noqa: ARG002 - it takes none
        return SavedModelRunner(self)

    def write(self, path: Path) -> NoReturn:  # noqa: ARG002 - no file can be written
        raise self._refused("written")

    def _refused(self, done: str) -> ModelError:
        told = self.told
        return ModelError(
            f"{told.what} {told.name!r} cannot be {done} as it stands: {told.reason}",
            "convert it (--to onnx or tflite)",
        )


class SavedModelRunner:
    """Calls the signature."""

    def __init__(self, model: SavedModel) -> None:
        self.engine = f"tensorflow {tf.__version__}"
        self._model = model

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        missing = [name for name in self._model.inputs if name not in inputs]
        if missing:
            raise UsageError(f"there are no values for the input {missing[0]!r}")
        specs = self._model.inputs
        values = [tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()]
        results = self._model.call(*values)
        return {n: np.asarray(v) for n, v in zip(self._model.outputs, results, strict=True)}


def open_file(path: Path, signature: str | None = None) -> SavedModel:
    """Open a SavedModel folder in this process.

    Nothing in it is executed beyond its graph, and a graph that reaches outside of itself is not.

    Args:
        signature: which of its signatures; None for serving_default, or the only one.

    Raises:
        UsageError: no such folder or signature, or several signatures to choose from.
        ModelError: not a SavedModel, a damaged one, or one that is refused.
    """
    check_folder(path)
    told = ModelInfo(path.name, "SavedModel", _REASON, "savedmodel", sha256=sha256_of(path))
    return SavedModel(path, told, signature)


_REASON = "its layers cannot be seen; heads are found in the files that it is converted to"


def _precision(variables: tuple[Any, ...]) -> str:
    """In what most of the values are held."""
    sizes = Counter[str]()
    for variable in variables:
        sizes[variable.dtype.name] += prod(variable.shape)
    held = [name for name, _ in sizes.most_common() if name in _PRECISIONS]
    return _PRECISIONS[held[0]] if held else "fp32"


def _in_order(name: str) -> tuple[str, int]:
    """Keras numbers outputs that have no name; ten comes after nine."""
    match = re.fullmatch(r"(.*?_)(\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape.as_list())
