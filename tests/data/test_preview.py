"""The pictures and numbers that a report shows of one sample."""

from __future__ import annotations

import sys
from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.data.preview import picture_of, preview_inputs
from exporter.data.samples import Samples

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
LEVELS[0, 0], LEVELS[0, 1] = 0, 255  # both ends


def decoded(picture: str) -> Any:
    kind, text = picture.split(";base64,")
    image = Image.open(BytesIO(b64decode(text)))
    assert kind == f"data:image/{(image.format or '').lower()}"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(LEVELS, LEVELS, id="bytes"),
        pytest.param(LEVELS / np.float32(255), LEVELS, id="0 to 1"),
        pytest.param(LEVELS / np.float32(127.5) - 1, LEVELS, id="-1 to 1"),
        pytest.param(LEVELS.astype(np.float32), LEVELS, id="0 to 255 as floats"),
        pytest.param(LEVELS * np.float32(8) - 1000, LEVELS, id="any other range is stretched"),
        pytest.param((LEVELS.astype(int) - 128).astype(np.int8), LEVELS, id="signed bytes"),
        pytest.param(np.moveaxis(LEVELS, -1, 0), LEVELS, id="channels first"),
        pytest.param(LEVELS[..., :1], LEVELS[..., 0], id="gray"),
        pytest.param(LEVELS[:5, :5, 0], LEVELS[:5, :5, 0], id="gray without channels"),
        pytest.param(LEVELS[..., [0, 1, 2, 0]], LEVELS[..., [0, 1, 2, 0]], id="with alpha"),
        pytest.param(np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3)), id="black"),
        pytest.param(np.full((4, 4, 3), 300.0), np.zeros((4, 4, 3)), id="one value out of range"),
    ],
)
def test_pictures(values: Any, expected: Any) -> None:
    np.testing.assert_array_equal(decoded(picture_of(values[np.newaxis], 64)), expected)


@pytest.mark.parametrize(
    "shape",
    [(1, 5, 6), (1, 5, 6, 2), (1, 2, 6, 3), (1, 3, 5, 6, 3), (5, 6, 3), (1, 8), (0, 8, 8, 3)],
)
def test_no_picture(shape: tuple[int, ...]) -> None:
    assert not picture_of(np.zeros(shape, np.float32), 64)


def test_a_batch_is_shown_side_by_side() -> None:
    batch = np.stack([LEVELS, LEVELS[::-1], LEVELS, LEVELS, LEVELS])
    shown = decoded(picture_of(batch, 64))
    np.testing.assert_array_equal(shown, np.concatenate(list(batch[:4]), axis=1))


def test_large_pictures_are_small_files() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (1, 600, 300, 3)).astype(np.uint8)
    picture = picture_of(photo, 128)
    assert picture.startswith("data:image/jpeg")
    assert decoded(picture).shape == (128, 64, 3)
    assert len(picture) < 20_000


def test_no_picture_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert not picture_of(LEVELS[np.newaxis], 64)


def test_inputs_of_a_sample() -> None:
    ids = np.arange(40, dtype=np.int64).reshape(2, 1, 20)
    texts = np.array([[["a"]], [["<b>"]]])
    broken = np.array([[[1.0]], [[np.nan]]], np.float32)
    samples = Samples({"ids": ids, "text": texts, "x": broken, "none": np.empty((2, 0))}, "d")
    found = {each.name: each for each in preview_inputs(samples, 1)}
    assert (found["ids"].low, found["ids"].mean, found["ids"].high) == (20.0, 29.5, 39.0)
    assert found["ids"].values == tuple(str(each) for each in range(20, 32))
    assert (found["ids"].shape, found["ids"].dtype, found["ids"].picture) == ((1, 20), "int64", "")
    assert (found["text"].values, found["text"].low) == (("<b>",), None)
    assert (found["x"].values, found["x"].low, found["x"].mean) == (("nan",), None, None)
    assert found["none"].values == ()
