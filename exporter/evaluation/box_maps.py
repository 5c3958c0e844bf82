"""Boxes of a detector that returns a row for each place of the image, before suppression.

The rows have a center, a width and a height, perhaps the probability of an object, and one of each
class: as YOLOv5 to YOLOv11 and YOLOX are exported. Each class is suppressed alone, so that
the boxes of a class do not depend on the other classes, which a cut removes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from exporter.evaluation.read_outputs import Outputs, not_measurable
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.trace.head import Head

_LOWEST_SCORE, _LARGEST_OVERLAP = 0.001, 0.7  # as in the validation of Ultralytics
_MOST = 1000  # boxes of a class in one image that are suppressed
_STRIDES = (8, 16, 32)  # of YOLOX, whose boxes are relative to the cells of three grids
_SIDES = 4
_REMOVED = -1000.0  # the mode mask gives removed classes values below it


class BoxMap:
    """Reads the rows of one output.

    Attributes:
        name: of the output.
    """

    def __init__(self, head: Head, model: Model, size: tuple[int, int] | None) -> None:
        """Args:
        head: of the original; `fits` it.
        model: the original, or a file that was cut from it.
        size: width and height of the model's image input, if it has one of known size.
        """
        self.name, self._size, self._model = head.output, size, model.name
        self._axis = head.tensor(head.output).unit_axis.axis
        removed = head.units - (self._width(model) - self._others(head))
        parts = {part.name: part for part in head.axis_parts}
        end = parts["classes"].stop
        self._slices: Mapping[str, slice] = {
            name: slice(
                part.start - (removed if part.start >= end else 0),
                part.stop - (removed if part.stop >= end else 0),
            )
            for name, part in parts.items()
        }

    @staticmethod
    def fits(head: Head, model: Model) -> bool:
        """Does the output have such rows?"""
        parts = {part.name: part.stop - part.start for part in head.axis_parts}
        shape = model.graph().shape(head.output) if head.output in model.graph().outputs else ()
        return "classes" in parts and parts.get("box") == _SIDES and len(shape) == _SIDES - 1

    def _width(self, model: Model) -> int:
        return model.graph().shape(self.name)[self._axis] or 0

    @staticmethod
    def _others(head: Head) -> int:
        """How many positions of the original's axis are no classes."""
        return len(head.tensor(head.output).unit_axis.units) - head.units

    def __call__(self, outputs: Outputs) -> tuple[Array, Array, Array]:
        """(boxes, 4) left, top, right, bottom, then class and score of each box that is left."""
        rows = np.moveaxis(outputs[self.name][0].astype(np.float64), self._axis - 1, -1)
        scores = rows[:, self._slices["classes"]]
        known = scores[scores > _REMOVED]
        if known.min(initial=0) < 0 or known.max(initial=0) > 1:
            raise not_measurable(
                f"the scores of {self._model} are no probabilities",
                "export the model with a sigmoid after its classes",
            )
        if "object" in self._slices:
            scores = scores * rows[:, self._slices["object"]]
        corners = self._corners(rows[:, self._slices["box"]])
        kept = list(_best(corners, scores))
        places = np.array([place for place, _ in kept], np.int64)
        classes = np.array([unit for _, unit in kept], np.int64)
        return corners[places], classes, scores[places, classes]

    def _corners(self, boxes: Array) -> Array:
        center, size = boxes[:, :2], boxes[:, 2:]
        if size.min(initial=0) < 0:  # logarithms
            corner, stride = self._cells(len(boxes))
            center, size = (center + corner) * stride, np.exp(size) * stride
        return np.concatenate([center - size / 2, center + size / 2], axis=1)

    def _cells(self, count: int) -> tuple[Array, Array]:
        """(boxes, 2) column and row of each cell, and (boxes, 1) its size in pixels."""
        width, height = self._size or (0, 0)
        cells, strides = [np.empty((0, 2))], [np.empty((0, 1))]
        for stride in _STRIDES:
            rows, columns = np.mgrid[: height // stride, : width // stride]
            cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
            strides.append(np.full((rows.size, 1), stride))
        if sum(map(len, cells)) != count:
            raise not_measurable(
                f"the boxes of {self._model} are relative to cells that are not known",
                "export the model with decoded boxes: center, width and height",
            )
        return np.concatenate(cells), np.concatenate(strides)


def _best(corners: Array, scores: Array) -> Iterator[tuple[int, int]]:
    """(place, class) of the boxes that overlap with no better one of their class."""
    areas = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1)
    for unit, values in enumerate(scores.T):
        places = np.flatnonzero(values > _LOWEST_SCORE)
        places = places[np.argsort(-values[places], kind="stable")][:_MOST]
        while len(places):
            first, places = int(places[0]), places[1:]
            yield first, unit
            low = np.maximum(corners[first, :2], corners[places, :2])
            high = np.minimum(corners[first, 2:], corners[places, 2:])
            shared = np.prod(np.maximum(high - low, 0), axis=1)
            together = areas[first] + areas[places] - shared
            places = places[shared <= _LARGEST_OVERLAP * together]
