"""Keras layers with a kernel: those that can make units.

A bias must lie along the output's last axis: Keras 3.15 on TensorFlow adds one that lies along
another axis to the last one, if that happens to have as many positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from exporter.formats.keras.calls import Call
from exporter.formats.keras.layer_parts import (
    Part,
    Row,
    is_of_keras,
    opaque,
    rank_of,
    with_activation,
)
from exporter.graph.operations import Linear, Opaque


def _dense(call: Call) -> tuple[Part, ...]:
    return _linear(call, Linear(1, 1, rank_of(call) - 1, width_attribute="units"))


def _convolution(call: Call) -> tuple[Part, ...]:
    return _linear(call, _convolved(call, from_last=1))


def _transposed_convolution(call: Call) -> tuple[Part, ...]:
    return _linear(call, _convolved(call, from_last=2))


def _convolved(call: Call, from_last: int) -> Linear:
    layer = call.operation
    axis = rank_of(call) - 1 if layer.data_format == "channels_last" else 1
    groups = int(getattr(layer, "groups", 1))
    kernel_axis = len(layer.kernel.shape) - from_last
    return Linear(1, kernel_axis, axis, groups=groups, width_attribute="filters")


def _separable_convolution(call: Call) -> tuple[Part, ...]:
    layer = call.operation
    if layer.data_format != "channels_last":
        return opaque(call, "its channels do not stand last")
    axis = rank_of(call) - 1
    alone = Opaque("it works on each channel by itself")
    depthwise = Part("Depthwise", alone, "/depthwise", (layer.depthwise_kernel,))
    given = (
        (layer.pointwise_kernel,) if layer.bias is None else (layer.pointwise_kernel, layer.bias)
    )
    linear = Linear(1, axis, axis, None if layer.bias is None else 2, width_attribute="filters")
    pointwise = Part(type(layer).__name__, linear, weights=given, reshapes=True)
    return with_activation(call, (depthwise, pointwise), axis)


def _einsum(call: Call) -> tuple[Part, ...]:
    """Its channels are the one axis of the kernel that the input lacks; it sums over the others."""
    layer = call.operation
    given, _, result = str(layer.equation).replace(" ", "").partition("->")
    values, _, kernel = given.partition(",")
    channels = [letter for letter in kernel if letter in result and letter not in values]
    if "." in given or len(set(kernel)) != len(kernel):
        return opaque(call, f"there is no rule for the equation {layer.equation!r}")
    if len(channels) != 1:
        return opaque(call, f"its kernel has {len(channels)} axes of output channels")
    if any(letter in values and letter in result for letter in kernel):
        return opaque(call, "its kernel differs from position to position")
    axis = result.index(channels[0])
    stated = layer.get_config()["output_shape"]
    place = "output_shape" if isinstance(stated, int) else f"output_shape.{axis - 1}"
    return _linear(call, Linear(1, kernel.index(channels[0]), axis, width_attribute=place))


def _linear(call: Call, linear: Linear) -> tuple[Part, ...]:
    """A product, its bias and the layer's activation."""
    layer, last = call.operation, rank_of(call) - 1
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return opaque(call, "its kernel is quantized or carries LoRA weights")
    name = type(layer).__name__
    if layer.bias is None:
        parts = (Part(name, linear, weights=(layer.kernel,)),)
    elif linear.output_axis == last:
        parts = (Part(name, replace(linear, bias=2), weights=(layer.kernel, layer.bias)),)
    else:
        return opaque(call, "Keras may add its bias along another axis after a cut")
    return with_activation(call, parts, last)


def _each_step(call: Call) -> tuple[Part, ...]:
    """What a layer makes of each step: the same, where its axes count from the last one."""
    layer = call.operation.layer
    name = type(layer).__name__
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    if name not in STEPS or not last or not is_of_keras(layer):
        return opaque(call, f"steps of class {name} are not cut")
    return tuple(_inside(part) for part in STEPS[name](call._replace(operation=layer)))


def _inside(part: Part) -> Part:
    """The part as one of the layer around it, whose configuration holds the inner one's."""
    operation = part.operation
    if isinstance(operation, Linear):
        operation = replace(operation, width_attribute=f"layer.config.{operation.width_attribute}")
    setting = f"layer.config.{part.setting}" if part.setting else ""
    return part._replace(operation=operation, setting=setting)


STEPS: Mapping[str, Row] = {
    "Dense": _dense,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
}

LINEAR: Mapping[str, Row] = {
    **STEPS,
    "Conv1DTranspose": _transposed_convolution,
    "Conv2DTranspose": _transposed_convolution,
    "Conv3DTranspose": _transposed_convolution,
    "SeparableConv1D": _separable_convolution,
    "SeparableConv2D": _separable_convolution,
    "EinsumDense": _einsum,
    "TimeDistributed": _each_step,
}
