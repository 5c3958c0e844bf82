"""True boxes from a JSON file in the format of COCO."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import UsageError
from exporter.evaluation.box_answers import Boxes
from exporter.graph import Array
from exporter.selection.text_file import LARGEST_RECORDS, read_text


@dataclass(frozen=True, eq=False)
class TrueBoxes:
    """The true boxes of each sample.

    Attributes:
        categories: id -> name.
        samples: for each sample its boxes; `units` are category ids.
    """

    categories: Mapping[int, str]
    samples: Sequence[Boxes]

    def in_units(self, unit_of: Mapping[int, int]) -> list[Boxes]:
        """The boxes with units in place of category ids; boxes of other categories are left out."""
        found = []
        for boxes in self.samples:
            units = np.asarray([unit_of.get(each, -1) for each in boxes.units.tolist()], np.int64)
            known = units >= 0
            only = boxes.only(known)
            found.append(Boxes(only.corners, units[known], only.scores, only.is_crowd))
        return found


Placement = Callable[[Array, float, float], Array]  # corners in pixels, width, height -> shares


def stretched(corners: Array, width: float, height: float) -> Array:
    """The corners in an image that was stretched to the size of the input."""
    return np.asarray(corners / np.array([width, height, width, height]))


def placement(resize: str, size: tuple[int, int], shown: float = 1.0) -> Placement:
    """Where the corners of a box are in the input, for a way to resize images.

    Args:
        resize: "stretch", "crop" or "pad".
        size: width and height of the input.
        shown: the share of the shorter side that "crop" keeps.
    """
    if resize == "stretch":
        return stretched

    def centered(corners: Array, width: float, height: float) -> Array:
        original, wanted = np.array([width, height]), np.array(size, float)
        scales = wanted / original
        scale = scales.min() if resize == "pad" else scales.max() / shown
        offset = (wanted - original * scale) / 2
        placed = (corners.reshape(-1, 2) * scale + offset) / wanted
        return np.asarray(np.clip(placed, 0.0, 1.0).reshape(-1, 4))

    return centered


def read_true_boxes(
    path: Path, count: int, names: Sequence[str] | None, place: Placement = stretched
) -> TrueBoxes:
    """Read the true boxes of samples.

    Args:
        path: with `images` (id, file_name, width, height), `categories` (id, name) and
            `annotations` (image_id, category_id, bbox as left, top, width, height in pixels).
        count: number of samples.
        names: of the samples, relative to their folder; None if the images of the file are in the
            order of the samples.

    Raises:
        UsageError: not such a file, or it lacks a sample.
    """
    try:
        record = json.loads(read_text(path, LARGEST_RECORDS))
        images = {image["id"]: image for image in record["images"]}
        categories = {int(each["id"]): str(each["name"]) for each in record["categories"]}
        boxes = _boxes_by_image(record["annotations"], images, place)
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a file of boxes in the format of COCO: {error!r}",
            "it needs images with id, file_name, width and height; categories with id and name; "
            "and annotations with image_id, category_id and bbox",
        ) from error
    nothing = Boxes.of(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0))
    order = _order(path, images, count, names)
    return TrueBoxes(categories, [boxes.get(image, nothing) for image in order])


def _boxes_by_image(
    annotations: Sequence[Mapping[str, Any]], images: Mapping[Any, Any], place: Placement
) -> dict[Any, Boxes]:
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for each in annotations:
        found.setdefault(each["image_id"], []).append(each)
    return {
        image: _placed(rows, float(images[image]["width"]), float(images[image]["height"]), place)
        for image, rows in found.items()
    }


def _placed(
    rows: Sequence[Mapping[str, Any]], width: float, height: float, place: Placement
) -> Boxes:
    sizes = np.asarray([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4)
    corners = place(np.concatenate([sizes[:, :2], sizes[:, :2] + sizes[:, 2:]], 1), width, height)
    if not np.isfinite(corners).all():
        raise ValueError("a box or the size of its image is not finite")
    units = np.asarray([int(row["category_id"]) for row in rows], np.int64)
    crowd = np.asarray([bool(row.get("iscrowd", 0)) for row in rows])
    boxes = Boxes(corners, units, np.ones(len(rows)), crowd)
    is_inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)  # a crop may cut a box off
    return boxes.only(np.asarray(is_inside))


def _order(
    path: Path, images: Mapping[Any, Any], count: int, names: Sequence[str] | None
) -> list[Any]:
    """The id of the image of each sample."""
    if names is None:
        if len(images) < count:
            raise UsageError(
                f"{path} has {len(images)} images for {count} samples",
                "list one image for each sample, in their order",
            )
        return list(images)[:count]
    by_name = {str(image.get("file_name")): key for key, image in images.items()}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UsageError(
            f"{path} has no image called {missing[0]!r}",
            "list each sample under images, with its path in the folder as file_name",
        )
    return [by_name[name] for name in names]
