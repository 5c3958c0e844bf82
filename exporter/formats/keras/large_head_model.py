"""A Keras file whose wide head Keras never builds: a stub in Keras, and the kernel in the file.

It draws itself, runs and is converted as the whole model. What it answers is computed out of the
stub's features: their product with the kernel where that lies, then the layers behind it, in Keras.
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
from exporter.formats.keras.files import check_file
from exporter.formats.keras.large_head_file import Narrowed, narrow
from exporter.formats.keras.model import KerasModel, check_contents, open_file, sha256_of
from exporter.formats.keras.stub import Stub, widening
from exporter.formats.kinds import suffixes_of
from exporter.formats.model import RunOptions
from exporter.graph import Array, Graph, Node, Tensor
from exporter.graph.edits import AddOutput, Edit, Plan, Replace, SetShape, Take
from exporter.graph.operations import Linear
from exporter.remap import Remap

FEATURES = "features of the head"


def open_large(path: Path, bound_bytes: int) -> KerasModel | WideModel:
    """Open a file; one with a head of at least this size without building the head.

    Raises:
        UsageError, ModelError: as `exporter.formats.keras.model.open_file`.
    """
    container = check_file(path)
    check_contents(path, container)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        found = narrow(path, container, Path(name), bound_bytes)
        model = _stubbed(found, path) if found else None
    return model or open_file(path)


def _stubbed(found: Narrowed, path: Path) -> WideModel | None:
    """None where the layer is not what makes the units of a head, and nothing else."""
    try:
        model = open_file(found.path)
        places = {"kernel": found.kernel} | ({"bias": found.bias} if found.bias is not None else {})
        weights = {f"{found.layer}/{key}": values for key, values in places.items()}
        wide = WideModel(Stub(model, found.units, weights), path)
    except ExporterError:
        return None  # another layer counts on the width: opened whole, it tells more
    return wide if wide.is_followed() else None


class WideModel:
    """Fulfils the protocol `Model` for a file with a head that is not built.

    Attributes:
        stub: the narrow model, and the whole weights.
        outputs: names; those that were added stand behind the others.
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
        narrow = self.stub.model.graph()
        tensors = dict(narrow.tensors)
        for edit in widening(self._head, self.stub.units):
            if isinstance(edit, SetShape):
                tensors[edit.tensor] = replace(tensors[edit.tensor], shape=edit.shape)
        for name, values in self.stub.weights.items():
            read = partial(np.asarray, values)
            tensors[name] = Tensor(name, values.shape, tensors[name].dtype, read)
        return replace(narrow, tensors=tensors, outputs=self.outputs)

    def graph(self) -> Graph:
        return self._graph

    def apply(self, plan: Plan) -> KerasModel | WideModel:
        """A new model; one in which the head is built, unless it only shows more outputs."""
        shown = [e.name for e in plan.edits if isinstance(e, AddOutput) and e.name == e.tensor]
        if len(shown) == len(plan.edits) and set(shown) <= self._shown:
            return WideModel(self.stub, self._path, (*self._added, *shown))
        whole = self.stub.weights
        changed = [edit for edit in plan.edits if getattr(edit, "constant", None) in whole]
        if changed and all(isinstance(edit, Take) for edit in changed):
            edits = tuple(self._on_stub(edit) for edit in plan.edits)
            made = self.stub.model.apply(Plan(edits, plan.remap))
        else:
            made = self.whole().apply(plan)
        made.name, made.sha256 = self.name, None
        return made

    def _on_stub(self, edit: Edit) -> Edit:
        if not isinstance(edit, Take) or edit.constant not in self.stub.weights:
            return edit
        values = np.take(self.stub.weights[edit.constant], edit.positions, axis=edit.axis)
        return Replace(edit.constant, values, edit.uses)

    def runner(self, options: RunOptions) -> WideRunner:
        return WideRunner(self, options)

    def write(self, path: Path) -> None:
        """The file as it is, unless the name asks for the other container of Keras."""
        if path.suffix.lower() in suffixes_of(self._path):
            shutil.copyfile(self._path, path)
        else:
            self.whole().write(path)

    def whole(self) -> KerasModel:
        """The model with its head built, at several times the head's size."""
        model = open_file(self._path)
        model.remap = self.remap
        return model

    def told(self) -> str:
        """For the report: how its answers come about."""
        return (
            f"the head of {self.stub.units} units was not built in Keras: its answers are the "
            "product of Keras' features with the kernel in the file"
        )

    # --- the head ---------------------------------------------------------------------------------

    @property
    def product(self) -> Node:
        return next(node for node in self._head.body if isinstance(node.operation, Linear))

    @property
    def _shown(self) -> set[str]:
        """The tensors of the head, which a run computes."""
        return {tensor.name for tensor in self._head.tensors}

    def is_followed(self) -> bool:
        """Does each layer behind the product take one value for each unit, and have no weights?"""
        constants = set(self.stub.model.picture.weights)
        behind = [
            n for n in self._graph.nodes if self._shown & set(n.outputs) and n != self.product
        ]
        layer, _ = self.stub.model.picture.weights[next(iter(self.stub.weights))]
        return layer.compute_dtype == "float32" and all(
            len(node.inputs) == 1 and not constants & set(node.inputs) for node in behind
        )

    def behind(self, product: Array) -> dict[str, Array]:
        """The tensors of the head, given what its product makes; computed in Keras."""
        values: dict[str, Any] = {self.product.outputs[0]: keras.ops.convert_to_tensor(product)}
        for node in self._graph.nodes:
            if node == self.product or node.inputs[0] not in values:
                continue
            (made,) = node.outputs
            values[made] = self._made(node, values[node.inputs[0]])
        return {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in values.items()}

    def _made(self, node: Node, given: Any) -> Any:
        picture = self.stub.model.picture
        layer = picture.layers.get(node.name)
        if layer is None:  # another name of the same tensor
            return given
        if layer is picture.weights[next(iter(self.stub.weights))][0]:
            return layer.activation(given)
        return layer(given)


class WideRunner:
    """Features from the stub, their product with the kernel in the file, the rest in Keras."""

    def __init__(self, model: WideModel, options: RunOptions) -> None:
        self._model = model
        self._features = model.product.inputs[0]
        stub = model.stub.model
        shown = self._features in stub.graph().inputs
        edits = () if shown else (AddOutput(self._features, FEATURES),)
        self._stub = (stub.apply(Plan(edits)) if edits else stub).runner(options)
        self.engine = self._stub.engine

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        narrow = {**inputs, **self._stub(inputs)}
        features = np.asarray(narrow.get(FEATURES, narrow.get(self._features)), np.float32)
        values = narrow | self._model.behind(self._product(features))
        return {name: values[name] for name in self._model.outputs}

    def _product(self, features: Array) -> Array:
        kernel, *bias = self._model.stub.weights.values()
        parts = [
            features @ kernel[:, start : start + _COLUMNS]
            for start in range(0, kernel.shape[1], _COLUMNS)
        ]
        result: Array = np.concatenate(parts, axis=-1)
        return result + bias[0] if bias else result


_COLUMNS = 1 << 14  # of the kernel, read at a time
