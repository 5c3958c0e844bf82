"""Keras to ONNX by the plain route: tf2onnx on the traced model.

1. The model is traced as one flat function and given to tf2onnx.
2. Inputs and outputs get the Keras names; what comes in besides is refused.
3. The graph is brought into its canonical form.
4. It is checked: tf2onnx writes operators that ONNX does not have, and says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
import tf2onnx
from onnx import ModelProto, ValueInfoProto

from exporter.conversion.canonical import canonicalise
from exporter.conversion.interface import Interface, Shape, in_float32, interface_of
from exporter.conversion.standard import check_standard
from exporter.errors import ConversionError, UsageError
from exporter.models.keras.model import KerasModel

_BATCH = "batch"


def convert(
    model: KerasModel,
    path: Path,
    *,
    opset: int,
    batch: int,  # noqa: ARG001 - the batch stays open in ONNX
    input_shapes: Mapping[str, Sequence[int]],
) -> list[str]:
    """Write a Keras model as ONNX; the batch stays open unless the model fixes it.

    Returns:
        Warnings.

    Raises:
        UsageError: an opset that tf2onnx cannot write, or shapes that do not fit.
        ConversionError: tf2onnx failed, or what it wrote is not standard ONNX.
    """
    _check_opset(opset)
    whole, warnings = in_float32(model)
    interface = interface_of(whole, input_shapes)
    converted = _run_tf2onnx(interface, opset)
    converted.graph.name = str(whole.model.name)
    names = _names(converted, interface)
    canonicalise(converted, names)
    _set_shapes(converted, interface)
    check_standard(converted)
    path.write_bytes(converted.SerializeToString(deterministic=True))
    return list(warnings)


def _check_opset(opset: int) -> None:
    known = tf2onnx.constants.OPSET_TO_IR_VERSION
    if opset not in known or opset < _OLDEST_OPSET:
        raise UsageError(
            f"opset {opset} cannot be written", f"choose one of {_OLDEST_OPSET} to {max(known)}"
        )


_OLDEST_OPSET = 13  # before it Softmax flattens its input, and half of the operators are missing


def _run_tf2onnx(interface: Interface, opset: int) -> ModelProto:
    specs = interface.specs()
    function = tf.function(interface.call, input_signature=specs)
    converted, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=opset)
    if not isinstance(converted, ModelProto):
        raise ConversionError("tf2onnx gave no model")
    return converted


def _names(converted: ModelProto, interface: Interface) -> dict[str, str]:
    """The converter's names of inputs and outputs -> those of Keras."""
    names = {f"input_{i}": name for i, name in enumerate(interface.input_names)}
    for info in converted.graph.input:
        if info.name not in names:
            raise ConversionError(
                f"tf2onnx made an input of the constant {info.name!r}",
                "a layer holds values outside of its weights; convert to tflite instead",
            )
    outputs = [info.name for info in converted.graph.output]
    if len(set(outputs)) != len(interface.output_names):
        raise ConversionError(f"tf2onnx wrote {len(outputs)} outputs: {', '.join(outputs)}")
    return names | dict(zip(outputs, interface.output_names, strict=True))


def _set_shapes(converted: ModelProto, interface: Interface) -> None:
    """State the shapes that Keras knows; open dimensions get names that do not change."""
    shapes = dict(zip(interface.input_names, interface.input_shapes, strict=True))
    for info in converted.graph.input:
        _set_shape(info, shapes[info.name])
    shapes = dict(zip(interface.output_names, interface.output_shapes, strict=True))
    for info in converted.graph.output:
        _set_shape(info, shapes[info.name])


def _set_shape(info: ValueInfoProto, shape: Shape) -> None:
    kind = info.type.tensor_type
    known = [dim.dim_value or None for dim in kind.shape.dim] or [None] * len(shape)
    kind.shape.ClearField("dim")
    kind.shape.SetInParent()
    for axis, (length, traced) in enumerate(zip(shape, known, strict=True)):
        dim = kind.shape.dim.add()
        if length or traced:
            dim.dim_value = length or traced or 0
        else:
            dim.dim_param = _BATCH if axis == 0 else f"{info.name}_{axis}"
