"""Keras layers with a kernel, which can be the head.

A bias must run along the output's last axis. On TensorFlow, Keras 3.15 adds a bias of another axis
to the last axis if both happen to have the same length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from exporter.formats.keras.calls import KerasCall
from exporter.formats.keras.layer_parts import (
    CONVERT_HINT,
    HINT_QUANTIZED,
    LayerPart,
    Row,
    Translation,
    class_name,
    is_of_keras,
    parts,
    rank_of,
    with_activation,
)
from exporter.graph.operations import Contraction, Linear, Opaque, Window
from exporter.graph.products import OUTPUT, axes


def _dense(call: KerasCall) -> Translation:
    last = rank_of(call) - 1
    summed = Contraction(0, input_axis=last, kernel_axis=0)
    return _linear(call, Linear(1, 1, last, width_attribute="units", contraction=summed))


def _convolution(call: KerasCall) -> Translation:
    linear = _convolved(call, from_last=1)
    summed = Contraction(0, linear.output_axis, linear.kernel_axis - 1, _window(call))
    groups = "groups" if linear.groups > 1 else None
    return _linear(call, replace(linear, contraction=summed, groups_attribute=groups))


def _depthwise_convolution(call: KerasCall) -> Translation:
    """A convolution in as many groups as channels."""
    layer, last = call.operation, rank_of(call) - 1
    if layer.depth_multiplier != 1 or layer.data_format != "channels_last":
        return Opaque(
            "it has several filters for a channel, or channels that are not the last axis"
        )
    kernel_axis = len(layer.kernel.shape) - 2
    summed = Contraction(0, last, kernel_axis + 1, _window(call))
    channels = int(layer.kernel.shape[kernel_axis])
    return _linear(call, Linear(1, kernel_axis, last, groups=channels, contraction=summed))


def _window(call: KerasCall) -> Window:
    layer = call.operation
    first = 1 if layer.data_format == "channels_last" else 2
    lengths = layer.kernel_size
    spans = [d * (k - 1) for d, k in zip(layer.dilation_rate, lengths, strict=True)]
    pads: str | tuple[tuple[int, int], ...] = tuple((0, 0) for _ in spans)
    if layer.padding == "same":
        pads = "upper"
    elif layer.padding == "causal":
        pads = tuple((span, 0) for span in spans)
    return Window(
        axes=tuple(range(first, first + len(lengths))),
        kernel_axes=tuple(range(len(lengths))),
        strides=tuple(layer.strides),
        dilations=tuple(layer.dilation_rate),
        pads=pads,
    )


def _transposed_convolution(call: KerasCall) -> Translation:
    return _linear(call, _convolved(call, from_last=2))


def _convolved(call: KerasCall, from_last: int) -> Linear:
    layer = call.operation
    axis = rank_of(call) - 1 if layer.data_format == "channels_last" else 1
    groups = int(getattr(layer, "groups", 1))
    kernel_axis = len(layer.kernel.shape) - from_last
    return Linear(1, kernel_axis, axis, groups=groups, width_attribute="filters")


def _separable_convolution(call: KerasCall) -> Translation:
    layer = call.operation
    if layer.data_format != "channels_last":
        return Opaque("its channels are not the last axis")
    axis = rank_of(call) - 1
    by_channel = Opaque("it works on each channel separately")
    kernel = layer.depthwise_kernel
    each_position = (
        *axes(1, len(kernel.shape)),
        *axes(OUTPUT, rank_of(call), without=axis),
    )
    depthwise = LayerPart(
        "Depthwise", by_channel, "/depthwise", (kernel,), products=(each_position,)
    )
    bias = () if layer.bias is None else (layer.bias,)
    linear = Linear(1, axis, axis, 2 if bias else None, width_attribute="filters")
    weights = (layer.pointwise_kernel, *bias)
    channels = int(kernel.shape[-2] * kernel.shape[-1])
    pointwise = LayerPart(class_name(call), linear, weights=weights, channels=channels)
    return with_activation(call, (depthwise, pointwise), axis)


def _einsum(call: KerasCall) -> Translation:
    """Its channels are the one axis of the kernel that the input lacks; it sums over the others."""
    layer = call.operation
    given, _, result = str(layer.equation).replace(" ", "").partition("->")
    values, _, kernel = given.partition(",")
    channels = [letter for letter in kernel if letter in result and letter not in values]
    if "." in given or len(set(kernel)) != len(kernel):
        return Opaque(f"there is no rule for the equation {layer.equation!r}")
    if len(channels) != 1:
        return Opaque(f"its kernel has {len(channels)} axes of output channels")
    if any(letter in values and letter in result for letter in kernel):
        return Opaque("its kernel differs from position to position")
    axis = result.index(channels[0])
    stated = layer.get_config()["output_shape"]
    width = "output_shape" if isinstance(stated, int) else f"output_shape.{axis - 1}"
    return _linear(call, Linear(1, kernel.index(channels[0]), axis, width_attribute=width))


def _linear(call: KerasCall, linear: Linear) -> Translation:
    """A product, its bias and the layer's activation."""
    layer, last = call.operation, rank_of(call) - 1
    if is_adapted(layer):
        return adapted(layer, "kernel")
    name = class_name(call)
    if layer.bias is None:
        product = LayerPart(name, linear, weights=(layer.kernel,))
    elif linear.output_axis == last:
        product = LayerPart(name, replace(linear, bias=2), weights=(layer.kernel, layer.bias))
    else:
        return Opaque("Keras may add its bias along another axis after a cut")
    return with_activation(call, (product,), last)


def adapted(layer: Any, weight: str) -> Opaque:
    """The refusal of a layer whose weight is quantized, or extended by LoRA."""
    mode = getattr(layer, "quantization_mode", None)
    if mode:
        return Opaque(f"its {weight} is quantized by Keras ({mode})", HINT_QUANTIZED)
    return Opaque(f"its {weight} has LoRA weights", CONVERT_HINT)


def is_adapted(layer: Any) -> bool:
    """Are the layer's weights quantized, or extended by LoRA?"""
    return bool(getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


def _time_distributed(call: KerasCall) -> Translation:
    """The layer inside, whose axes must count from the last one."""
    layer = call.operation.layer
    name = type(layer).__name__
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    if name not in TIME_DISTRIBUTED or not last or not is_of_keras(layer):
        return Opaque(f"inner layers of class {name} are not cut")
    inner = parts(call._replace(operation=layer), TIME_DISTRIBUTED[name])
    return tuple(map(_with_outer_settings, inner))


def _with_outer_settings(part: LayerPart) -> LayerPart:
    """Name settings as the outer layer's configuration does, which contains the inner one's."""
    operation = part.operation
    if isinstance(operation, Linear):
        operation = replace(operation, width_attribute=f"layer.config.{operation.width_attribute}")
    setting = f"layer.config.{part.setting}" if part.setting else ""
    return part._replace(operation=operation, setting=setting)


TIME_DISTRIBUTED: Mapping[str, Row] = {
    "Dense": _dense,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
}

LINEAR: Mapping[str, Row] = {
    **TIME_DISTRIBUTED,
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed_convolution
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise_convolution),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable_convolution),
    "EinsumDense": _einsum,
    "TimeDistributed": _time_distributed,
}
