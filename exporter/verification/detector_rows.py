"""Rows that a post-process returns: what a cut owes them.

Rows of removed classes make room, so that rows appear that were not among the best before; a row of
a kept class keeps its box and its score. It may be gone where a row that appeared overlaps it and
ranks no lower, or where as many rows as there is room for rank no lower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from exporter.graph import Array, Graph, Node, Tensor
from exporter.graph.operations import NonMaxSuppression
from exporter.trace.head import Detection

Answers = Mapping[str, Array]  # tensor -> (samples, ...)

TIE = 1e-6  # scores and coordinates this near are equal, where the accumulator is a float


@dataclass(frozen=True, eq=False)
class Rows:
    """One sample's detections, the best first.

    Attributes:
        boxes: (rows, 4) ymin, xmin, ymax, xmax.
        numbers: (rows,) of classes, as the post-process returns them.
        scores: (rows,)
        room: how many rows there could be.
    """

    boxes: Array
    numbers: Array
    scores: Array
    room: int


@dataclass(frozen=True, eq=False)
class DetectedRows:
    """The rows of one post-process of the original beside those of what became of it.

    Attributes:
        detection: of the original; its rows are outputs of both models.
        numbers: class number in the original -> that of the same class in the result, for the
            classes that are kept.
        columns: class number in the result -> position of its values.
        shared_out: the scores of all classes depend on each other, as under a softmax, so that
            those of kept rows rise.
    """

    detection: Detection
    numbers: Mapping[int, int]
    columns: Mapping[int, int]
    shared_out: bool

    def lost(self, left: Answers, right: Answers) -> int:
        """How many rows of kept classes are neither returned as they were nor displaced."""
        operation = self.detection.node.operation
        overlap = operation.overlap if isinstance(operation, NonMaxSuppression) else 1.0
        pairs = zip(self._rows(left), self._rows(right), strict=True)
        return sum(lost_rows(*pair, self.numbers, overlap) for pair in pairs)

    def foreign(self, right: Answers, tensor: Tensor) -> int:
        """How many rows have a score that no box has for the class that they name.

        Args:
            right: answers of the result.
            tensor: of the result, with the values that enter its post-process.
        """
        values = tensor.dequantize(right[self.detection.source])
        pairs = zip(self._rows(right), values, strict=True)
        return sum(foreign_rows(rows, each[0], self.columns) for rows, each in pairs)

    @property
    def boxes(self) -> str:
        """The tensor that says where the boxes are, as it enters the post-process."""
        operation = self.detection.node.operation
        assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - the head has it from one
        return self.detection.node.inputs[operation.boxes]

    def moved(self, answers: tuple[Answers, Answers], graphs: tuple[Graph, Graph]) -> int | None:
        """How many of the values are changed that say where boxes are, and which of them stay:
        computed ones, and the constants and options of the post-process; None where it is gone.

        Args:
            answers: of the original and the result, with `boxes`.
            graphs: theirs.
        """
        before = self.detection.node
        after = next((each for each in graphs[1].nodes if each.name == before.name), None)
        if after is None or any(self.boxes not in each for each in answers):
            return None
        values = [(answers[0][self.boxes], answers[1][self.boxes])]
        stated = _constants(graphs[0], before), _constants(graphs[1], after)
        values += zip(*stated, strict=False)
        settings = [getattr(node.operation, "settings", None) for node in (before, after)]
        other = len(stated[0]) != len(stated[1]) or settings[0] != settings[1]
        return other + sum(_differing(*pair) for pair in values)

    def returned(self, right: Answers) -> bool:
        """Are all of the rows there?"""
        return all(name in right for name in self.detection.rows or ())

    def _rows(self, answers: Answers) -> Iterator[Rows]:
        """Each sample's, as far as the post-process counts them."""
        boxes, numbers, scores, counts = (answers[name] for name in self.detection.rows or ())
        for i in range(len(counts)):
            count = int(np.ravel(counts[i])[0])
            yield Rows(
                boxes[i].reshape(-1, 4)[:count].astype(np.float64),
                np.ravel(numbers[i])[:count].astype(np.int64),
                np.ravel(scores[i])[:count].astype(np.float64),
                room=np.size(scores[i]),
            )


def _constants(graph: Graph, node: Node) -> list[Array]:
    tensors = [graph.tensors[name] for name in node.inputs if name]
    return [tensor.read() for tensor in tensors if tensor.read is not None]


def _differing(left: Array, right: Array) -> int:
    """How many values are not the same to the bit; all where there are others."""
    return left.size if left.shape != right.shape else int((left != right).sum())


def lost_rows(before: Rows, after: Rows, numbers: Mapping[int, int], overlap: float) -> int:
    """How many of one sample's rows of kept classes are gone without a reason.

    Args:
        before, after: of the original, and of what became of it.
        numbers: see `DetectedRows`.
        overlap: intersection over union from which on a box displaces another.
    """
    known = _kept(before, numbers)
    appeared = np.array(
        [not _same(known, *row).any() for row in zip(after.boxes, after.numbers, strict=True)], bool
    )
    lost = 0
    for box, number, score in zip(known.boxes, known.numbers, known.scores, strict=True):
        returned = _same(after, box, number) & (np.abs(after.scores - score) <= TIE)
        better = after.scores >= score - TIE
        nearby = _shared(after.boxes, box) > overlap - TIE
        displaced = (better & nearby & appeared).any() or better.sum() >= after.room
        lost += not (returned.any() or displaced)
    return lost


def _kept(rows: Rows, numbers: Mapping[int, int]) -> Rows:
    """The rows of kept classes, under their new numbers."""
    kept = np.isin(rows.numbers, list(numbers))
    new = np.array([numbers[number] for number in rows.numbers[kept].tolist()], np.int64)
    return Rows(rows.boxes[kept], new, rows.scores[kept], rows.room)


def foreign_rows(after: Rows, values: Array, columns: Mapping[int, int]) -> int:
    """How many of one sample's rows have a score that no box has for the class that they name.

    Args:
        after: of the result.
        values: (boxes, background + classes) that enter its post-process.
        columns: see `DetectedRows`.
    """
    rows = zip(after.numbers.tolist(), after.scores, strict=True)
    return sum(
        number not in columns or bool(np.abs(values[:, columns[number]] - score).min() > TIE)
        for number, score in rows
    )


def _same(rows: Rows, box: Array, number: int) -> Array:
    """Which rows have that box and that class."""
    return np.asarray((np.abs(rows.boxes - box) <= TIE).all(axis=1) & (rows.numbers == number))


def _shared(boxes: Array, box: Array) -> Array:
    """Intersection over union of each box with one."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    both = np.clip(high - low, 0.0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(both / np.maximum(areas - both, np.finfo(np.float64).tiny))
