"""Run a detector and its original, and read the boxes that they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from exporter.data.samples import Samples
from exporter.evaluation.box_answers import Boxes
from exporter.evaluation.box_maps import BoxMap
from exporter.evaluation.read_classes import Subject
from exporter.evaluation.read_outputs import Outputs, not_measurable, run_on
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.remap import HeadRemap
from exporter.remap.head_remap import originals
from exporter.trace.head import Head
from exporter.trace.readers import Detection
from exporter.verification.match import earlier_table

_ROW = 6  # left, top, right, bottom, score, class index
_LARGEST_SHARE = 2.0  # coordinates above it are pixels; a box may exceed the image a little
_MOST_INVERTED = 0.1  # of the boxes: training does not prevent a few
Rows = Callable[[Outputs], tuple[Array, Array, Array]]  # -> corners, class values, scores


def original_boxes(subject: Subject) -> list[Boxes]:
    """The boxes of the original, sample by sample."""
    known = class_values(subject.original, subject.head, subject.table, artifact=False)
    units = {value: unit for unit, value in enumerate(known)}
    return _boxes(subject, subject.original, units)


def artifact_boxes(subject: Subject, artifact: Model) -> list[Boxes]:
    """The boxes of the new file, with the units of the original."""
    known = class_values(subject.original, subject.head, subject.table, artifact=True)
    at = subject.kept.at_position.tolist()
    units = {value: at[position] for position, value in enumerate(known)}
    return _boxes(subject, artifact, units)


def class_values(
    original: Model, head: Head, table: HeadRemap | None, *, artifact: bool
) -> list[int]:
    """The number that a model returns for each of its positions.

    Args:
        head: of the original.
        table: how the artifact was cut.
        artifact: of the new file; else of the original.
    """
    earlier = None if table is None else earlier_table(original, table)
    used = table if artifact else earlier
    count = head.units if used is None else used.new_units
    offset = next((each.offset for each in head.readers.columns.values()), 0)
    if entries := _entries(original, head):
        if not artifact or table is None:
            return entries
        first = originals(table) if earlier is None else earlier.to_new(originals(table))
        return [entries[unit] for unit in first.tolist()]
    if used is not None and used.options["restore_ids"]:
        return [int(unit) + offset for unit in originals(used)]
    return [position + offset for position in range(count)]


def _entries(original: Model, head: Head) -> list[int]:
    """The entries of a table in which the model looks up class indices, by unit; [] without one."""
    for table in (table for each in head.readers.detections for table in each.tables):
        read = original.graph().tensors[table.name].read
        if read is not None:
            return [int(v) for v in np.ravel(read())[table.unit_axis.units >= 0]]
    return []


def _boxes(subject: Subject, model: Model, units: Mapping[int, int]) -> list[Boxes]:
    read = _rows(subject.head, model, subject.samples)
    found = []
    for outputs, rows in run_on(model, subject.samples, subject.options):
        if rows != 1:
            raise not_measurable(
                f"{model.name} takes {rows} samples at a time",
                "boxes are read from models with a batch of 1",
            )
        corners, values, scores = read(outputs)
        named = np.asarray([units.get(int(value), -1) for value in values.tolist()], np.int64)
        good = (named >= 0) & np.isfinite(corners).all(axis=1) & np.isfinite(scores)
        found.append(Boxes.of(corners[good], named[good], scores[good]))
    return _as_shares(found, model, subject.samples)


def _rows(head: Head, model: Model, samples: Samples) -> Rows:
    outputs = set(model.graph().outputs)
    for detection in head.readers.detections:
        if detection.rows is not None and outputs.issuperset(detection.rows):
            return _of_post_process(detection)
    for name, column in head.readers.columns.items():
        if name in outputs and (column.position, column.width) == (_ROW - 1, _ROW):
            return _of_rows(name)
    if BoxMap.fits(head, model):
        return BoxMap(head, model, input_size(model, samples))
    raise not_measurable(
        f"{model.name} does not return boxes in a form that is known",
        "known are the four outputs of TFLite_Detection_PostProcess, and one output with rows of "
        "left, top, right, bottom, score and class, or of center, width, height and class scores",
    )


def _of_post_process(detection: Detection) -> Rows:
    """Rows of top, left, bottom, right, as shares of the image."""

    def read(outputs: Outputs) -> tuple[Array, Array, Array]:
        boxes, classes, scores, counts = (outputs[name] for name in detection.rows or ())
        count = int(np.ravel(counts)[0])
        corners = boxes.reshape(-1, 4)[:count, [1, 0, 3, 2]].astype(np.float64)
        return corners, np.ravel(classes)[:count], np.ravel(scores)[:count].astype(np.float64)

    return read


def _of_rows(name: str) -> Rows:
    def read(outputs: Outputs) -> tuple[Array, Array, Array]:
        rows = outputs[name].reshape(-1, _ROW).astype(np.float64)
        rows = rows[rows[:, 4] > 0]  # the others fill up the output
        return rows[:, :4], rows[:, 5], rows[:, 4]

    return read


def _as_shares(found: Sequence[Boxes], model: Model, samples: Samples) -> list[Boxes]:
    """Coordinates as shares of the input; a model may return pixels of its input.

    Raises:
        UsageError: too many boxes end before they start: the values are no corners.
    """
    every = np.concatenate([boxes.corners for boxes in found])
    inverted = (every[:, 2:] < every[:, :2]).any(axis=1)
    if inverted.sum() > _MOST_INVERTED * len(every):
        raise not_measurable(
            f"the boxes of {model.name} are not left, top, right, bottom",
            "center, width and height are not known; export the model with corners",
        )
    if float(np.abs(every).max(initial=0)) <= _LARGEST_SHARE:
        return list(found)
    size = input_size(model, samples)
    if size is None:
        raise not_measurable(
            f"{model.name} returns boxes in pixels, and the size of its input is open",
            "give a model with a fixed input size",
        )
    scale = np.array([*size, *size], np.float64)
    return [Boxes.of(each.corners / scale, each.units, each.scores) for each in found]


def input_size(model: Model, samples: Samples) -> tuple[int, int] | None:
    """Width and height of the model's image input; None if it has none of known size."""
    for name in samples.values:
        shape = model.graph().shape(name)
        if len(shape) == 4:  # noqa: PLR2004 - batch, height, width and channels in some order
            _, *sizes = shape
            height, width = sizes[:2] if sizes[2] in {1, 3} else sizes[1:]
            return None if height is None or width is None else (width, height)
    return None
