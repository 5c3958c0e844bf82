"""The boxes that a detector returns, and their mean average precision against true boxes.

pycocotools computes it: the reference of the COCO benchmark, in 0.5 MB. torchmetrics would compute
the same numbers, but needs PyTorch, and calls pycocotools itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from exporter.evaluation.task_quality import Group, groups_of_units
from exporter.graph import Array

_MOST = 100  # boxes of one sample and class that count, as in the COCO benchmark


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one sample.

    Attributes:
        corners: (boxes, 4) left, top, right, bottom, as shares of the model's input.
        units: (boxes,)
        scores: (boxes,); of true boxes 1.
        is_crowd: (boxes,) bool: a true box around several objects, which is no mistake to find and
            none to miss.
    """

    corners: Array
    units: Array
    scores: Array
    is_crowd: Array

    @classmethod
    def of(cls, corners: Array, units: Array, scores: Array) -> Boxes:
        """Boxes of single objects."""
        return cls(corners, units, scores, np.zeros(len(units), bool))

    def only(self, mask: Array) -> Boxes:
        """Those of the boxes that a mask has."""
        return Boxes(self.corners[mask], self.units[mask], self.scores[mask], self.is_crowd[mask])

    def records(self, sample: int) -> Iterator[dict[str, Any]]:
        """As pycocotools takes them."""
        sizes = self.corners[:, 2:] - self.corners[:, :2]
        for corner, size, unit, score, crowd in zip(
            self.corners, sizes, self.units, self.scores, self.is_crowd, strict=True
        ):
            yield {
                "image_id": sample,
                "category_id": int(unit),
                "bbox": [*corner[:2].tolist(), *size.tolist()],
                "area": float(size.prod()),
                "score": float(score),
                "iscrowd": int(crowd),
            }


@dataclass(frozen=True, eq=False)
class BoxAnswers:
    """The boxes that a model returns, next to the true ones; one entry for each sample."""

    truth: Sequence[Boxes]
    found: Sequence[Boxes]
    _last: dict[str, tuple[Array, Array, Array]] = field(default_factory=dict)

    def value(self, measure: str, cases: Array, units: Array) -> float:
        """The mean over thresholds and over those of the units that have true boxes here."""
        precision = self._precision(cases, units)  # (thresholds, recalls, units, 1, 1)
        precision = precision[:1] if measure == "map50" else precision
        defined = precision[precision > -1]
        return float(defined.mean()) if defined.size else float("nan")

    def _precision(self, cases: Array, units: Array) -> Array:
        """The precisions of these samples; those of the last call are kept for the next measure."""
        last_cases, last_units, found = self._last.get("call", (None, None, np.empty(0)))
        if last_cases is cases and last_units is units:
            return np.asarray(found)
        evaluated, units_of_matches, matches = self._matches
        wanted = set(units.tolist())
        chosen = [row for row, unit in enumerate(units_of_matches) if unit in wanted]
        evaluated.params.catIds = [units_of_matches[row] for row in chosen]
        evaluated.params.imgIds = list(range(len(cases)))
        evaluated._paramsEval = evaluated.params  # noqa: SLF001 - accumulate() reads it
        evaluated.evalImgs = [matches[row][case] for row in chosen for case in cases]
        with redirect_stdout(io.StringIO()):
            evaluated.accumulate()
        found = evaluated.eval["precision"]
        self._last["call"] = cases, units, found
        return np.asarray(found)

    @cached_property
    def _matches(self) -> tuple[Any, list[int], list[list[Any]]]:
        """The evaluation, the units with true boxes, and for each unit the matches by sample."""
        from pycocotools.coco import COCO  # noqa: PLC0415 - an optional library
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - likewise

        units = sorted({unit for boxes in self.truth for unit in boxes.units.tolist()})
        with redirect_stdout(io.StringIO()):
            truth, found = (self._indexed(COCO(), each, units) for each in (self.truth, self.found))
            evaluated = COCOeval(truth, found, "bbox")
            evaluated.params.areaRng, evaluated.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluated.params.maxDets = [_MOST]
            evaluated.evaluate()
        count = len(self.truth)
        rows = [evaluated.evalImgs[i * count : (i + 1) * count] for i in range(len(units))]
        return evaluated, units, rows

    @staticmethod
    def _indexed(index: Any, samples: Sequence[Boxes], units: Sequence[int]) -> Any:
        records = [record for i, boxes in enumerate(samples) for record in boxes.records(i)]
        index.dataset = {
            "images": [{"id": i} for i in range(len(samples))],
            "categories": [{"id": unit} for unit in units],
            "annotations": [{**each, "id": i} for i, each in enumerate(records, 1)],
        }
        index.createIndex()
        return index


def box_groups(truth: Sequence[Boxes], is_kept: Array) -> tuple[Group, ...]:
    """All samples, with the units of kept, of removed and of all classes.

    The count is the number of true boxes.
    """
    every = np.concatenate([boxes.units[~boxes.is_crowd] for boxes in truth])
    return groups_of_units(len(truth), is_kept, lambda mask: int(mask[every].sum()))
