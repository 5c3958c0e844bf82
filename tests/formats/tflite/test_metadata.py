"""The normalization in TFLite metadata."""

from __future__ import annotations

import pytest

from exporter.formats.tflite.metadata import normalizations, sample_rates
from exporter.graph.normalization import Normalization
from tests.builders.tflite_metadata import input_metadata, metadata, sound_metadata


@pytest.mark.parametrize(
    ("mean", "std"), [((127.5,), (127.5,)), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))]
)
def test_a_normalization_is_read(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert normalizations(input_metadata(mean, std)) == [Normalization(mean, std)]


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        pytest.param((), (), id="empty"),
        pytest.param((1.0, 2.0), (1.0,), id="different lengths"),
        pytest.param((0.0,), (0.0,), id="division by zero"),
        pytest.param((float("nan"),), (1.0,), id="NaN"),
    ],
)
def test_an_unusable_normalization_does_not_refuse_the_model(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    assert normalizations(input_metadata(mean, std)) == [None]


def test_metadata_without_a_normalization() -> None:
    assert normalizations(metadata(())) == []
    assert normalizations(b"no metadata") == []


def test_the_sample_rate_of_sound() -> None:
    assert sample_rates(sound_metadata(16000)) == [16000]
    assert sample_rates(sound_metadata(0)) == [None]
    assert sample_rates(sound_metadata(16000, content=2)) == [None]  # ImageProperties
    assert sample_rates(sound_metadata(16000, content=0)) == [None]
    assert sample_rates(b"no metadata") == []
