"""Trace a Keras model for tf2onnx, with chosen weights as inputs instead of constants.

tf2onnx copies the graph, weights included, for each of its passes: what is an input it never sees.

1. The weights that go beside become inputs; all others are frozen into the graph.
2. `jit_compile` is dropped while tracing: Keras compiles grouped convolutions, and tf2onnx cannot
   look into what is compiled.
3. Tensors that layers hold outside of their weights (Normalization) become inputs by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from exporter.conversion.signature import Interface
from exporter.graph import Array

LARGE_BYTES = 16 * 1024
# tf2onnx knows an LSTM only by its constants; PReLU's slopes are as large as an image, and only
# constants let a transpose of the image pass.
_CONSTANTS_ONLY = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.PReLU)


@dataclass(frozen=True)
class Traced:
    """A traced model.

    Attributes:
        function: a `tf.function`, traced already (see `concrete`).
        specs: of all its inputs, those of the model first.
        values: input of the converted graph -> what it holds, for all that are not the model's.
    """

    function: Any
    specs: list[Any]
    values: Mapping[str, Any]  # variables and tensors: no array is made before it is asked for

    def concrete(self) -> Any:
        """The function for these inputs, as it was traced."""
        return self.function.get_concrete_function(*self.specs)

    def array(self, name: str) -> Array:
        """The values of such an input."""
        values: Array = np.asarray(self.values[name])
        return values


def large_weights(model: Any) -> list[Any]:
    """The variables worth keeping out of tf2onnx that it does not have to know."""
    known = {
        id(weight)
        for layer in model._flatten_layers()  # noqa: SLF001 - the layers inside layers too
        if isinstance(layer, _CONSTANTS_ONLY)
        for weight in layer.weights
    }
    return [
        weight
        for weight in model.weights
        if weight.dtype == "float32" and id(weight) not in known and _bytes(weight) >= LARGE_BYTES
    ]


def trace(interface: Interface, beside: Sequence[Any]) -> Traced:
    """Trace a model.

    Args:
        interface: of the model.
        beside: those of its variables that become inputs.
    """
    count = len(interface.input_names)

    def call(*values: Any) -> tuple[Any, ...]:
        with keras.StatelessScope(state_mapping=list(zip(beside, values[count:], strict=True))):
            return interface.call(*values[:count])

    names = [f"weight_{i}" for i in range(len(beside))]
    specs = interface.specs() + [
        tf.TensorSpec(weight.shape, weight.dtype, name=name)
        for name, weight in zip(names, beside, strict=True)
    ]
    function = tf.function(call, input_signature=specs)
    with _uncompiled():
        graph = function.get_concrete_function(*specs).graph
    held = {inner.name: outer for outer, inner in graph.captures if outer.dtype != tf.resource}
    return Traced(function, specs, dict(zip(names, beside, strict=True)) | held)


def weight_bytes(model: Any) -> int:
    """How much its weights hold."""
    return sum(_bytes(weight) for weight in model.weights)


def _bytes(weight: Any) -> int:
    return int(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize)


@contextmanager
def _uncompiled() -> Iterator[None]:
    compiling = tf.function

    def plain(*arguments: Any, **options: Any) -> Any:
        options.pop("jit_compile", None)
        return compiling(*arguments, **options)

    tf.function = plain
    try:
        yield
    finally:
        tf.function = compiling
