"""How image pixels become the values of a model's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.errors import UsageError

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # torchvision, on pixels 0 to 255


@dataclass(frozen=True)
class Normalization:
    """input = (pixel - mean) / std, for pixels 0 to 255.

    Attributes:
        mean, std: one value for all channels, or one per channel.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise UsageError(
                f"{len(self.mean)} means and {len(self.std)} standard deviations do not match",
                "give one of each, or one of each per channel",
            )
        if not all(np.isfinite((*self.mean, *self.std))) or not all(self.std):
            raise UsageError("a mean or standard deviation is 0 or not finite", "give other values")

    def apply(self, pixels: Any) -> Any:
        """Normalize pixels.

        Args:
            pixels: (..., channels), 0 to 255.

        Returns:
            float32, the same shape.
        """
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return np.asarray((pixels - mean) / std, np.float32)

    @property
    def range(self) -> tuple[float, float]:
        """The input values of pixels 0 and 255, over all channels."""
        ends = [
            (pixel - m) / s for pixel in (0, 255) for m, s in zip(self.mean, self.std, strict=True)
        ]
        return min(ends), max(ends)

    def __str__(self) -> str:
        low, high = self.range
        return f"{low:.3g}..{high:.3g}"


PIXELS = Normalization()  # the model takes pixels as they are


def parse_normalization(text: str) -> Normalization:
    """Read the option `--normalize`.

    - `imagenet`: the mean and standard deviation per channel that torchvision uses;
    - `A..B`: pixel 0 becomes A, and pixel 255 becomes B (`-1..1`, `0..1`, `0..255`);
    - `MEAN,STD` or three means and three standard deviations, in pixels.

    Raises:
        UsageError: none of these.
    """
    if text.strip().lower() == "imagenet":
        return Normalization(*_IMAGENET)
    try:
        if ".." in text:
            low, high = (float(end) for end in text.split(".."))
            scale = (high - low) / 255
            return Normalization((-low / scale,), (1 / scale,)) if scale else _refuse(text)
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        return _refuse(text)
    if len(numbers) not in {2, 6}:
        return _refuse(text)
    half = len(numbers) // 2
    return Normalization(tuple(numbers[:half]), tuple(numbers[half:]))


def _refuse(text: str) -> Normalization:
    raise UsageError(
        f"{text!r} is not a normalization", "write imagenet, -1..1, 0..1, 0..255, or MEAN,STD"
    )
