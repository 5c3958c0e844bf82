"""Decode an image file to pixels of the size of an input."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.image_input import CHANNELS, ImageInput
from exporter.data.preprocessor import Resizing
from exporter.errors import UsageError
from exporter.graph import Array

# By content: the suffix may be wrong. Others are refused: for EPS, Pillow starts another program.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")


def large_pixels(path: Path) -> int | None:
    """Read the header of an image file.

    Returns:
        The number of pixels if Pillow warns of it (above 89 million), else 0; None if the file
        cannot be decoded.
    """
    from PIL import Image  # noqa: PLC0415 - an optional library

    with _decoding(path) as failed, Image.open(path, formats=_FORMATS) as image:
        pixels = image.width * image.height
    if failed:
        return None
    return pixels if pixels > (Image.MAX_IMAGE_PIXELS or pixels) else 0


def can_decode(path: Path) -> bool:
    """Decode all pixels, which takes as long as using them."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    with _decoding(path) as failed, Image.open(path, formats=_FORMATS) as image:
        image.load()
    return not failed


def decode(path: Path, content: bytes, wanted: ImageInput, resizing: Resizing) -> Array:
    """(height, width, channels) uint8, turned as the camera's orientation tag says.

    Raises:
        UsageError: the file cannot be decoded.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - an optional library

    with _decoding(path) as failed, Image.open(BytesIO(content), formats=_FORMATS) as opened:
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        image, mode = _eight_bit(opened), CHANNELS[wanted.channels]
        image = image if image.mode == mode else image.convert(mode)  # both calls would copy
    if failed:
        raise failed[0]
    placed = resized(image, (wanted.width, wanted.height), resizing)
    return np.asarray(placed).reshape(wanted.height, wanted.width, wanted.channels)


def resized(image: Any, size: tuple[int, int], resizing: Resizing, fill: int = 0) -> Any:
    """A Pillow image of another size, width first; "pad" adds pixels of the value `fill`."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - an optional library

    method = Image.Resampling(resizing.resample)
    match resizing.policy:
        case "stretch":
            return image.resize(size, method)
        case "crop":
            return ImageOps.fit(image, size, method, bleed=(1 - resizing.shown) / 2)
        case _:
            return ImageOps.pad(image, size, method, color=fill)


@contextmanager
def _decoding(path: Path) -> Iterator[list[UsageError]]:
    """Collects the error if Pillow cannot decode the file; Pillow's own warnings are not shown."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    failed: list[UsageError] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield failed
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        failed.append(
            UsageError(f"{path} cannot be decoded: {error}", "remove it, or give --skip-bad")
        )


def _eight_bit(image: Any) -> Any:
    """The image; of 16-bit gray the upper 8 bits. Pillow would make all values above 255 white."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
