"""Samples from WAV files: windows of sound with the length of the model's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from exporter.data.folders import FileSet, files_below, refuse_bad, skipped_warning
from exporter.data.inputs import shape_text
from exporter.data.options import DataOptions
from exporter.data.samples import Samples
from exporter.data.stream import spread
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Quantization

SUFFIXES = (".wav",)
_SHORTEST = 400  # values of a waveform: 25 ms at 16 kHz, one frame of a spectrogram
_REACH = 10  # of the filter of SciPy's resample_poly, in samples of the lower rate
_RANKS = (1, 2, 3)


@dataclass(frozen=True)
class WaveInput:
    """A model input that takes a waveform.

    Attributes:
        shape: of the input, with numbers.
        length: values of one sample.
        rate: in Hz.
    """

    name: str
    shape: tuple[int, ...]
    length: int
    rate: int
    dtype: str
    quantization: Quantization | None = None

    def values(self, wave: Array) -> Array:
        """The values of the input for a waveform of -1 to 1, (length,) float64."""
        if self.quantization is not None:
            wave = self.quantization.quantize(wave)
        elif not self.dtype.startswith("float"):
            limits = np.iinfo(self.dtype)
            wave = np.clip(np.rint(wave * -float(limits.min)), limits.min, limits.max)
        return wave.astype(self.dtype).reshape(self.shape)


class _Window(NamedTuple):
    """A part of a file: window number `number` of it."""

    path: Path
    number: int


@dataclass(frozen=True)
class Windows(Sequence[Array]):
    """Windows that are read, mixed down and resampled when they are used."""

    files: FileSet
    windows: tuple[_Window, ...]
    input: WaveInput

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        """One window in the shape of the input; of a slice, a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        path, number = self.windows[index]
        with _decoding() as failed:
            wave = read_window(path, number, self.input.length, self.input.rate)
        if failed:
            raise UsageError(
                f"{path} cannot be decoded: {failed[0]}", "remove it, or give --skip-bad"
            )
        return self.input.values(wave)


def read_audio(path: Path, graph: Graph, limit: int | None, options: DataOptions) -> Samples:
    """The WAV files below a folder, or one file, in windows of the model's length.

    Channels are averaged, and sounds are resampled to the model's rate. A file gives its windows
    one after another. The last one is filled with silence; if a file has other windows, a rest of
    less than half a window is dropped. Labels are as for images; all windows of a file have its
    label.

    Raises:
        UsageError: the model does not take a waveform, its sample rate is not known, there are no
            files, or one cannot be decoded.
    """
    wanted = wave_input(graph, options.sample_rate)
    found = files_below(path, SUFFIXES)
    counts = {each: _window_count(each, wanted, fully=options.skip_bad) for each in found.paths}
    bad = [each for each, count in counts.items() if not count]
    files = refuse_bad(found, bad, skip=options.skip_bad)
    windows = [_Window(each, i) for each in files.paths for i in range(counts[each])]
    chosen, labels = spread(len(windows), limit), files.labels()
    label_of = dict(zip(files.paths, labels or (), strict=False))
    used = tuple(windows[i] for i in chosen)
    values: Any = Windows(files, used, wanted)
    warnings = (
        skipped_warning(found, files, "file"),
        files.label_warning() if labels is None else "",
    )
    return Samples(
        {wanted.name: values},
        path.name,
        labels and tuple(label_of[each.path] for each in used),
        tuple(filter(None, warnings)),
        files=tuple(dict.fromkeys(each.path for each in used)),
        names=files.names(each.path for each in used),
    )


def wave_input(graph: Graph, given_rate: int | None) -> WaveInput:
    """The waveform input of a model.

    The sample rate is read from the TFLite metadata, else from the option.

    Raises:
        UsageError: several inputs; another shape than [length], [1, length], [1, length, 1] or
            [1, 1, length] with at least 400 values; or no or two different rates.
    """
    if len(graph.inputs) != 1:
        raise UsageError(
            f"the model has {len(graph.inputs)} inputs, and sound fills one",
            "give the inputs as .npz",
        )
    (name,) = graph.inputs
    tensor = graph.tensors[name]
    shape = tuple(1 if n is None and i == 0 else n for i, n in enumerate(tensor.shape or ()))
    open_length = [n for n in shape if n != 1] == [None]
    if open_length:
        sizes = ",".join("16000" if n is None else str(n) for n in shape)
        raise UsageError(
            f"the length of input {name!r} is open", f"give it: --input-shape {name}={sizes}"
        )
    lengths = [n for n in shape if n is not None]
    length = max(lengths, default=0)
    is_number = tensor.dtype.startswith(("float", "int"))
    is_wave = len(shape) in _RANKS and None not in shape and np.prod(lengths) == length
    if not is_wave or length < _SHORTEST or not is_number:
        raise UsageError(
            f"input {name!r} of shape {shape_text(tensor.shape or ())} and dtype {tensor.dtype} "
            "does not take a waveform",
            "if the model takes spectrograms, compute them and give them as .npz",
        )
    stated = graph.sample_rates.get(name)
    if stated is not None and given_rate not in {None, stated}:
        raise UsageError(
            f"the model takes {stated} Hz, and --sample-rate is {given_rate}",
            "leave --sample-rate out: files are resampled to the rate of the model",
        )
    rate = stated or given_rate
    if rate is None:
        seconds = f"its {length} values are {length / 16000:.3g} s at 16000 Hz"
        raise UsageError(
            f"the sample rate of input {name!r} is not known; {seconds}",
            "give the rate that the model was trained on: --sample-rate 16000",
        )
    return WaveInput(name, tuple(lengths), length, rate, tensor.dtype, tensor.quantization)


def read_window(path: Path, index: int, length: int, rate: int) -> Array:
    """Window number `index` of a file: (length,) float64, -1 to 1, silence after the end.

    Only this part of the file is read. Resampling (SciPy's polyphase filter) starts at a source
    sample that falls on a target sample, so that windows equal parts of the whole resampled sound.
    """
    import soundfile  # noqa: PLC0415 - an optional library
    from scipy.signal import resample_poly  # noqa: PLC0415 - likewise

    start = index * length
    with soundfile.SoundFile(path) as file:
        common = gcd(rate, file.samplerate)
        up, down = rate // common, file.samplerate // common
        margin = _REACH * max(up, down) // up + 1  # in source samples, on each side
        first = max(0, (start * down // up - margin) // down) * down
        last = -(-(start + length) * down // up) + margin
        file.seek(min(first, file.frames))
        wave = file.read(max(0, last - first), dtype="float64", always_2d=True).mean(axis=1)
    if up != down and len(wave):
        wave = resample_poly(wave, up, down)
    skipped = first // down * up
    part = wave[start - skipped : start - skipped + length]
    return np.pad(part, (0, length - len(part)))


def _window_count(path: Path, wanted: WaveInput, *, fully: bool) -> int:
    """How many windows a file gives; 0 if it cannot be decoded or is empty.

    Args:
        fully: decode the whole file, which takes as long as using it.
    """
    import soundfile  # noqa: PLC0415 - an optional library

    frames = 0
    with _decoding() as failed, soundfile.SoundFile(path) as file:
        frames = file.frames * wanted.rate // file.samplerate
        for _ in file.blocks(1 << 16) if fully else ():
            pass
    if failed or not frames:
        return 0
    rest = frames % wanted.length
    return int(max(1, frames // wanted.length + (2 * rest >= wanted.length)))


@contextmanager
def _decoding() -> Iterator[list[Exception]]:
    """Collects the error if the file is not sound."""
    import soundfile  # noqa: PLC0415 - an optional library

    failed: list[Exception] = []
    try:
        yield failed
    except (OSError, soundfile.SoundFileError) as error:
        failed.append(error)
