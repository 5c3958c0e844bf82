"""A SavedModel that fulfills the protocol `Model`: it can be run and converted, not looked into.

It is pruned after it is converted. A live Keras model with custom classes becomes a SavedModel too,
which the user's process exports.
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
    """Facts about a model that its SavedModel does not contain.

    Attributes:
        name: of the model.
        operator: name of its only node in messages: the class of the model.
        reason: why it cannot be looked into.
        kind: key of `KINDS`; "keras" for a live model.
        outputs: names of its outputs; empty for the names in the SavedModel.
        sha256: of the folder; None for a live model.
    """

    name: str
    operator: str
    reason: str
    kind: str
    outputs: tuple[str, ...] = ()
    sha256: str | None = None


class SavedModel:
    """A loaded SavedModel; fulfills the protocol `Model`.

    Attributes:
        inputs: name -> `tf.TensorSpec`, sorted by name.
        outputs: name -> `tf.TensorSpec`; only outputs of numbers.
        left_out: the other outputs, with their types: names of classes, for example.
        variables: that the signature reads.
    """

    def __init__(self, folder: Path, info: ModelInfo, signature: str | None = None) -> None:
        """Load a folder (raises as `load.load`), which is not needed afterwards."""
        self._loaded, self._function = load(folder, signature)  # the first owns the variables
        self.info = info
        self.kind = info.kind
        self.name = info.name
        self.sha256 = info.sha256
        self.remap: Remap | None = None
        self.variables: tuple[Any, ...] = tuple(self._function.variables)
        self.precision = _precision(self.variables)
        self.inputs: dict[str, Any] = dict(
            sorted(self._function.structured_input_signature[1].items())
        )
        specs = self._function.structured_outputs
        results = sorted(specs, key=_numeric_order)  # names in the SavedModel
        names = info.outputs if len(info.outputs) == len(results) else results
        self.left_out = tuple(
            f"{name!r} ({specs[result].dtype.name})"
            for name, result in zip(names, results, strict=True)
            if not _is_numeric(specs[result])
        )
        self._check_dtypes(len(specs))
        kept = {
            self._unlike_inputs(name): result
            for name, result in zip(names, results, strict=True)
            if _is_numeric(specs[result])
        }
        self._results = tuple(kept.values())
        self.outputs: dict[str, Any] = {name: specs[result] for name, result in kept.items()}

    @property
    def weight_bytes(self) -> int:
        """Size of its variables."""
        return sum(prod(each.shape) * each.dtype.size for each in self.variables)

    def _check_dtypes(self, outputs: int) -> None:
        """Refuse inputs, and a single output, that other formats cannot take (ModelError)."""
        for name, spec in self.inputs.items():
            if not _is_numeric(spec):
                raise ModelError(
                    f"{self.name}: the input {name!r} takes values of the type {spec.dtype.name}, "
                    "which neither ONNX nor TFLite models compute with here",
                    "export the layers after the one that turns them into numbers",
                )
        if len(self.left_out) == outputs:
            raise ModelError(
                f"{self.name}: no output contains numbers: {', '.join(self.left_out)}",
                "export the scores before they become names",
            )

    def warnings(self) -> tuple[str, ...]:
        """For the report: outputs that the converted files lack."""
        if not self.left_out:
            return ()
        names = ", ".join(self.left_out)
        return (f"{len(self.left_out)} output of the SavedModel is not converted: {names}",)

    def _unlike_inputs(self, name: str) -> str:
        """A signature may use one name for an input and an output; other formats may not."""
        while name in self.inputs:
            name += "_"
        return name

    def call(self, *values: Any) -> tuple[Any, ...]:
        """Call the signature with values in the order of `inputs`; results follow `outputs`."""
        results = self._function(**dict(zip(self.inputs, values, strict=True)))
        return tuple(results[name] for name in self._results)

    @cached_property
    def _graph(self) -> Graph:
        specs = {**self.inputs, **self.outputs}
        tensors = {name: Tensor(name, _shape(s), s.dtype.name) for name, s in specs.items()}
        inputs, outputs = tuple(self.inputs), tuple(self.outputs)
        operation = Opaque(self.info.reason)
        node = Node(self.info.name, self.info.operator, operation, inputs, outputs)
        return Graph((node,), tensors, inputs, outputs)

    def graph(self) -> Graph:
        return self._graph

    def apply(self, plan: Plan) -> NoReturn:  # noqa: ARG002 - no plan can be applied
        raise self._refused("pruned")

    def runner(self, options: RunOptions) -> SavedModelRunner:  # noqa: ARG002 - it takes none
        return SavedModelRunner(self)

    def write(self, path: Path) -> NoReturn:  # noqa: ARG002 - no file can be written
        raise self._refused("written")

    def _refused(self, action: str) -> ModelError:
        return ModelError(
            f"{self.info.operator} {self.info.name!r} cannot be {action} before it is converted: "
            f"{self.info.reason}",
            "convert it (--to onnx or tflite)",
        )


class SavedModelRunner:
    """Calls the signature."""

    def __init__(self, model: SavedModel) -> None:
        self.engine = f"tensorflow {tf.__version__}"
        self._model = model

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        specs = self._model.inputs
        missing = [name for name in specs if name not in inputs]
        if missing:
            raise UsageError(f"there are no values for the input {missing[0]!r}")
        values = [tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()]
        results = self._model.call(*values)
        return {n: np.asarray(v) for n, v in zip(self._model.outputs, results, strict=True)}


def open_file(path: Path, signature: str | None = None) -> SavedModel:
    """Open a SavedModel folder in this process.

    Only its graph is executed, and only if the graph does nothing but compute.

    Args:
        signature: name of the signature; None for serving_default, or the only one.

    Raises:
        UsageError: no such folder or signature, or several signatures to choose from.
        ModelError: not a SavedModel, a damaged one, or one that is refused.
    """
    check_folder(path)
    info = ModelInfo(path.name, "SavedModel", _REASON, "savedmodel", sha256=sha256_of(path))
    return SavedModel(path, info, signature)


_REASON = "its layers are not visible; heads are found in the files that it is converted to"


def _is_numeric(spec: Any) -> bool:
    """Can other formats represent it? Not strings, complex numbers, tables or ragged tensors."""
    dtype = spec.dtype
    return isinstance(spec, tf.TensorSpec) and (
        dtype.is_floating or dtype.is_integer or dtype.is_bool
    )


def _precision(variables: tuple[Any, ...]) -> str:
    """The precision of most values."""
    sizes = Counter[str]()
    for variable in variables:
        sizes[variable.dtype.name] += prod(variable.shape)
    floats = [name for name, _ in sizes.most_common() if name in _PRECISIONS]
    return _PRECISIONS[floats[0]] if floats else "fp32"


def _numeric_order(name: str) -> tuple[str, int]:
    """Sort the numbers that Keras gives to outputs without a name: ten after nine."""
    match = re.fullmatch(r"(.*?_)(\d+)", name)
    return (match[1], int(match[2])) if match else (name, 0)


def _shape(spec: Any) -> tuple[int | None, ...] | None:
    return None if spec.shape.rank is None else tuple(spec.shape.as_list())
