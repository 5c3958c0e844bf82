"""Trace a model for tf2onnx, with large weights as inputs instead of constants.

tf2onnx copies the graph with its weights in each of its passes, but not the values of inputs.

1. The chosen weights become inputs; all others are constants in the graph.
2. `jit_compile` is ignored while tracing: Keras compiles grouped convolutions, and tf2onnx cannot
   look into compiled code.
3. Tensors that layers store outside of their weights (Normalization) become inputs too.
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

from exporter.conversion.signature import Signature
from exporter.formats.keras.calls import all_layers
from exporter.graph import Array

LARGE_BYTES = 16 * 1024
# tf2onnx recognizes an LSTM only by its constants. PReLU's slopes are as large as an image, and a
# transpose of the image can pass only constant slopes.
_CONSTANTS_ONLY = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.PReLU)


@dataclass(frozen=True)
class Traced:
    """A traced model.

    Attributes:
        function: a `tf.function`, traced already (see `concrete`).
        specs: of all its inputs, the model's inputs first.
        values: other input of the converted graph -> the variable or tensor with its values.
    """

    function: Any
    specs: list[Any]
    values: Mapping[str, Any]

    def concrete(self) -> Any:
        """The concrete function for these inputs."""
        return self.function.get_concrete_function(*self.specs)

    def array(self, name: str) -> Array:
        """The values of an input; copied only here."""
        values: Array = np.asarray(self.values[name])
        return values


def large_weights(model: Any) -> list[Any]:
    """The large variables that can be inputs."""
    constants = {
        id(weight)
        for layer in all_layers(model)
        if isinstance(layer, _CONSTANTS_ONLY)
        for weight in layer.weights
    }
    return [
        weight
        for weight in model.weights
        if weight.dtype == "float32"
        and id(weight) not in constants
        and _size(weight) >= LARGE_BYTES
    ]


def trace_function(signature: Signature, weights: Sequence[Any]) -> Traced:
    """Trace a model.

    Args:
        weights: the variables that become inputs.
    """
    count = len(signature.inputs)

    def call(*values: Any) -> tuple[Any, ...]:
        with keras.StatelessScope(state_mapping=list(zip(weights, values[count:], strict=True))):
            return signature.call(*values[:count])

    names = [f"weight_{i}" for i in range(len(weights))]
    specs = signature.specs() + [
        tf.TensorSpec(weight.shape, weight.dtype, name=name)
        for name, weight in zip(names, weights, strict=True)
    ]
    function = tf.function(call, input_signature=specs)
    with _without_jit():
        graph = function.get_concrete_function(*specs).graph
    captured = {inner.name: outer for outer, inner in graph.captures if outer.dtype != tf.resource}
    return Traced(function, specs, dict(zip(names, weights, strict=True)) | captured)


def weight_bytes(model: Any) -> int:
    return sum(map(_size, model.weights))


def _size(weight: Any) -> int:
    return int(math.prod(weight.shape) * np.dtype(weight.dtype).itemsize)


@contextmanager
def _without_jit() -> Iterator[None]:
    original = tf.function

    def without_jit(*arguments: Any, **options: Any) -> Any:
        options.pop("jit_compile", None)
        return original(*arguments, **options)

    tf.function = without_jit
    try:
        yield
    finally:
        tf.function = original
