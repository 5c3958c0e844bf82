"""True masks of segmentation: the unit of each pixel, from images of indices or an .npz file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.decode import resized
from exporter.data.preprocessor import Resizing
from exporter.errors import UsageError
from exporter.graph import Array

NO_LABEL = -1  # of a pixel that is not measured
IGNORED = 255  # in a mask, as in the masks of PASCAL VOC
ARRAY = "masks"  # in an .npz
_NEAREST = 0  # Pillow's number of the filter that does not mix indices
_HINT = "a mask has one unit index per pixel, and 255 where it is not known"

Masks = Callable[[int, tuple[int, int]], Array]  # sample, (height, width) -> units or NO_LABEL


def read_true_masks(
    path: Path, count: int, names: Sequence[str] | None, resizing: Resizing, units: int
) -> Masks:
    """How to read the mask of a sample, in the size of the model's output.

    Args:
        path: a folder of images with the paths of the samples, and the suffix .png; or an .npz with
            the array `masks` of shape [samples, height, width].
        count: number of samples.
        names: of the samples, relative to their folder; None if they are in one file.
        resizing: of the samples, which the masks follow.
        units: of the original.

    Raises:
        UsageError: not such masks, or one for another number of samples.
    """
    every = _of_folder(path, names) if path.is_dir() else _of_array(path, count)

    def mask(sample: int, size: tuple[int, int]) -> Array:
        values = np.asarray(every[sample]() if callable(every[sample]) else every[sample])
        unknown = np.full(values.shape, IGNORED)
        values = np.where(values == NO_LABEL, unknown, values)
        wrong = values[(values != IGNORED) & ((values < 0) | (values >= units))]
        if wrong.size:
            raise UsageError(
                f"mask {sample} of {path.name} has the value {wrong.flat[0]}, and the model has "
                f"{units} units",
                _HINT,
            )
        placed = np.asarray(_resized(values, size, resizing))
        return np.where(placed == IGNORED, NO_LABEL, placed).astype(np.int64)

    return mask


def _of_folder(path: Path, names: Sequence[str] | None) -> Sequence[Any]:
    if names is None:
        raise UsageError(
            f"the masks in {path.name} belong to images, and the samples are in one file",
            f"give an .npz with the array {ARRAY}",
        )
    files = [(path / name).with_suffix(".png") for name in names]
    for file in files:
        if not file.is_file():
            raise UsageError(f"there is no mask {file}", "write one .png for each sample")
    return [lambda file=file: _indices(file) for file in files]


def _indices(path: Path) -> Array:
    """The pixel values of a gray or palette image: indices, not colors."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    try:
        with Image.open(path, formats=["PNG"]) as image:
            values = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"{path} cannot be decoded: {error}", _HINT) from error
    if values.ndim != 2:  # noqa: PLR2004 - height, width
        raise UsageError(f"{path} is an image of colors", _HINT)
    return values.astype(np.int32)


def _of_array(path: Path, count: int) -> Sequence[Any]:
    try:
        masks = np.load(path)[ARRAY]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(
            f"{path.name} has no masks: {error}", f"give an .npz with the array {ARRAY}"
        ) from error
    if masks.ndim != 3 or len(masks) < count or masks.dtype.kind not in "iu":  # noqa: PLR2004
        raise UsageError(
            f"{ARRAY} in {path.name} is {masks.dtype} of shape {list(masks.shape)}, for {count} "
            "samples",
            "give integers of shape [samples, height, width]",
        )
    return list(masks[:count].astype(np.int32))


def _resized(values: Array, size: tuple[int, int], resizing: Resizing) -> Any:
    """The mask as the image is resized; what "pad" adds is not measured."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    if values.shape == size:
        return values
    image = Image.fromarray(values.astype(np.int32))
    nearest = Resizing(resizing.policy, resizing.shown, _NEAREST)
    return resized(image, size[::-1], nearest, fill=IGNORED)
