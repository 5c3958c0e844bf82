"""Describe a model as a function of a flat list of tensors: the input of every conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from exporter.errors import ConversionError, ModelError, UsageError
from exporter.formats.keras.calls import all_layers, producer_name
from exporter.formats.keras.layer_parts import HINT_QUANTIZED
from exporter.formats.keras.model import KerasModel
from exporter.formats.keras.rebuild import input_structure
from exporter.formats.keras.settings import setting
from exporter.formats.savedmodel.model import SavedModel
from exporter.graph.edits import Plan, SetAttribute

_OTHER_PRECISIONS = {"float16", "mixed_float16", "bfloat16", "mixed_bfloat16", "float64"}
Shape = tuple[int | None, ...]
AnyModel = KerasModel | SavedModel


@dataclass(frozen=True)
class Signature:
    """A model as a function of a flat list of tensors, in the order of the model's inputs.

    Attributes:
        name: of the model.
        call: input tensors -> tuple of output tensors, in inference mode.
        inputs: name -> shape and dtype. A dimension that the model leaves open is None. A shape of
            unknown rank is None too; `signature_of` replaces it, or raises an error.
        outputs: name -> shape, with None in the same two cases.
    """

    name: str
    call: Callable[..., tuple[Any, ...]]
    inputs: Mapping[str, tuple[Shape | None, str]]
    outputs: Mapping[str, Shape | None]

    def specs(self) -> list[Any]:
        """One `tf.TensorSpec` per input, named input_0, ...: TensorFlow forbids some names."""
        return [
            tf.TensorSpec(shape, dtype, name=f"input_{i}")
            for i, (shape, dtype) in enumerate(self.inputs.values())
        ]


def signature_of(
    model: AnyModel, input_shapes: Mapping[str, Sequence[int]], batch: int | None = None
) -> Signature:
    """Describe a model.

    Args:
        model: the model.
        input_shapes: input name -> complete shape, for dimensions that the model leaves open. Its
            batch size is ignored.
        batch: batch size of inputs that leave it open; with None it stays open.

    Raises:
        UsageError: a shape for an unknown input, a shape that contradicts the model, or no shape
            for an input of unknown rank.
        ConversionError: a layer keeps a state between calls.
    """
    if isinstance(model, SavedModel):
        signature = _signature_of_saved(model)
    else:
        signature = _signature_of_keras(model)
    unknown = [name for name in input_shapes if name not in signature.inputs]
    if unknown:
        known = ", ".join(map(repr, signature.inputs))
        raise UsageError(f"the model has no input {unknown[0]!r}", f"inputs: {known}")
    inputs = {
        name: (_complete_shape(name, shape, input_shapes.get(name), batch), dtype)
        for name, (shape, dtype) in signature.inputs.items()
    }
    return replace(signature, inputs=inputs)


def _signature_of_keras(keras_model: KerasModel) -> Signature:
    model = keras_model.model
    _refuse_stateful_layers(model)
    inputs = {producer_name(t): (tuple(t.shape), str(t.dtype)) for t in model.inputs}
    shapes = (tuple(tensor.shape) for tensor in model.outputs)
    outputs = dict(zip(keras_model.outputs, shapes, strict=True))
    return Signature(str(model.name), _flat_call(model), inputs, outputs)


def _signature_of_saved(model: SavedModel) -> Signature:
    tensors = model.graph().tensors
    inputs = {name: (tensors[name].shape, tensors[name].dtype) for name in model.inputs}
    outputs = {name: tensors[name].shape for name in model.outputs}
    return Signature(model.name, model.call, inputs, outputs)


def in_float32(model: AnyModel) -> tuple[AnyModel, tuple[str, ...]]:
    """A copy in which all layers compute in float32, and a warning; else the model, and no warning.

    The TFLite converter refuses other precisions, and the ONNX converter adds many casts for them.

    Raises:
        ModelError: a layer has weights that `model.quantize` quantized.
    """
    if isinstance(model, SavedModel):
        return model, model.warnings()
    _refuse_quantized_layers(model.model)
    policies: dict[int, str] = {}  # id of a layer -> its dtype policy
    edits: list[SetAttribute] = []
    for node, layer in model.drawing.layers.items():
        if id(layer) in policies or not isinstance(layer, keras.Layer):
            continue
        config = layer.get_config()
        paths = [path for path in dtype_paths(config) if _policy(config, path) in _OTHER_PRECISIONS]
        edits += [SetAttribute(node, path, "float32") for path in paths]
        if paths:
            policies[id(layer)] = _policy(config, paths[0])
    if not policies:
        return model, ()
    names = ", ".join(sorted(set(policies.values())))
    warning = f"{len(policies)} layers with the dtype policy {names} were converted in float32"
    return model.apply(Plan(tuple(edits))), (warning,)


def dtype_paths(config: Any, prefix: str = "") -> Iterator[str]:
    """The paths of all dtypes in a layer's configuration, also of those of its inner layers."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name == "dtype":
                yield f"{prefix}{name}"
            else:
                yield from dtype_paths(value, f"{prefix}{name}.")
    elif isinstance(config, list | tuple):
        for i, value in enumerate(config):
            yield from dtype_paths(value, f"{prefix}{i}.")


def _policy(config: dict[str, Any], path: str) -> str:
    policy = setting(config, path)
    inner = policy["config"] if isinstance(policy, dict) else {"name": policy}
    return str(inner.get("name") or inner.get("source_name"))  # the second: of quantized weights


def _refuse_quantized_layers(model: Any) -> None:
    """Raise an error: the converters do not know the operations of Keras' quantized layers."""
    for layer in all_layers(model):
        if mode := getattr(layer, "quantization_mode", None):
            raise ModelError(
                f"{type(layer).__name__} {layer.name!r} has {mode} weights from model.quantize, "
                "which the converters to ONNX and TFLite do not read",
                HINT_QUANTIZED,
            )


def _refuse_stateful_layers(model: Any) -> None:
    """Raise an error: a converted model would start each call with a new state."""
    for layer in all_layers(model):
        if getattr(layer, "stateful", False):
            raise ConversionError(
                f"{type(layer).__name__} {layer.name!r} keeps its state from one call to the next",
                "build it with stateful=False",
            )


def _flat_call(model: Any) -> Callable[..., tuple[Any, ...]]:
    structure = input_structure(model)

    def call(*values: Any) -> tuple[Any, ...]:
        inputs = keras.tree.pack_sequence_as(structure, list(values))
        return tuple(keras.tree.flatten(model(inputs, training=False)))

    return call


def _complete_shape(
    name: str, known: Shape | None, given: Sequence[int] | None, batch: int | None
) -> Shape:
    """The shape in the model, with its open dimensions from the shape that the user gave."""
    if known is None:
        if given is None:
            raise UsageError(
                f"the rank of the input {name!r} is not known", f"give --input-shape {name}=1,..."
            )
        known = (None,) * len(given)
    shape = known if given is None else tuple(given)
    if len(shape) != len(known):
        raise UsageError(
            f"the shape given for the input {name!r} has {len(shape)} dimensions, "
            f"the input has {len(known)}",
            "the batch size is one of the dimensions",
        )
    for axis in range(1, len(known)):
        if known[axis] is not None and shape[axis] != known[axis]:
            raise UsageError(
                f"dimension {axis} of the input {name!r} is {known[axis]}, not {shape[axis]}"
            )
    if not known:
        return ()
    return (batch if known[0] is None else known[0], *shape[1:])
