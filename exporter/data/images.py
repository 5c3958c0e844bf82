"""Images as the samples of a model: decoded when they are used, never all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.decode import can_decode, decode, large_pixels
from exporter.data.folders import FileSet, files_below, refuse_bad, skipped_warning
from exporter.data.image_input import ImageInput, check_normalization, image_input
from exporter.data.options import DataOptions
from exporter.data.pixel_range import RangeCheck, takes_pixels
from exporter.data.preprocessor import FILE, Preprocessor, Resizing, read_preprocessor
from exporter.data.samples import Samples
from exporter.data.stream import spread
from exporter.errors import UsageError
from exporter.graph import Array, Graph
from exporter.graph.normalization import PIXELS, Normalization

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_MILLION = 1_000_000


@dataclass(frozen=True)
class Images(Sequence[Array]):
    """Images that become inputs when they are read: `images[i]` decodes one.

    Attributes:
        files: where the images come from.
        paths: of the images, in order.
        normalization: None feeds pixels as they are.
    """

    files: FileSet
    paths: tuple[Path, ...]
    input: ImageInput
    normalization: Normalization | None
    resizing: Resizing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        """(1, height, width, channels), or channels first; of a slice, a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        path = self.paths[index]
        pixels = decode(path, self.files.read(path), self.input, self.resizing)
        return self.input.values(pixels, self.normalization)


def read_images(path: Path, graph: Graph, limit: int | None, options: DataOptions) -> Samples:
    """The images below a folder, or one image file.

    Raises:
        UsageError: the model takes no images, there are none, one cannot be decoded, or how the
            model expects pixels is not known.
    """
    wanted = image_input(graph)
    found = files_below(path, SUFFIXES)
    processor = read_preprocessor(options.model)
    normalization, is_from_file = _normalization(path, graph, wanted, options, processor)
    resizing = Resizing(options.resize or "stretch")
    if options.resize is None and processor is not None:
        resizing, is_from_file = processor.resizing, True
    large = {each: large_pixels(each) for each in found.paths}
    bad = [each for each, pixels in large.items() if pixels is None]
    if options.skip_bad:
        bad += [each for each in found.paths if each not in bad and not can_decode(each)]
    files = refuse_bad(found, bad, skip=options.skip_bad)
    chosen, labels = spread(len(files.paths), limit), files.labels()
    images = Images(files, tuple(files.paths[i] for i in chosen), wanted, normalization, resizing)
    values: Any = images
    checked = RangeCheck(graph, wanted.name)
    if normalization is not None:
        checked.see(np.asarray(normalization.range))
    warnings = (
        checked.warning(),
        skipped_warning(found, files, "image"),
        files.label_warning() if labels is None else "",
        _size_warning({each: pixels for each in images.paths if (pixels := large[each])}),
    )
    return Samples(
        {wanted.name: values},
        f"{path.name}, prepared as in {FILE}" if is_from_file else path.name,
        labels and tuple(labels[i] for i in chosen),
        tuple(filter(None, warnings)),
        files=images.paths,
        hashes=files.hashes,
        names=files.names(images.paths),
    )


def _normalization(
    folder: Path,
    graph: Graph,
    wanted: ImageInput,
    options: DataOptions,
    processor: Preprocessor | None,
) -> tuple[Normalization | None, bool]:
    """The first of: the option, the model's metadata, its first layers, preprocessor_config.json.

    None: pixels are the quantized values of an 8-bit input. Image models are quantized for that,
    and MediaPipe feeds them so, even if the metadata states a normalization.

    Returns:
        The normalization, and whether it is from preprocessor_config.json.
    """
    if options.normalize is not None:
        return check_normalization(options.normalize, wanted), False
    if wanted.dtype in {"uint8", "int8"}:
        return None, False
    if wanted.name in graph.normalization:
        return check_normalization(graph.normalization[wanted.name], wanted), False
    if takes_pixels(graph, wanted.name):
        return PIXELS, False
    if processor is not None:
        return check_normalization(processor.normalization, wanted), True
    raise UsageError(
        f"how input {wanted.name!r} expects pixels is not known, for the images in {folder}",
        "give --normalize imagenet, -1..1, 0..1, 0..255 or MEAN,STD",
    )


def _size_warning(large: dict[Path, int]) -> str:
    """A sentence about images with so many pixels that they may be made to fill the memory."""
    if not large:
        return ""
    path, pixels = max(large.items(), key=lambda item: item[1])
    others = len(large) - 1
    more = f", and {others} more {'is' if others == 1 else 'are'} large" if others else ""
    memory = f"decoding takes {3 * pixels // _MILLION} MB"
    return f"{path.name} has {pixels // _MILLION} million pixels: {memory}{more}"
