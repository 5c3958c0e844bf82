"""The handwritten digits in the package: real inputs for the demo and the tests.

From "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, CC BY 4.0: the test set of 1,797 images. NOTICE lists the changes.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"  # of digits.npz
HELD_OUT_EVERY = 5


class Digits(NamedTuple):
    """Images of digits.

    Attributes:
        images: (images, 8, 8, 1) float32, 0.0 (paper) to 1.0 (ink).
        labels: (images,) int64, the digits 0 to 9.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def load_digits() -> Digits:
    """All 1,797 images, in the order of the source."""
    file = resources.files("exporter.data") / "digits.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        images = arrays["images"].astype(np.float32)[..., np.newaxis] / np.float32(16)
        return Digits(images, arrays["labels"].astype(np.int64))


def split_digits() -> tuple[Digits, Digits]:
    """The training set, and the test set of every fifth image (360).

    The source is sorted by writer: the last images alone would come from few writers.
    """
    images, labels = load_digits()
    held_out = np.arange(len(labels)) % HELD_OUT_EVERY == 0
    return Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])
