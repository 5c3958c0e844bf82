"""One sample as a report shows it: a small picture of each image, numbers of other inputs."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np

from exporter.data.samples import Samples
from exporter.graph import Array
from exporter.records import InputPreview

_CHANNELS = {1, 3, 4}
_SMALLEST_SIDE = 4  # pixels; fewer show nothing
_LARGEST_SIDE = 128
_LOSSLESS_SIDE = 64  # of a larger picture, a JPEG is a tenth of a PNG
_MOST_ROWS = 4  # of a batch, next to each other
_MOST_VALUES = 12
_IMAGE, _GRAY = 4, 3  # ranks, with the batch


def preview_inputs(samples: Samples, index: int) -> tuple[InputPreview, ...]:
    """All inputs of one sample; the longer side of a picture has 128 pixels at most."""
    return tuple(
        _preview(name, np.asarray(values[index])) for name, values in samples.values.items()
    )


def _preview(name: str, values: Array) -> InputPreview:
    shown = values.ravel()[:_MOST_VALUES]
    shape, dtype = tuple(map(int, values.shape)), str(values.dtype)
    if values.dtype.kind not in "biuf" or not values.size:
        return InputPreview(name, shape, dtype, None, None, None, tuple(map(str, shown)))
    numbers = values.astype(np.float64)
    low, mean, high = (float(each(numbers)) for each in (np.min, np.mean, np.max))
    finite = bool(np.isfinite([low, mean, high]).all())
    return InputPreview(
        name,
        shape,
        dtype,
        low if finite else None,
        mean if finite else None,
        high if finite else None,
        tuple(f"{value:.6g}" for value in shown.tolist()),
        picture_of(values, _LARGEST_SIDE) if finite else "",
    )


def picture_of(values: Array, side: int) -> str:
    """A data URI of a picture; "" if the values are no image, or Pillow is not installed.

    Args:
        values: (batch, height, width, channels), channels first, or (batch, height, width) with
            equal sides; finite.
    """
    pixels = _pixels(values)
    if pixels is None:
        return ""
    try:
        from PIL import Image  # noqa: PLC0415 - an optional library
    except ImportError:
        return ""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((side, side))
    kind = "PNG" if max(image.size) <= _LOSSLESS_SIDE or image.mode == "RGBA" else "JPEG"
    content = BytesIO()
    image.save(content, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{b64encode(content.getvalue()).decode()}"


def _pixels(values: Array) -> Array | None:
    """(height, width, channels) uint8; the first images of a batch next to each other."""
    values = values[:_MOST_ROWS]
    if not values.size:
        return None
    if values.ndim == _GRAY and values.shape[1] == values.shape[2]:
        values = values[..., np.newaxis]
    if values.ndim != _IMAGE:
        return None
    if values.shape[-1] not in _CHANNELS:
        values = np.moveaxis(values, 1, -1)
    if values.shape[-1] not in _CHANNELS or min(values.shape[1:3]) < _SMALLEST_SIDE:
        return None
    scaled = _levels(np.concatenate(list(values), axis=1).astype(np.float64), values.dtype)
    return np.rint(scaled).astype(np.uint8)


def _levels(values: Array, dtype: np.dtype[np.generic]) -> Array:
    """The values as levels 0 to 255, for the usual ranges of pixels; others are stretched."""
    low, high = float(values.min()), float(values.max())
    if dtype == np.int8:
        return values + 128
    if dtype.kind == "f" and low >= 0 and high <= 1:
        return values * 255
    if dtype.kind == "f" and low >= -1 and high <= 1:
        return (values + 1) * (255 / 2)
    if low >= 0 and high <= 255:  # noqa: PLR2004 - 8 bits
        return values
    return (values - low) * (255 / (high - low)) if high > low else values * 0
