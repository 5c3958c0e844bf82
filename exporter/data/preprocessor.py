"""How Hugging Face's image processors prepare images: `preprocessor_config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.data.options import Resize
from exporter.errors import UsageError
from exporter.graph.normalization import Normalization
from exporter.selection.text_file import read_text

FILE = "preprocessor_config.json"
_BICUBIC = 3  # as Pillow numbers the filters, and the file too; Pillow's default
_FILTERS = range(6)
_OF_IMAGES = {"image_mean", "image_std", "do_rescale", "rescale_factor", "image_processor_type"}


@dataclass(frozen=True)
class Resizing:
    """How an image gets the size of the input.

    Attributes:
        shown: the share of the shorter side that "crop" keeps: 224 / 256 is common.
        resample: the filter, as Pillow numbers them.
    """

    policy: Resize = "stretch"
    shown: float = 1.0
    resample: int = _BICUBIC


@dataclass(frozen=True)
class Preprocessor:
    """How the model was trained to see images."""

    normalization: Normalization
    resizing: Resizing


def read_preprocessor(model: Path | None) -> Preprocessor | None:
    """The image processor next to a model; None if there is no such file, or it is not of images.

    input = (pixel * rescale_factor - image_mean) / image_std. An image is resized to `size`: to
    that height and width, or so that its shorter side has that length; then its center of
    `crop_size` is used. Lengths count in proportion: the model's input is the size that is made.

    Raises:
        UsageError: the file is not valid JSON, or its numbers are unusable.
    """
    if model is None or not (path := model.parent / FILE).is_file():
        return None
    try:
        config = json.loads(read_text(path))
    except ValueError as error:
        raise UsageError(
            f"{path} is not valid JSON: {error}", "correct it, or remove it"
        ) from error
    if not isinstance(config, dict) or not _OF_IMAGES & config.keys():
        return None
    try:
        return Preprocessor(_normalization(config), _resizing(config))
    except (TypeError, ValueError, KeyError, ZeroDivisionError, UsageError) as error:
        raise UsageError(
            f"{path} does not describe how to prepare images: {error!r}",
            "correct it, or remove it and give --normalize and --resize",
        ) from error


def _normalization(config: Mapping[str, Any]) -> Normalization:
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    mean, std = [0.0], [1.0]
    if config.get("do_normalize", True):
        mean, std = _numbers(config.get("image_mean", mean)), _numbers(config.get("image_std", std))
    return Normalization(tuple(m / factor for m in mean), tuple(s / factor for s in std))


def _resizing(config: Mapping[str, Any]) -> Resizing:
    resample = int(config.get("resample", _BICUBIC))
    if resample not in _FILTERS:
        raise ValueError(f"resample {resample}")
    size = _sides(config["size"]) if config.get("do_resize", True) and "size" in config else None
    if not (config.get("do_center_crop") and "crop_size" in config):
        # without a crop, a shorter side is one of a square
        return Resizing("stretch", resample=resample)
    shown = min(_sides(config["crop_size"])) / min(size) if size else 1.0
    return Resizing("crop", min(shown, 1.0), resample)


def _sides(size: Any) -> tuple[float, ...]:
    """The lengths in `size` or `crop_size`: a number, or an object of numbers."""
    lengths = _numbers(size.values() if isinstance(size, dict) else [size])
    if not lengths or min(lengths) <= 0:
        raise ValueError(f"size {size}")
    return tuple(lengths)


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in ([values] if isinstance(values, int | float) else values)]
