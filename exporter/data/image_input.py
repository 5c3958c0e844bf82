"""The image input of a model, and how pixels become its values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.data.inputs import shape_text
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Quantization
from exporter.graph.normalization import Normalization

CHANNELS = {1: "L", 3: "RGB"}  # number of channels -> Pillow's mode
_RANK = 4


@dataclass(frozen=True)
class ImageInput:
    """A model input that takes one image.

    Attributes:
        channels_first: [batch, channels, height, width]; else channels come last.
        quantization: of an integer input; None if it takes floats or raw pixels.
    """

    name: str
    height: int
    width: int
    channels: int
    channels_first: bool
    dtype: str
    quantization: Quantization | None = None

    def values(self, pixels: Array, normalization: Normalization | None) -> Array:
        """The values of the input for one image.

        Args:
            pixels: (height, width, channels) uint8.
            normalization: None feeds pixels as they are.

        Returns:
            (1, height, width, channels), or channels first.
        """
        if normalization is None and self.dtype == pixels.dtype:
            values = pixels
        elif normalization is None:
            values = pixels.astype(np.int16) + np.iinfo(self.dtype).min  # int8 counts from -128
        else:
            values = normalization.apply(pixels)
            if self.quantization is not None:
                values = self.quantization.quantize(values)
        if self.channels_first:
            values = np.moveaxis(values, -1, 0)
        return np.asarray(values[np.newaxis], self.dtype)


def image_input(graph: Graph) -> ImageInput:
    """The image input of a model.

    Raises:
        UsageError: the model has several inputs, or its input is not an image of known size.
    """
    if len(graph.inputs) != 1:
        raise UsageError(
            f"the model has {len(graph.inputs)} inputs, and a folder of images fills one",
            "give the inputs as .npz",
        )
    (name,) = graph.inputs
    tensor = graph.tensors[name]
    shape = tensor.shape or ()
    last, first = shape[-1:] and shape[-1] in CHANNELS, shape[1:2] and shape[1] in CHANNELS
    is_number = tensor.dtype.removeprefix("u").startswith(("float", "int"))
    if len(shape) != _RANK or not (last or first) or not is_number:
        raise UsageError(
            f"input {name!r} of shape {shape_text(shape)} and dtype {tensor.dtype} does not take "
            "images",
            "images need [batch, height, width, channels] or [batch, channels, height, width]",
        )
    height, width, channels = (
        (shape[1], shape[2], shape[3]) if last else (shape[2], shape[3], shape[1])
    )
    if shape[0] not in {None, 1}:
        raise UsageError(
            f"input {name!r} takes {shape[0]} images at a time", "give the inputs as .npz"
        )
    if height is None or width is None or channels is None:
        sizes = f"1,224,224,{channels}" if last else f"1,{channels},224,224"
        raise UsageError(
            f"the image size of input {name!r} is open", f"give it: --input-shape {name}={sizes}"
        )
    return ImageInput(name, height, width, channels, not last, tensor.dtype, tensor.quantization)


def check_normalization(normalization: Normalization, wanted: ImageInput) -> Normalization:
    """The normalization, if the input can represent its values (raises UsageError)."""
    if len(normalization.mean) not in {1, wanted.channels}:
        raise UsageError(
            f"the normalization has {len(normalization.mean)} channels, input {wanted.name!r} has "
            f"{wanted.channels}",
            "give one mean and one standard deviation: --normalize MEAN,STD",
        )
    if wanted.quantization is None and not wanted.dtype.startswith("float"):
        limits = np.iinfo(wanted.dtype)
        low, high = normalization.range
        if low < limits.min or high > limits.max or high - low < 1:
            raise UsageError(
                f"input {wanted.name!r} takes {wanted.dtype}, which cannot represent the "
                f"normalized pixels {normalization}",
                "give --normalize 0..255, or none",
            )
    return normalization
