"""Rows that a NonMaxSuppression operator returns: which of them a cut must keep.

Rows of removed classes make room, so rows appear that were not among the best before. A row of a
kept class keeps its box and its score. It may be missing if a row that appeared overlaps it and
ranks no lower, or if as many rows as there is room for rank no lower.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.graph import Array, Graph, Node
from exporter.graph.operations import NonMaxSuppression
from exporter.trace.readers import Detection
from exporter.verification.roles import Answers, Comparer, Runs, WrongRows

TIE = 1e-6  # scores and coordinates at most this far apart are equal


@dataclass(frozen=True, eq=False)
class SampleRows:
    """The detections in one sample, the best first.

    Attributes:
        boxes: (rows, 4) ymin, xmin, ymax, xmax.
        classes: (rows,) class indices, as the operator returns them.
        scores: (rows,)
        room: the largest number of rows.
    """

    boxes: Array
    classes: Array
    scores: Array
    room: int


@dataclass(frozen=True, eq=False)
class DetectedRows(Comparer):
    """The rows of one operator in the original and in the pruned model.

    Attributes:
        detection: of the original; its rows are outputs of both models.
        graphs: of the original and of the pruned model.
        new_index: class index in the original -> in the pruned model, for the kept classes.
        columns: class index in the pruned model -> position of its scores.
        shared: the scores of all classes depend on each other, as under a softmax, so the scores of
            kept rows rise.
    """

    detection: Detection
    graphs: tuple[Graph, Graph]
    new_index: Mapping[int, int]
    columns: Mapping[int, int]
    shared: bool

    def tensors(self) -> tuple[Iterable[str], Iterable[str]]:
        return (self.boxes,), (self.detection.source, self.boxes)

    def compare(self, runs: Runs) -> Iterator[WrongRows]:
        """Lost rows, rows with a wrong class or score, and changed boxes."""
        name = self.detection.node.name
        has_scores = self.detection.source in self.graphs[1].tensors
        if not has_scores or any(row not in runs.pruned for row in self.detection.rows or ()):
            yield WrongRows(name, "rows", None)
            return
        if not self.shared:
            yield WrongRows(name, "rows", self._lost(runs))
        yield WrongRows(name, "classes", self._foreign(runs.pruned))
        yield WrongRows(name, "boxes", self.changed_boxes(runs))

    def _lost(self, runs: Runs) -> int:
        """How many rows of kept classes are neither returned unchanged nor displaced."""
        operation = self.detection.node.operation
        overlap = operation.overlap if isinstance(operation, NonMaxSuppression) else 1.0
        pairs = zip(self._rows(runs.original), self._rows(runs.pruned), strict=True)
        return sum(lost_rows(*pair, self.new_index, overlap) for pair in pairs)

    def _foreign(self, pruned: Answers) -> int:
        """How many rows have a score that no box has for the class of the row."""
        source = self.detection.source
        scores = self.graphs[1].tensors[source].dequantize(pruned[source])
        pairs = zip(self._rows(pruned), scores, strict=True)
        return sum(foreign_rows(rows, each[0], self.columns) for rows, each in pairs)

    @property
    def boxes(self) -> str:
        """The tensor with the boxes that the operator reads."""
        operation = self.detection.node.operation
        assert isinstance(operation, NonMaxSuppression)  # noqa: S101 - the head has it from one
        return self.detection.node.inputs[operation.boxes]

    def changed_boxes(self, runs: Runs) -> int | None:
        """How many values changed among all that decide where boxes are and which are returned.

        These are the boxes, and once the constants and settings of the operator. None if the pruned
        model has no such operator or boxes.
        """
        known = self.changed_settings
        if known is None or self.boxes not in runs.original or self.boxes not in runs.pruned:
            return None
        changed = _count_unequal(runs.original[self.boxes], runs.pruned[self.boxes])
        return changed if runs.first else changed + known

    @cached_property
    def changed_settings(self) -> int | None:
        """How many constants and settings of the operator changed; None if there is none."""
        before = self.detection.node
        after = next((node for node in self.graphs[1].nodes if node.name == before.name), None)
        if after is None:
            return None
        constants = _constants(self.graphs[0], before), _constants(self.graphs[1], after)
        settings = [getattr(node.operation, "settings", None) for node in (before, after)]
        other = len(constants[0]) != len(constants[1]) or settings[0] != settings[1]
        return other + sum(_count_unequal(*pair) for pair in zip(*constants, strict=False))

    def _rows(self, answers: Answers) -> Iterator[SampleRows]:
        """The rows of each sample, as many as the operator counts."""
        boxes, classes, scores, counts = (answers[name] for name in self.detection.rows or ())
        for i in range(len(counts)):
            count = int(np.ravel(counts[i])[0])
            yield SampleRows(
                boxes[i].reshape(-1, 4)[:count].astype(np.float64),
                np.ravel(classes[i])[:count].astype(np.int64),
                np.ravel(scores[i])[:count].astype(np.float64),
                room=np.size(scores[i]),
            )


def _constants(graph: Graph, node: Node) -> list[Array]:
    tensors = [graph.tensors[name] for name in node.inputs if name]
    return [tensor.read() for tensor in tensors if tensor.read is not None]


def _count_unequal(left: Array, right: Array) -> int:
    """How many values are not bit-identical; all values if the shapes differ."""
    return left.size if left.shape != right.shape else int((left != right).sum())


def lost_rows(
    before: SampleRows, after: SampleRows, new_index: Mapping[int, int], overlap: float
) -> int:
    """How many rows of kept classes are missing in one sample without a reason.

    Args:
        before, after: of the original and of the pruned model.
        new_index: see `DetectedRows`.
        overlap: intersection over union from which a box displaces another.
    """
    known = _kept(before, new_index)
    rows = zip(after.boxes, after.classes, strict=True)
    appeared = np.array([not _same(known, *row).any() for row in rows], bool)
    lost = 0
    for box, class_index, score in zip(known.boxes, known.classes, known.scores, strict=True):
        returned = _same(after, box, class_index) & (np.abs(after.scores - score) <= TIE)
        better = after.scores >= score - TIE
        overlaps = _overlaps(after.boxes, box) > overlap - TIE
        displaced = (better & overlaps & appeared).any() or better.sum() >= after.room
        lost += not (returned.any() or displaced)
    return lost


def _kept(rows: SampleRows, new_index: Mapping[int, int]) -> SampleRows:
    """The rows of kept classes, with their new class indices."""
    kept = np.isin(rows.classes, list(new_index))
    new = np.array([new_index[old] for old in rows.classes[kept].tolist()], np.int64)
    return SampleRows(rows.boxes[kept], new, rows.scores[kept], rows.room)


def foreign_rows(after: SampleRows, scores: Array, columns: Mapping[int, int]) -> int:
    """How many rows of one sample have a score that no box has for the class of the row.

    Args:
        after: of the pruned model.
        scores: (boxes, background + classes) that its operator reads.
        columns: see `DetectedRows`.
    """
    rows = zip(after.classes.tolist(), after.scores, strict=True)
    return sum(
        index not in columns or bool(np.abs(scores[:, columns[index]] - score).min() > TIE)
        for index, score in rows
    )


def _same(rows: SampleRows, box: Array, class_index: int) -> Array:
    """Which rows have this box and this class."""
    same_box = (np.abs(rows.boxes - box) <= TIE).all(axis=1)
    return np.asarray(same_box & (rows.classes == class_index))


def _overlaps(boxes: Array, box: Array) -> Array:
    """Intersection over union of each box with one box."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    both = np.clip(high - low, 0.0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(both / np.maximum(areas - both, np.finfo(np.float64).tiny))
