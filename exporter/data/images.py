"""A folder of images as the samples of a model: decoded when they are used, never all at once."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from exporter.errors import UsageError
from exporter.graph import Array, Graph, Node, Quantization
from exporter.graph.normalization import PIXELS, Normalization, parse_normalization
from exporter.graph.operations import Elementwise
from exporter.graph.walk import dependents, only_moves
from exporter.selection.labels import read_text

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
# By content: the suffix may be wrong. Others are refused: for EPS, Pillow starts another program.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")
LABEL_FILE = "labels.csv"
Resize = Literal["stretch", "crop", "pad"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
_CHANNELS = {1: "L", 3: "RGB"}  # number of channels -> Pillow's mode
_RANK = 4
_LARGEST_SCALE = 1 / 50  # a first factor below this maps pixels 0..255 to unit size
_SMALLEST_OFFSET = 50.0  # a first offset above this centers pixels 0..255


@dataclass(frozen=True)
class ImageOptions:
    """How images become inputs.

    Attributes:
        normalize: pixel values; None to find it in the model.
        resize: "stretch" ignores the aspect ratio, "crop" fills the input and cuts the rest,
            "pad" fits the whole image and fills the rest with black.
        skip_bad: leave out files that cannot be decoded; else they are an error.
    """

    normalize: Normalization | None = None
    resize: Resize = "stretch"
    skip_bad: bool = False

    @classmethod
    def from_options(cls, normalize: str | None, resize: str, *, skip_bad: bool) -> ImageOptions:
        """The options as the command line and the Python functions take them.

        Raises:
            UsageError: an unknown normalization, or an unknown way to resize.
        """
        known = next((each for each in RESIZES if each == resize), None)
        if known is None:
            raise UsageError(f"there is no way to resize called {resize!r}", f"use {RESIZES}")
        parsed = None if normalize is None else parse_normalization(normalize)
        return cls(parsed, known, skip_bad)


@dataclass(frozen=True)
class ImageInput:
    """A model input that takes one image.

    Attributes:
        channels_first: [batch, channels, height, width]; else channels come last.
        quantization: of an integer input; None if it takes floats or raw pixels.
    """

    name: str
    height: int
    width: int
    channels: int
    channels_first: bool
    dtype: str
    quantization: Quantization | None = None


def image_input(graph: Graph) -> ImageInput:
    """The image input of a model.

    Raises:
        UsageError: the model has several inputs, or its input is not an image of known size.
    """
    if len(graph.inputs) != 1:
        raise UsageError(
            f"the model has {len(graph.inputs)} inputs, and a folder of images fills one",
            "give the inputs as .npz",
        )
    (name,) = graph.inputs
    tensor = graph.tensors[name]
    shape = tensor.shape or ()
    last, first = shape[-1:] and shape[-1] in _CHANNELS, shape[1:2] and shape[1] in _CHANNELS
    is_number = tensor.dtype.removeprefix("u").startswith(("float", "int"))
    if len(shape) != _RANK or not (last or first) or not is_number:
        shown = "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
        raise UsageError(
            f"input {name!r} of shape {shown} and dtype {tensor.dtype} does not take images",
            "images need [batch, height, width, channels] or [batch, channels, height, width]",
        )
    height, width, channels = (
        (shape[1], shape[2], shape[3]) if last else (shape[2], shape[3], shape[1])
    )
    if shape[0] not in {None, 1}:
        raise UsageError(
            f"input {name!r} takes {shape[0]} images at a time", "give the inputs as .npz"
        )
    if height is None or width is None or channels is None:
        raise UsageError(
            f"the image size of input {name!r} is open", f"give it: --input-shape {name}=1,..."
        )
    return ImageInput(name, height, width, channels, not last, tensor.dtype, tensor.quantization)


class ImageFolder(Sequence[Array]):
    """The images below a folder, in the order of their paths; `folder[i]` decodes one.

    Sub-folders are labels; or `labels.csv` in the folder names them, with the columns file and
    label. Each item has the shape of one model input, with a batch of 1.

    Attributes:
        labels: one per image; None if the folder has none.
        skipped: files that cannot be decoded, with `skip_bad`.
    """

    def __init__(self, folder: Path, graph: Graph, options: ImageOptions) -> None:
        self.folder = folder
        self.input = image_input(graph)
        self.options = options
        self.normalization = _normalization(folder, graph, self.input, options)
        found = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES
            and not path.is_dir()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)  # hidden
        )
        if not found:
            raise UsageError(
                f"{folder} contains no images", f"images end in {', '.join(sorted(SUFFIXES))}"
            )
        bad = [path for path in found if not _can_decode(path, fully=options.skip_bad)]
        if bad and not options.skip_bad:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise UsageError(f"{bad[0]} cannot be decoded{more}", "remove it, or give --skip-bad")
        self.skipped = tuple(bad)
        self.paths = tuple(path for path in found if path not in set(bad))
        if not self.paths:
            raise UsageError(f"none of the {len(bad)} images in {folder} can be decoded")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Selected(self, range(len(self))[index])
        return self._decoded(self.paths[index])

    def spread(self, limit: int | None) -> tuple[Sequence[Array], tuple[str, ...] | None]:
        """At most `limit` images and their labels, evenly spaced: each label keeps its share."""
        count = len(self) if limit is None else min(limit, len(self))
        indices = [i * len(self) // count for i in range(count)]
        labels = self.labels
        return _Selected(self, indices), labels and tuple(labels[i] for i in indices)

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """One label per image; None if neither sub-folders nor labels.csv give any."""
        table = self.folder / LABEL_FILE
        if table.is_file():
            named = _read_labels(table)
            files = [path.relative_to(self.folder).as_posix() for path in self.paths]
            missing = [file for file in files if file not in named]
            if missing:
                raise UsageError(
                    f"{table} has no row for {missing[0]}", "add one, with the path in the folder"
                )
            return tuple(named[file] for file in files)
        if self.outside:
            return None
        return tuple(path.relative_to(self.folder).parts[0] for path in self.paths)

    @property
    def outside(self) -> tuple[Path, ...]:
        """The images that are in no sub-folder."""
        return tuple(path for path in self.paths if path.parent == self.folder)

    @property
    def range(self) -> tuple[float, float]:
        """The input values of black and white pixels; integers if pixels are fed as they are."""
        return (0, 255) if self.normalization is None else self.normalization.range

    def _decoded(self, path: Path) -> Array:
        """(1, height, width, channels), or channels first."""
        wanted = self.input
        pixels = _resized(path, wanted, self.options.resize)
        if self.normalization is None:
            values = pixels.astype(np.int16) + np.iinfo(wanted.dtype).min  # int8 counts from -128
        else:
            values = self.normalization.apply(pixels)
            if wanted.quantization is not None:
                values = wanted.quantization.quantize(values)
        if wanted.channels_first:
            values = np.moveaxis(values, -1, 0)
        return np.asarray(values[np.newaxis], wanted.dtype)


class _Selected(Sequence[Array]):
    """Some images of a folder, still decoded one at a time."""

    def __init__(self, folder: ImageFolder, indices: Sequence[int]) -> None:
        self._folder, self._indices = folder, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Selected(self._folder, self._indices[index])
        return self._folder[self._indices[index]]


class ImageBatches(Sequence[Array]):
    """Images in groups of a fixed size; the last group repeats images from the start."""

    def __init__(self, images: Sequence[Array], batch: int) -> None:
        self._images, self._batch = images, batch

    def __len__(self) -> int:
        return (len(self._images) + self._batch - 1) // self._batch

    def __getitem__(self, index: Any) -> Any:
        turns = range(index * self._batch, (index + 1) * self._batch)
        return np.concatenate([self._images[turn % len(self._images)] for turn in turns])


def _normalization(
    folder: Path, graph: Graph, wanted: ImageInput, options: ImageOptions
) -> Normalization | None:
    """The first of: the option, the model's metadata, its first layers.

    None: pixels are the quantized values of an 8-bit input. Image models are quantized for that,
    and MediaPipe feeds them so, even if the metadata states a normalization.
    """
    if options.normalize is not None:
        return _checked(options.normalize, wanted)
    if wanted.dtype in {"uint8", "int8"}:
        return None
    if wanted.name in graph.normalization:
        return _checked(graph.normalization[wanted.name], wanted)
    if takes_pixels(graph, wanted.name):
        return PIXELS
    raise UsageError(
        f"how input {wanted.name!r} expects pixels is not known, for the images in {folder}",
        "give --normalize imagenet, -1..1, 0..1, 0..255 or MEAN,STD",
    )


def _checked(normalization: Normalization, wanted: ImageInput) -> Normalization:
    if len(normalization.mean) not in {1, wanted.channels}:
        raise UsageError(
            f"the normalization has {len(normalization.mean)} channels, input {wanted.name!r} has "
            f"{wanted.channels}",
            "give one mean and one standard deviation: --normalize MEAN,STD",
        )
    if wanted.quantization is None and not wanted.dtype.startswith("float"):
        limits = np.iinfo(wanted.dtype)
        low, high = normalization.range
        if low < limits.min or high > limits.max or high - low < 1:
            raise UsageError(
                f"input {wanted.name!r} takes {wanted.dtype}, which cannot represent the "
                f"normalized pixels {normalization}",
                "give --normalize 0..255, or none",
            )
    return normalization


def _can_decode(path: Path, *, fully: bool) -> bool:
    """Check the header; `fully` decodes the pixels too, which takes as long as using them."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    try:
        with Image.open(path, formats=_FORMATS) as image:
            if fully:
                image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True


def _resized(path: Path, wanted: ImageInput, resize: Resize) -> Array:
    """(height, width, channels) uint8, turned as the camera's orientation tag says."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - an optional library

    size = (wanted.width, wanted.height)
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            image = _eight_bit(ImageOps.exif_transpose(opened))
            image = image.convert(_CHANNELS[wanted.channels])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{path} cannot be decoded: {error}", "remove it, or give --skip-bad"
        ) from error
    match resize:
        case "stretch":
            image = image.resize(size)
        case "crop":
            image = ImageOps.fit(image, size)
        case "pad":
            image = ImageOps.pad(image, size)
    return np.asarray(image).reshape(wanted.height, wanted.width, wanted.channels)


def _eight_bit(image: Any) -> Any:
    """The image; of 16-bit gray the upper 8 bits. Pillow would make all values above 255 white."""
    from PIL import Image  # noqa: PLC0415 - an optional library

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _read_labels(path: Path) -> dict[str, str]:
    """File, relative to the folder -> label."""
    try:
        rows = list(csv.DictReader(StringIO(read_text(path)), restval=""))
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}", "check its quotes") from error
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise UsageError(f"{path} has no columns file and label", "write a header: file,label")
    labels: dict[str, str] = {}
    for row in rows:
        file, label = row["file"].strip(), row["label"].strip()
        if not label:
            raise UsageError(f"{path} has no label for {file!r}", "write one in each row")
        if labels.setdefault(file, label) != label:
            raise UsageError(
                f"{path} has two labels for {file!r}: {labels[file]!r} and {label!r}",
                "remove one of the rows",
            )
    return labels


def takes_pixels(graph: Graph, name: str) -> bool:
    """Does the model itself normalize pixels 0 to 255, as after a Keras Rescaling layer?

    The first arithmetic on the input is then a Rescaling, a multiplication by a small constant, a
    division by a large one, or a subtraction of a large one.
    """
    tensors = dependents(graph, [name], lambda node, _: only_moves(node, "cast"))
    consumers = [use for tensor in tensors for use in graph.consumers.get(tensor, ())]
    arithmetic = [node for node, _ in consumers if not only_moves(node, "cast")]
    return bool(arithmetic) and all(_normalizes_pixels(graph, node) for node in arithmetic)


def _normalizes_pixels(graph: Graph, node: Node) -> bool:
    if not isinstance(node.operation, Elementwise):
        return False
    constants = [graph.tensors[each] for each in node.inputs if graph.tensors[each].read]
    size = max((float(np.abs(c.read()).max(initial=0.0)) for c in constants if c.read), default=0.0)
    match node.operation.function:
        case "rescaling":
            return True
        case "mul":
            return 0 < size <= _LARGEST_SCALE
        case "div":
            return size >= 1 / _LARGEST_SCALE
        case "sub" | "add":
            return size >= _SMALLEST_OFFSET
    return False
