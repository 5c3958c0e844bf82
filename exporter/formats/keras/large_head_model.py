"""A Keras file with a large head that Keras never builds.

Keras builds a stub: the same model with few units. The graph and the conversion are those of the
whole model. To run it, Keras computes the features, NumPy multiplies them with the kernel that is
mapped from the file, and Keras computes the layers after the product.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from exporter.errors import ExporterError
from exporter.formats.keras.files import KerasFile
from exporter.formats.keras.large_head_file import NarrowedFile, narrow
from exporter.formats.keras.model import KerasModel, check_contents, load, open_file, sha256_of
from exporter.formats.keras.stub import Stub, widening
from exporter.formats.kinds import suffixes_of
from exporter.formats.model import RunOptions, in_turn
from exporter.graph import Array, Graph, Node, Tensor
from exporter.graph.edits import AddOutput, Edit, Plan, Replace, SetShape, Take
from exporter.graph.operations import Linear
from exporter.remap import Remap

FEATURES = "features of the head"
_COLUMNS = 1 << 14  # of the kernel, read at a time


def open_large(path: Path, min_bytes: int) -> KerasModel | LargeHeadModel:
    """Open a file; a head with a kernel of at least this size is not built.

    Raises:
        UsageError, ModelError: as `exporter.formats.keras.model.open_file`.
    """
    file = check_contents(path)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        narrowed = narrow(file, Path(name), min_bytes)
        model = _with_stub(narrowed, file) if narrowed else None
    return model or load(file)


def _with_stub(narrowed: NarrowedFile, file: KerasFile) -> LargeHeadModel | None:
    """None unless the narrowed layer makes the units of a head, and nothing else."""
    weights = {f"{narrowed.layer}/kernel": narrowed.kernel}
    if narrowed.bias is not None:
        weights[f"{narrowed.layer}/bias"] = narrowed.bias
    try:
        stub = load(replace(file, path=narrowed.path, config=narrowed.config))
        model = LargeHeadModel(Stub(stub, narrowed.units, weights), file.path)
    except ExporterError:
        return None  # another layer depends on the width; opened whole, it reports the cause
    return model if model.can_compute_outputs() else None


class LargeHeadModel:
    """Fulfills the protocol `Model` for a file with a head that is not built.

    Attributes:
        stub: the narrowed model, and the original weights.
        outputs: names; outputs that were added come last.
    """

    kind = "keras"

    def __init__(self, stub: Stub, path: Path, added: tuple[str, ...] = ()) -> None:
        self.stub = stub
        self.name = path.name
        self.sha256: str | None = sha256_of(path)
        self.precision = stub.model.precision
        self.remap: Remap | None = None
        self._path = path
        self._added = added
        self._head = stub.head  # ModelError if the layer makes no head

    @property
    def outputs(self) -> tuple[str, ...]:
        return (*self.stub.model.outputs, *self._added)

    @cached_property
    def _graph(self) -> Graph:
        narrow_graph = self.stub.model.graph()
        tensors = dict(narrow_graph.tensors)
        for edit in widening(self._head, self.stub.units):
            if isinstance(edit, SetShape):
                tensors[edit.tensor] = replace(tensors[edit.tensor], shape=edit.shape)
        for name, values in self.stub.weights.items():
            read = partial(np.asarray, values)
            tensors[name] = Tensor(name, values.shape, tensors[name].dtype, read)
        return replace(narrow_graph, tensors=tensors, outputs=self.outputs)

    def graph(self) -> Graph:
        return self._graph

    @in_turn
    def apply(self, plan: Plan) -> KerasModel | LargeHeadModel:
        """Apply a plan; unless it only adds outputs, the result is a built Keras model."""
        added = [e.name for e in plan.edits if isinstance(e, AddOutput) and e.name == e.tensor]
        if len(added) == len(plan.edits) and set(added) <= self._head_tensors:
            return LargeHeadModel(self.stub, self._path, (*self._added, *added))
        large = self.stub.weights
        of_head = [edit for edit in plan.edits if getattr(edit, "constant", None) in large]
        if of_head and all(isinstance(edit, Take) for edit in of_head):
            edits = tuple(self._on_stub(edit) for edit in plan.edits)
            pruned = self.stub.model.apply(Plan(edits, plan.remap))
        else:
            pruned = self.built().apply(plan)
        pruned.name, pruned.sha256 = self.name, None
        return pruned

    def _on_stub(self, edit: Edit) -> Edit:
        """A Take from a large constant, as a Replace in the stub."""
        if not isinstance(edit, Take) or edit.constant not in self.stub.weights:
            return edit
        values = np.take(self.stub.weights[edit.constant], edit.positions, axis=edit.axis)
        return Replace(edit.constant, values, edit.uses)

    def runner(self, options: RunOptions) -> LargeHeadRunner:
        return LargeHeadRunner(self, options)

    def write(self, path: Path) -> None:
        """Copy the file, unless the suffix asks for the other container of Keras."""
        if path.suffix.lower() in suffixes_of(self._path):
            shutil.copyfile(self._path, path)
        else:
            self.built().write(path)

    def built(self) -> KerasModel:
        """The model with its head built, which takes several times the head's size."""
        model = open_file(self._path)
        model.remap = self.remap
        return model

    def warning(self) -> str:
        """For the report: how the outputs are computed."""
        return (
            f"the head of {self.stub.units} units was not built in Keras: its outputs are the "
            "product of Keras' features with the kernel in the file"
        )

    # --- the head ---------------------------------------------------------------------------------

    @property
    def product(self) -> Node:
        return next(node for node in self._head.body if isinstance(node.operation, Linear))

    @property
    def _head_tensors(self) -> set[str]:
        """The tensors of the head, which the runner can return."""
        return {tensor.name for tensor in self._head.tensors}

    @property
    def _large_layer(self) -> Any:
        layer, _ = self.stub.model.drawing.weights[next(iter(self.stub.weights))]
        return layer

    def can_compute_outputs(self) -> bool:
        """Has every node of the head after the product one input and no weights?"""
        constants = set(self.stub.model.drawing.weights)
        after = [
            node
            for node in self._graph.nodes
            if self._head_tensors & set(node.outputs) and node != self.product
        ]
        return self._large_layer.compute_dtype == "float32" and all(
            len(node.inputs) == 1 and not constants & set(node.inputs) for node in after
        )

    def after_product(self, product: Array) -> dict[str, Array]:
        """Compute the tensors of the head from its product, in Keras."""
        values: dict[str, Any] = {self.product.outputs[0]: keras.ops.convert_to_tensor(product)}
        for node in self._graph.nodes:
            if node != self.product and node.inputs[0] in values:
                values[node.outputs[0]] = self._call(node, values[node.inputs[0]])
        return {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in values.items()}

    def _call(self, node: Node, value: Any) -> Any:
        layer = self.stub.model.drawing.layers.get(node.name)
        if layer is None:  # another name of the same tensor
            return value
        return layer.activation(value) if layer is self._large_layer else layer(value)


class LargeHeadRunner:
    """Computes features in Keras, their product with the kernel in NumPy, the rest in Keras."""

    def __init__(self, model: LargeHeadModel, options: RunOptions) -> None:
        self._model = model
        self._features = model.product.inputs[0]
        stub = model.stub.model
        if self._features not in stub.graph().inputs:
            stub = stub.apply(Plan((AddOutput(self._features, FEATURES),)))
        self._stub = stub.runner(options)
        self.engine = self._stub.engine

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = {**inputs, **self._stub(inputs)}
        features = np.asarray(values.get(FEATURES, values.get(self._features)), np.float32)
        values |= self._model.after_product(self._product(features))
        return {name: values[name] for name in self._model.outputs}

    def _product(self, features: Array) -> Array:
        kernel, *bias = self._model.stub.weights.values()
        parts = [
            features @ kernel[:, start : start + _COLUMNS]
            for start in range(0, kernel.shape[1], _COLUMNS)
        ]
        result: Array = np.concatenate(parts, axis=-1)
        return result + bias[0] if bias else result
