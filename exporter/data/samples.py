"""Inputs to compare and time models on: the user's own, or seeded synthetic ones."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.inputs import (
    FLOATS,
    INTEGERS,
    check_lengths,
    dtype_named,
    shape_text,
    table_lengths,
)
from exporter.data.pixel_range import expected_range
from exporter.data.stream import IN_MEMORY_BYTES, Stream, rows_per_block, spread
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Shape, Tensor
from exporter.graph.lengths import Lengths, input_shapes

DEFAULT_COUNT = 16
Label = str | int


@dataclass(frozen=True, eq=False)
class Samples:
    """Values for every input of a model.

    Attributes:
        values: input name -> (samples, batch, ...). Images and large files are no arrays, but
            sequences that read each sample when it is used.
        source: "synthetic, seed 0", or the name of the file or folder.
        labels: the class of each sample, by name or unit index; a tuple of them if samples have any
            number of classes; None if the data has none.
        warnings: one sentence each.
        files: the files that the samples are from; see `exporter.data.files.hash_files`.
        hashes: file -> its SHA-256 in hex, for the files that were hashed when they were read.
        on_sample: called with the number of samples done and their total, in each pass.
        synthetic: generated, not a user's.
        names: the file of each sample, relative to the folder of all; () if one file has them all.
    """

    values: Mapping[str, Array]
    source: str
    labels: Sequence[Label | tuple[Label, ...]] | None = None
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    hashes: Mapping[Path, str] = field(default_factory=dict)
    on_sample: Callable[[int, int], None] = lambda _done, _total: None
    synthetic: bool = False
    names: Sequence[str] = ()

    @property
    def count(self) -> int:
        return min((len(values) for values in self.values.values()), default=0)

    @property
    def in_memory(self) -> bool:
        """All values are arrays: another pass costs nothing."""
        return all(isinstance(values, np.ndarray) for values in self.values.values())

    def feeds(self) -> Iterator[dict[str, Array]]:
        """Input name -> (batch, ...), for one sample after another."""
        for i in range(self.count):
            self.on_sample(i, self.count)
            yield {name: _sample(values, i) for name, values in self.values.items()}
        self.on_sample(self.count, self.count)

    def within(self, size_bytes: int) -> Samples:
        """As many samples as fit in so many bytes, evenly spaced; at least one."""
        first = next(self.feeds(), {})
        most = max(1, size_bytes // max(1, sum(values.nbytes for values in first.values())))
        if most >= self.count:
            return self
        source = f"{self.source}, {most} of {self.count} samples"
        return replace(self.at(spread(self.count, most)), source=source)

    def at(self, chosen: Sequence[int]) -> Samples:
        """The samples of these indices, in this order."""
        labels = self.labels and [self.labels[i] for i in chosen]
        values: Any = {name: Picked(each, chosen) for name, each in self.values.items()}
        names = self.names and [self.names[i] for i in chosen]
        return replace(self, values=values, labels=labels, names=names)

    def name_of(self, index: int) -> str:
        """The file of a sample; "" if one file has them all."""
        return self.names[index] if self.names else ""


def _sample(values: Sequence[Array] | Array, index: int) -> Array:
    """One sample; NumPy would give a scalar of a rank-0 input, which runtimes do not take."""
    if isinstance(values, np.ndarray):
        return np.asarray(values[index, ...])
    return np.asarray(values[index])


def to_model_inputs(feed: Mapping[str, Array], graph: Graph) -> dict[str, Array]:
    """Quantize the float values of quantized inputs; other values stay as they are."""
    return {name: _quantized(values, graph.tensors.get(name)) for name, values in feed.items()}


def _quantized(values: Array, tensor: Tensor | None) -> Array:
    if tensor is None or tensor.quantization is None or values.dtype.kind != "f":
        return values
    return tensor.quantization.quantize(values).astype(tensor.dtype)


# --- synthetic ----------------------------------------------------------------------------------


_LARGEST_SYNTHETIC = 1 << 32  # bytes of all samples of an input in float64
_LARGEST_SAMPLE = 1 << 29  # likewise, of one: a damaged file may state any batch
_DRAWN_BYTES = 8  # for each value: it is drawn in float64 or int64


def synthetic_samples(
    graph: Graph,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    lengths: Lengths | None = None,
) -> Samples:
    """Seeded samples that fit the inputs of a graph.

    - Inputs that index tables: indices of the smallest table.
    - Floats whose range the file states, for example by metadata or a first layer that rescales
      pixels: noise in that range, of a brightness and contrast of its own in each sample.
    - Other floats: one half normal(0, 1), the other uniform(0, 1).
    - Quantized values and 8-bit integers: the whole range.
    - Other integers: 0 and 1.
    - Strings: short words.

    Args:
        lengths: of dimensions that the graph leaves open. Without them, an open leading dimension
            is the batch, 1, and usual names have a default; see `graph.lengths`.

    Raises:
        UsageError: an open dimension without a shape, a shape that does not fit, an unknown input,
            a model without inputs, an unsupported dtype, or a count below 1.
    """
    check_count(count)
    if not graph.inputs:
        raise UsageError("the model has no input, so that it cannot be run on samples")
    given = lengths or Lengths()
    check_lengths(graph, given)
    random = np.random.default_rng(seed)
    known = input_shapes([graph.tensors[name] for name in graph.inputs], given)
    every = {name: (count, *_closed(graph, name, known[name])) for name in graph.inputs}
    for name, shape in every.items():
        size = 8 * math.prod(shape)
        if size > _LARGEST_SYNTHETIC or size > count * _LARGEST_SAMPLE:
            raise UsageError(
                f"{count} samples of {shape_text(shape[1:])} for input {name!r} take "
                f"{size / 1e9:.3g} GB of memory",
                "use fewer --samples, smaller shapes with --input-shape, or your own --data",
            )
    values = {name: _random_values(graph, name, shape, random) for name, shape in every.items()}
    return Samples(values, f"synthetic, seed {seed}", synthetic=True)


def _closed(graph: Graph, name: str, known: Shape | None) -> tuple[int, ...]:
    """The shape of one sample, batch included (raises UsageError if a length is open)."""
    if known is not None and None not in known:
        return tuple(length or 0 for length in known)
    shape, symbols = graph.tensors[name].shape, graph.tensors[name].symbols
    problem = "an unknown rank" if shape is None else f"the open shape {shape_text(shape)}"
    lengths = ["..."] if known is None else ["?" if n is None else str(n) for n in known]
    option = f"--input-shape {name}={','.join(lengths if known else ['1', *lengths])}"
    missing = [s for s, n in zip(symbols, known or (), strict=False) if n is None and s]
    by_name = f", or --dim {','.join(f'{each}=?' for each in missing)}" if missing else ""
    raise UsageError(
        f"input {name!r} has {problem}", f"give the shape with numbers: {option}{by_name}"
    )


def _random_values(
    graph: Graph, name: str, shape: tuple[int, ...], random: np.random.Generator
) -> Any:
    """(samples, batch, ...): an array if it is small, else values that are made when they are used.

    Both leave `random` in the same state, except after the last input.
    """
    tensor, lengths = graph.tensors[name], table_lengths(graph, name)
    make = _maker(graph, name, tensor, lengths)
    dtype = np.dtype(str) if tensor.dtype == "string" else dtype_named(tensor.dtype)
    start = copy.deepcopy(random)

    def blocks(source: np.random.Generator) -> Iterator[Array]:
        rows = rows_per_block(_DRAWN_BYTES * math.prod(shape[1:]))
        for values in make(source, shape, rows):
            yield values if tensor.dtype == "string" else values.astype(dtype)

    if dtype.itemsize * math.prod(shape) <= IN_MEMORY_BYTES:
        return np.concatenate(list(blocks(random)))
    if name != graph.inputs[-1]:
        deque(blocks(random), maxlen=0)
    return Stream(lambda: blocks(copy.deepcopy(start)), shape[0])


_Maker = Callable[["np.random.Generator", tuple[int, ...], int], Iterator[Array]]


def _maker(graph: Graph, name: str, tensor: Tensor, lengths: Collection[int]) -> _Maker:
    """What makes the values of an input, so many samples at a time."""
    dtype, stated = tensor.dtype, expected_range(graph, name)
    if dtype == "string":
        return _words
    if (dtype in FLOATS or dtype.startswith(_SMALL_FLOATS)) and not lengths:
        return _noise if stated is None else partial(_pictures, stated)
    if dtype in FLOATS | INTEGERS | _SMALL_INTEGERS.keys() | {"bool"}:
        ends = (0, min(*lengths, _exact_limit(dtype)) - 1) if lengths else _range(tensor)
        return partial(_integers, ends)
    raise UsageError(
        f"input {name!r} has the dtype {dtype}, which no runtime of exporter takes",
        "split complex values into two float inputs before the model is exported",
    )


_WORDS = ("a", "the", "good", "bad", "film", "music", "1", "2024")
_SMALL_FLOATS = ("bfloat16", "float8", "float4")
_SMALL_INTEGERS = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def _words(random: np.random.Generator, shape: tuple[int, ...], rows: int) -> Iterator[Array]:
    for first in range(0, shape[0], rows):
        size = min(rows, shape[0] - first), *shape[1:]
        yield np.array(_WORDS)[random.integers(0, len(_WORDS), size)]


def _noise(random: np.random.Generator, shape: tuple[int, ...], rows: int) -> Iterator[Array]:
    half = shape[0] // 2
    for draw, count in ((random.normal, shape[0] - half), (random.uniform, half)):
        for first in range(0, count, rows):
            yield draw(size=(min(rows, count - first), *shape[1:]))


def _integers(
    ends: tuple[int, int], random: np.random.Generator, shape: tuple[int, ...], rows: int
) -> Iterator[Array]:
    for first in range(0, shape[0], rows):
        size = min(rows, shape[0] - first), *shape[1:]
        yield random.integers(*ends, size, endpoint=True)


def _pictures(
    ends: tuple[float, float], random: np.random.Generator, shape: tuple[int, ...], rows: int
) -> Iterator[Array]:
    """Noise in a range. Samples differ in brightness and contrast, as pictures do.

    Each has a darkest and a brightest value of its own; those of the first are the ends.
    """
    levels = np.sort(random.uniform(size=(2, shape[0])), axis=0)
    levels[:, 0] = 0.0, 1.0
    levels = levels.reshape(2, shape[0], *[1] * (len(shape) - 1))
    for first in range(0, shape[0], rows):
        low, high = levels[:, first : first + rows]
        values = low + (high - low) * random.uniform(size=(len(low), *shape[1:]))
        yield np.asarray(ends[0] + (ends[1] - ends[0]) * values)


def _range(tensor: Tensor) -> tuple[int, int]:
    """The lowest and highest integer to make."""
    if tensor.quantization is not None:
        return tensor.quantization.low, tensor.quantization.high
    if tensor.dtype in _SMALL_INTEGERS:
        return _SMALL_INTEGERS[tensor.dtype]
    if tensor.dtype in {"int8", "uint8"}:
        return int(np.iinfo(tensor.dtype).min), int(np.iinfo(tensor.dtype).max)
    return 0, 1  # for flags; and almost every table has an index 1


def _exact_limit(dtype: str) -> int:
    """A dtype represents all integers up to this one exactly."""
    if dtype in FLOATS:
        return 1 << int(np.finfo(dtype).nmant)
    return 2 if dtype == "bool" else int(np.iinfo(dtype).max)


# --- batches --------------------------------------------------------------------------------------


def join_batches(samples: Samples, graph: Graph, batch: int) -> Samples:
    """Join several samples to one feed, for files with a fixed batch.

    The first samples fill up the last feed.

    Args:
        graph: inputs with a fixed leading dimension are not joined.
    """
    if batch == 1:
        return samples
    joined = {
        name: _join(values, batch) if graph.shape(name)[:1] in {(), (None,)} else values
        for name, values in samples.values.items()
    }
    return replace(samples, values=joined, source=f"{samples.source}, {batch} at a time")


def fill_fixed_batches(samples: Samples, graph: Graph) -> Samples:
    """Join single samples to the batch that a file states, such as 4; see `join_batches`."""
    sizes = {name: (graph.shape(name)[:1] or (None,))[0] or 1 for name in samples.values}
    joined = {name: _join(values, sizes[name]) for name, values in samples.values.items()}
    return replace(samples, values=joined) if max(sizes.values(), default=1) > 1 else samples


def _join(values: Any, batch: int) -> Any:
    """(samples, 1, ...) -> (feeds, batch, ...); samples with another batch are not changed."""
    if batch == 1:
        return values
    if not isinstance(values, np.ndarray):
        return values if np.shape(values[0])[:1] != (1,) else Batches(values, batch)
    if values.ndim == 1 or values.shape[1] != 1:
        return values
    feeds = -(-len(values) // batch)
    indices = np.arange(feeds * batch) % len(values)
    return np.asarray(values[indices].reshape(feeds, batch, *values.shape[2:]))


class Picked(Sequence[Array]):
    """Some of the samples, still read when they are used."""

    def __init__(self, samples: Sequence[Array] | Array, indices: Sequence[int]) -> None:
        self._samples, self._indices = samples, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._samples[self._indices[index]]


class Batches(Sequence[Array]):
    """Samples that are read when they are used, in groups of a fixed size.

    The last group repeats samples from the start.
    """

    def __init__(self, samples: Sequence[Array], batch: int) -> None:
        self._samples, self._batch = samples, batch

    def __len__(self) -> int:
        return (len(self._samples) + self._batch - 1) // self._batch

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        turns = range(index * self._batch, (index + 1) * self._batch)
        return np.concatenate([self._samples[turn % len(self._samples)] for turn in turns])


def check_count(count: int | None) -> None:
    """Refuse a number of samples below 1; None means all."""
    if count is not None and count < 1:
        raise UsageError(f"{count} samples were asked for", "at least one is needed")
