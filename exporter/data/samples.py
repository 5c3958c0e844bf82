"""Inputs to compare and time models on: the user's own, or seeded synthetic ones."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.images import ImageBatches, ImageFolder, ImageOptions, takes_pixels
from exporter.errors import UsageError
from exporter.graph import Array, Graph, Node, Shape, Tensor
from exporter.graph.operations import Concat, Expand, Gather, Slice, Split
from exporter.graph.walk import REARRANGE, dependents, only_moves

DEFAULT_COUNT = 16
_CLIPPED = 0.1  # share of an input's range by which samples may exceed it without a warning
_COVERED = 0.1  # share of an input's range that samples cover at least, without a warning
LABELS = "labels"  # the array of an .npz that contains the class of each sample

Label = str | int
_FLOATS = frozenset({"float16", "float32", "float64"})
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


@dataclass(frozen=True, eq=False)
class Samples:
    """Values for every input of a model.

    Attributes:
        values: input name -> (samples, batch, ...). A folder of images is not an array: it decodes
            each sample when it is read.
        source: "synthetic, seed 0", or the name of the file or folder.
        labels: the class of each sample, by name or unit index; a tuple of them if samples have any
            number of classes; None if the data has none.
        warnings: one sentence each.
    """

    values: Mapping[str, Array]
    source: str
    labels: Sequence[Label | tuple[Label, ...]] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return min((len(values) for values in self.values.values()), default=0)

    def feeds(self) -> Iterator[dict[str, Array]]:
        """Input name -> (batch, ...), for one sample after another."""
        for i in range(self.count):
            yield {name: values[i] for name, values in self.values.items()}


def to_model_inputs(feed: Mapping[str, Array], graph: Graph) -> dict[str, Array]:
    """Quantize the float values of quantized inputs; other values stay as they are."""
    return {name: _quantized(values, graph.tensors.get(name)) for name, values in feed.items()}


def _quantized(values: Array, tensor: Tensor | None) -> Array:
    if tensor is None or tensor.quantization is None or values.dtype.kind != "f":
        return values
    return tensor.quantization.quantize(values).astype(tensor.dtype)


# --- synthetic ----------------------------------------------------------------------------------


def synthetic_samples(
    graph: Graph,
    count: int = DEFAULT_COUNT,
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Samples:
    """Seeded samples that fit the inputs of a graph.

    - Inputs that index tables: indices of the smallest table.
    - Other floats: one half normal(0, 1), the other uniform(0, 1).
    - Quantized values and 8-bit integers: the whole range.
    - Other integers: 0 and 1.

    Args:
        shapes: input name -> whole shape, for dimensions that the graph leaves open. An open
            leading dimension is the batch; it is 1 without a shape.

    Raises:
        UsageError: an open dimension without a shape, a shape that does not fit, an unknown input,
            a model without inputs, an unsupported dtype, or a count below 1.
    """
    _check_count(count)
    if not graph.inputs:
        raise UsageError("the model has no input, so that it cannot be run on samples")
    given = dict(shapes or {})
    for name in sorted(given.keys() - set(graph.inputs)):
        known = ", ".join(repr(i) for i in graph.inputs)
        raise UsageError(f"the model has no input {name!r}", f"its inputs are {known}")
    random = np.random.default_rng(seed)
    values = {
        name: _random_values(
            graph, name, (count, *_sample_shape(graph, name, given.get(name))), random
        )
        for name in graph.inputs
    }
    return Samples(values, f"synthetic, seed {seed}")


def _sample_shape(graph: Graph, name: str, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one sample, batch included."""
    shape = graph.tensors[name].shape
    if given is not None:
        if shape is not None and not _fits(given, shape):
            raise UsageError(f"input {name!r} has the shape {_text(shape)}, not {_text(given)}")
        if any(n < 1 for n in given):
            raise UsageError(f"the shape {_text(given)} for input {name!r} has no values")
        return given
    if shape is None or None in shape[1:]:
        problem = "an unknown rank" if shape is None else f"the open shape {_text(shape)}"
        known = ["..."] if shape is None else ["?" if n is None else str(n) for n in shape[1:]]
        option = f"--input-shape {name}={','.join(['1', *known])}"
        raise UsageError(f"input {name!r} has {problem}", f"give the shape with numbers: {option}")
    return tuple(1 if n is None else n for n in shape)


def _random_values(
    graph: Graph, name: str, shape: tuple[int, ...], random: np.random.Generator
) -> Array:
    tensor = graph.tensors[name]
    dtype, lengths = tensor.dtype, _table_lengths(graph, name)
    if dtype in _FLOATS and not lengths:
        half = shape[0] // 2
        normal = random.normal(size=(shape[0] - half, *shape[1:]))
        uniform = random.uniform(size=(half, *shape[1:]))
        return np.concatenate([normal, uniform]).astype(dtype)
    if dtype in _FLOATS | _INTEGERS | {"bool"}:
        low, high = (0, min(*lengths, _exact_limit(dtype)) - 1) if lengths else _range(tensor)
        return random.integers(low, high, shape, endpoint=True).astype(dtype)
    raise UsageError(f"no synthetic values exist for input {name!r} of dtype {dtype}", "use --data")


def _range(tensor: Tensor) -> tuple[int, int]:
    """The lowest and highest integer to make."""
    if tensor.quantization is not None:
        return tensor.quantization.low, tensor.quantization.high
    if tensor.dtype in {"int8", "uint8"}:
        return int(np.iinfo(tensor.dtype).min), int(np.iinfo(tensor.dtype).max)
    return 0, 1  # for flags; and almost every table has an index 1


def _exact_limit(dtype: str) -> int:
    """A dtype represents all integers up to this one exactly."""
    if dtype in _FLOATS:
        return 1 << int(np.finfo(dtype).nmant)
    return 2 if dtype == "bool" else int(np.iinfo(dtype).max)


def _table_lengths(graph: Graph, name: str) -> list[int]:
    """The length of every table that the values of an input index."""
    lengths: list[int] = []
    for tensor in dependents(graph, [name], _keeps_values):
        for node, slot in graph.consumers.get(tensor, ()):
            if isinstance(node.operation, Gather) and slot == 1:
                length = dict(enumerate(graph.shape(node.inputs[0]))).get(node.operation.axis)
                lengths += [length] if length else []
    return lengths


def _keeps_values(node: Node, _slot: int) -> bool:
    """Not arithmetic: index + 1 could be beyond the table."""
    return only_moves(node, "cast", kinds=REARRANGE | Expand | Concat | Split | Slice)


# --- from a file --------------------------------------------------------------------------------


def read_samples(
    path: Path, graph: Graph, limit: int | None = None, images: ImageOptions | None = None
) -> Samples:
    """Read the user's inputs.

    Args:
        path: a folder of images (see `exporter.data.images`); or `.npz` with one array for each
            input, under the name of the input (any name if there is only one), and optionally the
            array `labels`; or `.npy`. The first axis counts the samples; a sample may or may not
            have a leading batch dimension of 1.
        limit: read only this many samples.
        images: how images become inputs.

    Raises:
        UsageError: the file is missing, damaged or empty; an array does not fit its input or names
            none; a value is not finite or cannot be represented in the input's dtype; or an index
            is beyond the end of its table.
    """
    _check_count(limit)
    if path.is_dir():
        return _read_images(path, graph, limit, images or ImageOptions())
    if images is not None and images.normalize is not None:
        raise UsageError(
            f"--normalize is for folders of images, and {path} is not a folder",
            "normalize the arrays in the file, and leave --normalize out",
        )
    loaded = _load(path)
    labels = None if LABELS in graph.inputs else loaded.pop(LABELS, None)
    values = {
        name: _fit(f"{path}: the array for input {name!r}", graph, name, array)
        for name, array in _by_input(path, loaded, graph).items()
    }
    counts = {len(array) for array in values.values()}  # before the limit could make them equal
    if len(counts) > 1:
        shown = ", ".join(f"{len(a)} of {name!r}" for name, a in values.items())
        raise UsageError(f"{path}: the inputs differ in their number of samples: {shown}")
    first = {name: array[:limit] for name, array in values.items()}
    return Samples(
        first,
        path.name,
        _checked_labels(path, labels, counts.pop(), limit),
        tuple(filter(None, (_range_warning(graph, name, a) for name, a in first.items()))),
    )


def _read_images(path: Path, graph: Graph, limit: int | None, options: ImageOptions) -> Samples:
    folder = ImageFolder(path, graph, options)
    images: Any
    images, labels = folder.spread(limit)
    warnings = [_range_warning(graph, folder.input.name, np.asarray(folder.range))]
    if skipped := len(folder.skipped):
        warnings.append(f"{skipped} images of {path.name} cannot be decoded and were left out")
    if labels is None and len(folder.outside) < len(folder):
        warnings.append(
            f"{folder.outside[0].name} is in no sub-folder, so the sub-folders are not used as "
            "labels"
        )
    return Samples(
        {folder.input.name: images},
        path.name,
        labels,
        tuple(filter(None, warnings)),
    )


def _range_warning(graph: Graph, name: str, values: Array) -> str:
    """A warning if the values do not fit the range that an input was made for; else "".

    A quantized input clips values outside its range, and loses values that cover little of it. For
    a float input the range follows from the metadata, or from a first layer that scales pixels.
    """
    tensor = graph.tensors[name]
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind != "f":
        return ""  # already quantized, or token ids
    if tensor.quantization is not None:
        ends = np.array([tensor.quantization.low, tensor.quantization.high])
        expected = tensor.quantization.dequantize(ends)
    elif name in graph.normalization:
        expected = np.asarray(graph.normalization[name].range)
    elif takes_pixels(graph, name):
        expected = np.array([0.0, 255.0])
    else:
        return ""
    span = float(expected[1] - expected[0])
    outside = max(expected[0] - low, high - expected[1]) / span
    if outside <= _CLIPPED and (high - low) / span >= _COVERED:
        return ""
    return (
        f"input {name!r} takes values {expected[0]:.3g} to {expected[1]:.3g}, the samples are "
        f"{low:.3g} to {high:.3g}"
    )


def _checked_labels(
    path: Path, labels: Array | None, count: int, limit: int | None
) -> Sequence[Label | tuple[Label, ...]] | None:
    if labels is None:
        return None
    rank = 2  # samples x units
    if labels.ndim == rank and len(labels) == count and np.isin(labels, (0, 1)).all():
        return [tuple(np.flatnonzero(row).tolist()) for row in labels[:limit]]
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise UsageError(
            f"{path}: the array {LABELS!r} has the shape {_text(labels.shape)} and dtype "
            f"{labels.dtype}",
            f"give one class name or unit index per sample: shape [{count}]; or 0 and 1 for each "
            f"unit: shape [{count}, units]",
        )
    found: list[Label | tuple[Label, ...]] = labels[:limit].tolist()
    return found


def _load(path: Path) -> dict[str, Array]:
    """Every array of an `.npz` by name, or the array of an `.npy` under the name ""."""
    problem = UsageError(
        f"{path} is not a readable .npz or .npy file", "write it with numpy.savez, without objects"
    )
    try:
        with path.open("rb") as file:  # NumPy does not close a damaged one
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except _DAMAGED as error:
        raise problem from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise problem  # any other zip archive: NumPy returns the bytes of its members
    return arrays


# Exceptions that NumPy does not catch; MemoryError for a damaged header that claims a huge array.
_DAMAGED = (
    *(OSError, ValueError, EOFError, MemoryError, RuntimeError, SyntaxError, TypeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def _by_input(path: Path, arrays: dict[str, Array], graph: Graph) -> dict[str, Array]:
    if len(arrays) == 1 and len(graph.inputs) == 1:
        return {graph.inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        found = ", ".join(repr(name) for name in arrays) or "nothing"
        raise UsageError(f"{path} has no array for input {missing[0]!r}", f"it contains {found}")
    if unknown := [name for name in arrays if name not in graph.inputs]:
        known = ", ".join(repr(name) for name in graph.inputs)
        raise UsageError(
            f"{path}: the array {unknown[0]!r} is not an input of the model",
            f"its inputs are {known}; {LABELS!r} may name the class of each sample",
        )
    return {name: arrays[name] for name in graph.inputs}


def _fit(where: str, graph: Graph, name: str, array: Array) -> Array:
    """The array as (samples, batch, ...) in the dtype of its input."""
    shape = graph.tensors[name].shape
    if not array.ndim or not array.size:
        raise UsageError(f"{where} is empty")
    values = _convert(where, graph, name, array)
    if shape is None or _fits(array.shape[1:], shape):
        return values
    if shape and shape[0] in {None, 1} and _fits(array.shape[1:], shape[1:]):
        return values[:, np.newaxis]
    raise UsageError(f"{where} has the shape {_text(array.shape)}; one sample is {_text(shape)}")


def _convert(where: str, graph: Graph, name: str, array: Array) -> Array:
    """The same values in the dtype of the input."""
    dtype = graph.tensors[name].dtype
    if array.dtype.kind not in _accepted_kinds(dtype):
        raise UsageError(f"{where} has dtype {array.dtype}, the input {dtype}")
    if count := array.size - int(np.isfinite(array).sum()):
        raise UsageError(f"{where} contains {count} values that are NaN or infinite")
    with np.errstate(over="ignore"):
        values = array.astype(dtype)
    represented = np.isfinite(values) if dtype in _FLOATS else values == array
    if count := array.size - int(represented.sum()):
        raise UsageError(f"{where} contains {count} values that {dtype} cannot represent")
    length = min(_table_lengths(graph, name), default=None)
    if length is not None and array.max() >= length:
        raise UsageError(
            f"{where} contains the index {array.max()}",
            f"the table that it indexes has {length} rows",
        )
    return values


def _accepted_kinds(dtype: str) -> str:
    """The NumPy dtype kinds that an input of this dtype accepts, if every value fits."""
    if dtype in _FLOATS:
        return "biuf"
    if dtype in _INTEGERS:
        return "biu"
    return "b" if dtype == "bool" else ""


# --- both ---------------------------------------------------------------------------------------


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


def _join(values: Array, batch: int) -> Array:
    """(samples, 1, ...) -> (feeds, batch, ...); samples with another batch are not changed."""
    if not isinstance(values, np.ndarray):
        return ImageBatches(values, batch)
    if values.ndim == 1 or values.shape[1] != 1:
        return values
    feeds = -(-len(values) // batch)
    indices = np.arange(feeds * batch) % len(values)
    return np.asarray(values[indices].reshape(feeds, batch, *values.shape[2:]))


def _check_count(count: int | None) -> None:
    if count is not None and count < 1:
        raise UsageError(f"{count} samples were asked for", "at least one is needed")


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        wanted in {None, length} for length, wanted in zip(shape, expected, strict=True)
    )


def _text(shape: Shape) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
