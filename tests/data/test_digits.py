"""The digits in the package are equal to the digits of the source."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from exporter.data.digits import SHA256, load_digits, split_digits

# Images of each digit, according to the description of the source (optdigits.names).
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]

# The first image, from the first line of the source.
FIRST = """
    0  0  5 13  9  1  0  0
    0  0 13 15 10 15  5  0
    0  3 15  2  0 11  8  0
    0  4 12  0  0  8  8  0
    0  5  8  0  0  9  8  0
    0  4 11  0  1 12  7  0
    0  2 14  5 10 12  0  0
    0  0  6 13 10  0  0  0
"""


def test_sha256() -> None:
    content = (resources.files("exporter.data") / "digits.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_all_images() -> None:
    images, labels = load_digits()
    assert (images.shape, images.dtype.name) == ((1797, 8, 8, 1), "float32")
    assert (labels.shape, labels.dtype.name) == ((1797,), "int64")
    assert (images.min(), images.max()) == (0.0, 1.0)
    assert np.bincount(labels).tolist() == COUNTS
    first = np.array([int(n) for n in FIRST.split()]).reshape(8, 8)
    assert (images[0, :, :, 0] * 16 == first).all()
    assert labels[:10].tolist() == list(range(10))


def test_split_is_disjoint_and_contains_every_digit() -> None:
    train, held_out = split_digits()
    assert (len(train.labels), len(held_out.labels)) == (1437, 360)
    images, labels = load_digits()
    assert (held_out.images == images[::5]).all()
    assert (held_out.labels == labels[::5]).all()
    assert np.bincount(train.labels, minlength=10).min() > 100
    assert np.bincount(held_out.labels, minlength=10).min() > 20
