"""The measures of task quality: what a report calls them, and how they are compared.

`value` is computed on samples by the answers of a task (`ClassAnswers` and others).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measure of task quality.

    Attributes:
        label: a few words for people.
        task: key of TASKS.
        higher_is_better: False for an error rate.
        is_share: a share of correct samples, so that its interval is computed as for a proportion.
        of_units: it is a mean over units, so that the time that it takes grows with their number.
    """

    label: str
    task: str
    higher_is_better: bool = True
    is_share: bool = False
    of_units: bool = False


MEASURES: Mapping[str, Measure] = {  # of each task the first is the one that gates use
    "accuracy": Measure("accuracy", "classes", is_share=True),
    "top5_accuracy": Measure("top-5 accuracy", "classes", is_share=True),
    "macro_f1": Measure("macro F1", "classes"),
    "mean_average_precision": Measure("mean AP", "labels", of_units=True),
    "multilabel_macro_f1": Measure("macro F1", "labels", of_units=True),
    "map": Measure("mAP 50:95", "boxes", of_units=True),
    "map50": Measure("mAP 50", "boxes", of_units=True),
    "mean_iou": Measure("mean IoU", "pixels", of_units=True),
    "pixel_accuracy": Measure("pixel accuracy", "pixels", of_units=True),
    "character_error_rate": Measure("character error", "text", higher_is_better=False),
    "word_error_rate": Measure("word error", "text", higher_is_better=False),
}
QUALITY_STAGE = "quality"  # the stage of the checks of quality gates
DROP = "drop"  # the metric of a `--max-drop` check

TASKS: Mapping[str, str] = {
    "classes": "classification",
    "labels": "multi-label classification",
    "boxes": "detection",
    "pixels": "segmentation",
    "text": "recognition",
}


def gated_measure(task: str) -> str:
    """The measure that `--min-accuracy` and `--max-drop` use."""
    return next(name for name, measure in MEASURES.items() if measure.task == task)


def is_lower_bound(metric: str) -> bool:
    """Whether the limit of a quality gate is a lower bound."""
    return metric != DROP


def score(name: str, value: float) -> float:
    """A value that is higher if it is better: 1 - value of an error rate."""
    return value if MEASURES[name].higher_is_better else 1.0 - value
