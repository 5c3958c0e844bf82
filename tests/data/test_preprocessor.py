"""`preprocessor_config.json` of Hugging Face's image processors, next to the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.data.decode import decode
from exporter.data.image_input import ImageInput
from exporter.data.options import DataOptions
from exporter.data.preprocessor import Resizing, read_preprocessor
from exporter.data.read import read_samples
from exporter.errors import UsageError
from exporter.graph import Graph, Tensor
from exporter.graph.normalization import Normalization, parse_normalization

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
VIT = {
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 24, "width": 24},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.25, 0.5],
}


def graph(**more: Any) -> Graph:
    return Graph((), {"x": Tensor("x", (1, 3, 24, 24), "float32")}, ("x",), (), **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "set" / "a.png")
    return tmp_path


def config(folder: Path, values: Any = VIT) -> DataOptions:
    text = values if isinstance(values, str) else json.dumps(values)
    (folder / "preprocessor_config.json").write_text(text)
    return DataOptions(model=folder / "net.onnx")


def test_images_are_prepared_as_the_file_says(folder: Path) -> None:
    """The processor's own steps with Pillow and NumPy: resize, center crop, rescale, normalize."""
    samples = read_samples(folder / "set", graph(), options=config(folder))
    got = next(samples.feeds())["x"][0]
    resized = Image.fromarray(PIXELS).resize((48, 32), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized.crop((12, 4, 36, 28)), np.float64)
    expected = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]
    assert got.dtype == np.float32
    assert np.abs(got - np.moveaxis(expected, -1, 0)).max() < 1.01 / 255 / 0.2  # one pixel step
    assert samples.source == "set, prepared as in preprocessor_config.json"


NORMALIZED: dict[str, tuple[dict[str, Any], float]] = {
    "mean and deviation": (VIT, (100 / 255 - 0.5) / 0.2),
    "another factor": (VIT | {"rescale_factor": 1 / 127.5}, (100 / 127.5 - 0.5) / 0.2),
    "no normalization": (VIT | {"do_normalize": False}, 100 / 255),
    "pixels": (VIT | {"do_normalize": False, "do_rescale": False}, 100.0),
    "one number": ({"image_mean": 0.5, "image_std": 0.5}, (100 / 255 - 0.5) / 0.5),
    "defaults": ({"do_rescale": True}, 100 / 255),
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_normalization(tmp_path: Path, name: str) -> None:
    values, expected = NORMALIZED[name]
    found = read_preprocessor(config(tmp_path, values).model)
    assert found is not None
    assert found.normalization.apply(np.full((1, 1, 3), 100))[0, 0, 0] == pytest.approx(expected)


RESIZED: dict[str, tuple[dict[str, Any], Resizing]] = {
    "shorter side, then a crop": (VIT, Resizing("crop", 0.75, 2)),
    "height and width": (
        {"image_mean": [0], "image_std": [1], "size": {"height": 9, "width": 8}},
        Resizing("stretch"),
    ),
    "numbers": (VIT | {"size": 256, "crop_size": 224}, Resizing("crop", 0.875, 2)),
    "crop without a resize": (VIT | {"do_resize": False}, Resizing("crop", 1.0, 2)),
    "no crop": (VIT | {"do_center_crop": False}, Resizing("stretch", 1.0, 2)),
}


@pytest.mark.parametrize("name", RESIZED)
def test_resizing(tmp_path: Path, name: str) -> None:
    values, expected = RESIZED[name]
    found = read_preprocessor(config(tmp_path, values).model)
    assert found is not None
    assert found.resizing == expected


def first_value(folder: Path, options: DataOptions, graph: Graph) -> float:
    """Of the input for a gray image of 100."""
    Image.fromarray(np.full((24, 24, 3), 100, np.uint8)).save(folder / "set" / "a.png")
    return float(next(read_samples(folder / "set", graph, options=options).feeds())["x"].flat[0])


def test_which_normalization_is_used(folder: Path) -> None:
    """--normalize, then the metadata, then this file."""
    stated = graph(normalization={"x": parse_normalization("0..1")})
    plain = config(folder)
    given = DataOptions(Normalization((90.0,), (1.0,)), model=plain.model)
    assert first_value(folder, given, stated) == pytest.approx(10)
    assert first_value(folder, plain, stated) == pytest.approx(100 / 255)
    assert first_value(folder, plain, graph()) == pytest.approx((100 / 255 - 0.5) / 0.2)


def test_the_option_resize_is_first(folder: Path) -> None:
    options = DataOptions(resize="stretch", model=config(folder).model)
    got = next(read_samples(folder / "set", graph(), options=options).feeds())["x"][0]
    wanted = ImageInput("x", 24, 24, 3, channels_first=True, dtype="float32")
    path = folder / "set" / "a.png"
    pixels = decode(path, path.read_bytes(), wanted, Resizing("stretch"))
    expected = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]
    assert np.allclose(got, np.moveaxis(expected, -1, 0), atol=1e-5)


REFUSED = {
    "not JSON": "{",
    "no numbers": {"image_mean": ["a"], "image_std": [1]},
    "a size of 0": VIT | {"size": 0},
    "an unknown filter": VIT | {"resample": 9},
    "a deviation of 0": VIT | {"image_std": [0, 0, 0]},
    "a factor of 0": VIT | {"rescale_factor": 0},
    "numbers that do not match": VIT | {"image_std": [1]},
    "an empty size": VIT | {"size": {}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_files_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"preprocessor_config\.json") as error:
        read_samples(folder / "set", graph(), options=config(folder, REFUSED[name]))
    assert "remove it" in error.value.hint


@pytest.mark.parametrize("values", [{"feature_size": 1, "sampling_rate": 16000}, []])
def test_a_file_that_is_not_of_images_is_ignored(folder: Path, values: Any) -> None:
    with pytest.raises(UsageError, match="how input 'x' expects pixels is not known"):
        read_samples(folder / "set", graph(), options=config(folder, values))
    assert read_preprocessor(None) is None
