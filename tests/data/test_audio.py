"""WAV files: mixed down, resampled and cut to windows of the model's length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile
from scipy.signal import resample_poly

from exporter.data.audio import read_window
from exporter.data.options import DataOptions
from exporter.data.read import read_samples
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Quantization, Shape, Tensor
from exporter.graph.lengths import Lengths

LENGTH = 800
RATE = 16000
AT_RATE = DataOptions(sample_rate=RATE)


def graph(shape: Shape | None = (1, LENGTH), dtype: str = "float32", **more: Any) -> Graph:
    tensor = Tensor("wave", shape, dtype, quantization=more.pop("quantization", None))
    return Graph((), {"wave": tensor}, ("wave",), (), **more)


def noise(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, count).astype(np.float32)


def feeds(path: Path, model: Graph, options: DataOptions = AT_RATE) -> list[Array]:
    return [feed["wave"] for feed in read_samples(path, model, options=options).feeds()]


@pytest.mark.parametrize("shape", [(1, LENGTH), (None, LENGTH), (LENGTH,), (1, LENGTH, 1)])
def test_windows(tmp_path: Path, shape: Shape) -> None:
    """Two whole windows; the rest, more than half, is filled with silence."""
    wave = noise(2 * LENGTH + 500)
    soundfile.write(tmp_path / "a.wav", wave, RATE, "FLOAT")
    got = feeds(tmp_path / "a.wav", graph(shape))
    expected = np.concatenate([wave, np.zeros(300, np.float32)]).reshape(3, LENGTH)
    assert [each.shape for each in got] == [tuple(n or 1 for n in shape)] * 3
    assert all(each.dtype == np.float32 for each in got)
    assert np.array_equal(np.reshape(got, (3, LENGTH)), expected)


@pytest.mark.parametrize(
    ("count", "windows"),
    [(1, 1), (LENGTH, 1), (LENGTH + 399, 1), (LENGTH + 400, 2), (3 * LENGTH - 1, 3)],
)
def test_a_short_rest_is_dropped(tmp_path: Path, count: int, windows: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(count), RATE, "FLOAT")
    assert len(feeds(tmp_path / "a.wav", graph())) == windows


# the step between two values; float32 rounds the finest
SUBTYPES = {"PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-23, "PCM_U8": 2**-7, "FLOAT": 0.0}


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_sample_formats(tmp_path: Path, subtype: str) -> None:
    wave = noise(LENGTH)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype)
    (got,) = feeds(tmp_path / "a.wav", graph())
    assert np.abs(got[0] - wave).max() <= SUBTYPES[subtype]


def test_a_file_that_scipy_wrote(tmp_path: Path) -> None:
    """int16 values count in steps of 1 / 32768; channels are averaged."""
    left, right = np.arange(LENGTH, dtype=np.int16) * 40, np.full(LENGTH, -3000, np.int16)
    wavfile.write(tmp_path / "a.wav", RATE, np.stack([left, right], axis=1))
    (got,) = feeds(tmp_path / "a.wav", graph())
    assert np.allclose(got[0], (left.astype(float) + right) / 2 / 32768, atol=1e-9)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 22050])
def test_resampled_windows_are_parts_of_the_resampled_sound(tmp_path: Path, rate: int) -> None:
    wave = noise(int(rate * 0.4)).astype(np.float64)
    soundfile.write(tmp_path / "a.wav", wave, rate, "DOUBLE")
    whole = resample_poly(wave, RATE, rate)  # by SciPy, with the same filter
    whole = np.pad(whole, (0, 8 * LENGTH - len(whole)))
    for i in range(8):
        got = read_window(tmp_path / "a.wav", i, LENGTH, RATE)
        assert np.abs(got - whole[i * LENGTH : (i + 1) * LENGTH]).max() < 1e-9


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param(graph(dtype="int16"), [16384, -32768, 0], id="int16"),
        pytest.param(
            graph(
                dtype="int8",
                quantization=Quantization(np.array([1 / 128]), np.array([0]), -128, 127),
            ),
            [64, -128, 0],
            id="quantized",
        ),
        pytest.param(graph(dtype="float16"), [0.5, -1, 0], id="float16"),
    ],
)
def test_dtypes(tmp_path: Path, model: Graph, expected: list[float]) -> None:
    wave = np.zeros(LENGTH)
    wave[:2] = 0.5, -1
    soundfile.write(tmp_path / "a.wav", wave, RATE, "FLOAT")
    (got,) = feeds(tmp_path / "a.wav", model)
    assert got.dtype == model.tensors["wave"].dtype
    assert got[0, :3].tolist() == expected


def test_sub_folders_are_labels_of_all_windows(tmp_path: Path) -> None:
    for label, count in (("cat", 1), ("dog", 2)):
        (tmp_path / label).mkdir()
        soundfile.write(tmp_path / label / "a.wav", noise(count * LENGTH), RATE, "FLOAT")
    samples = read_samples(tmp_path, graph(), options=AT_RATE)
    assert samples.labels == ("cat", "dog", "dog")
    assert [path.parent.name for path in samples.files] == ["cat", "dog"]
    two = read_samples(tmp_path, graph(), 2, AT_RATE)
    assert (two.count, two.labels) == (2, ("cat", "dog"))
    values: Any = samples.values["wave"]
    assert len(values[1:]) == 2


def test_the_rate_of_the_metadata(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2 * LENGTH), 2 * RATE, "FLOAT")
    stated = graph(sample_rates={"wave": RATE})
    assert len(feeds(tmp_path / "a.wav", stated, DataOptions())) == 1
    assert len(feeds(tmp_path / "a.wav", stated, AT_RATE)) == 1
    with pytest.raises(UsageError, match="takes 16000 Hz, and --sample-rate is 8000"):
        feeds(tmp_path / "a.wav", stated, DataOptions(sample_rate=8000))


def test_an_open_length_is_given(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(LENGTH), RATE, "FLOAT")
    options = DataOptions(sample_rate=RATE, lengths=Lengths({"wave": (1, LENGTH)}))
    assert len(feeds(tmp_path / "a.wav", graph((None, None)), options)) == 1


def two_inputs() -> Graph:
    tensors = {name: Tensor(name, (1, LENGTH), "float32") for name in "ab"}
    return Graph((), tensors, ("a", "b"), ())


REFUSED: Mapping[str, tuple[Graph, DataOptions, str]] = {
    "two inputs": (two_inputs(), AT_RATE, "the model has 2 inputs, and sound fills one"),
    "a spectrogram": (graph((1, 96, 64, 1)), AT_RATE, "does not take a waveform"),
    "two channels": (graph((1, LENGTH, 2)), AT_RATE, "does not take a waveform"),
    "few features": (graph((1, 64)), AT_RATE, "does not take a waveform"),
    "any rank": (graph(None), AT_RATE, "does not take a waveform"),
    "texts": (graph(dtype="string"), AT_RATE, "does not take a waveform"),
    "an open length": (graph((1, None)), AT_RATE, "the length of input 'wave' is open"),
    "an unknown rate": (graph(), DataOptions(), "its 800 values are 0.05 s at 16000 Hz"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_take_no_waveform_are_refused(tmp_path: Path, name: str) -> None:
    model, options, message = REFUSED[name]
    soundfile.write(tmp_path / "a.wav", noise(LENGTH), RATE, "FLOAT")
    with pytest.raises(UsageError, match=message) as error:
        read_samples(tmp_path, model, options=options)
    assert error.value.hint


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF and no more")
    (tmp_path / "b.wav").write_bytes(b"")
    soundfile.write(tmp_path / "c.wav", np.zeros(0), RATE, "FLOAT")
    with pytest.raises(UsageError, match=r"a\.wav cannot be decoded \(and 2 more\)"):
        read_samples(tmp_path, graph(), options=AT_RATE)
    soundfile.write(tmp_path / "d.wav", noise(LENGTH), RATE, "FLOAT")
    skipping = DataOptions(sample_rate=RATE, skip_bad=True)
    samples = read_samples(tmp_path, graph(), options=skipping)
    assert samples.count == 1
    assert samples.warnings[0].endswith("cannot be decoded and were left out")
    (tmp_path / "d.wav").write_bytes(b"gone")
    with pytest.raises(UsageError, match=r"d\.wav cannot be decoded") as error:
        list(samples.feeds())
    assert "--skip-bad" in error.value.hint


def test_a_folder_of_images_and_sounds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(UsageError, match="contains images and WAV files"):
        read_samples(tmp_path, graph())
