"""How image pixels become the values of an input: stated in files whose clients need to know it."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.data.image_input import image_input
from exporter.data.pixel_range import takes_pixels
from exporter.errors import UsageError
from exporter.formats import KINDS
from exporter.formats.model import Model
from exporter.graph.normalization import PIXELS, Normalization, parse_normalization
from exporter.remap import HeadRemap

Images = Mapping[str, Normalization | None]  # by the name of the input; None if not known

_RGB = 3  # channels; other inputs of such a shape may be sounds


def image_inputs(model: Model, normalize: str | None) -> Images:
    """Float input for images -> the normalization to state; None for an RGB image if unknown.

    The first that is known: the model's metadata, the option, a first layer that scales pixels.

    Args:
        model: of the kind that is written. Empty if its files do not state a normalization.
        normalize: the option of that name.

    Raises:
        UsageError: the option is not a normalization, or has other channels than the input.
    """
    given = None if normalize is None else parse_normalization(normalize)
    graph = model.graph()
    try:
        image = image_input(graph)
    except UsageError:  # it takes no images
        return {}
    if not KINDS[model.kind].states_normalization or not image.dtype.startswith("float"):
        return {}
    known = graph.normalization.get(image.name, given)
    if known is None and takes_pixels(graph, image.name):
        known = PIXELS
    if known is not None and len(known.mean) not in {1, image.channels}:
        raise UsageError(
            f"the normalization has {len(known.mean)} channels, input {image.name!r} has "
            f"{image.channels}",
            "give one mean and one standard deviation: --normalize MEAN,STD",
        )
    return {image.name: known} if known is not None or image.channels == _RGB else {}


def pixel_warnings(images: Images, head: HeadRemap, *, labeled: bool) -> list[str]:
    """A warning about an input whose pixels are stated without being known.

    Args:
        head: the file states pixels together with its labels.
        labeled: the model contained labels; its metadata is not completed then.
    """
    if labeled or not head.labels or not any(head.labels):
        return []
    return [
        f"how input {name!r} expects pixels is not known: the metadata states 0 to 255, as they "
        "are; give --normalize, so that MediaPipe feeds the right values"
        for name, known in images.items()
        if known is None
    ]
