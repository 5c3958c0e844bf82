"""The options of `exporter select`. The command line reads the fields without loading NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.planning.option import option

if TYPE_CHECKING:
    from exporter.evaluation.criteria import Criteria

_criterion = partial(option, section="Which units to keep", commands=("select",))
_inputs = partial(option, section="Data", commands=("select",))

BY = ("count", "support", "precision", "recall", "f1", "average_precision", "active", "norm")


@dataclass(frozen=True)
class SelectOptions:
    """How units are chosen: a unit is kept if it passes every criterion that is given."""

    min_f1: float | None = _criterion(None, "Smallest F1 on labeled data.", minimum=0, maximum=1)
    min_precision: float | None = _criterion(None, "Smallest precision.", minimum=0, maximum=1)
    min_recall: float | None = _criterion(None, "Smallest recall.", minimum=0, maximum=1)
    min_average_precision: float | None = _criterion(
        None, "Smallest average precision, for multi-label models.", minimum=0, maximum=1
    )
    min_support: int | None = _criterion(None, "Fewest labeled samples.", minimum=0)
    min_count: int | None = _criterion(None, "Fewest predictions, or counts.", minimum=0)
    min_active: float | None = _criterion(
        None, "Smallest share of samples in which the unit is active.", minimum=0, maximum=1
    )
    min_norm: float | None = _criterion(None, "Smallest norm of the unit's weights.", minimum=0)
    top: int | None = _criterion(None, "Keep only the best N units.", metavar="N", minimum=1)
    by: str | None = _criterion(
        None,
        "The measure that orders units for --top. Default: count.",
        choices=dict.fromkeys(BY, ""),
    )
    coverage: float | None = _criterion(
        None,
        "Keep the most frequent units that make up this share of the predictions, such as 0.995.",
        minimum=0,
        maximum=1,
    )
    max_correlation: float | None = _criterion(
        None,
        "Remove units whose outputs correlate at least so with a more frequent unit.",
        minimum=0,
        maximum=1,
    )
    counts: Path | None = _inputs(
        None,
        "CSV file with the columns label (or index) and count, or a log with one label per line. "
        "The model is not run.",
    )
    occurs_in: Path | None = _inputs(
        None,
        "Text file: keep the tokens that occur in it at least --min-count times (default 1). Byte "
        "and special tokens are always kept. The model is not run.",
    )
    labels: str | Path | Sequence[str] | None = _inputs(
        None,
        "Labels of the units: .csv, .json, or one per line. Default: those in the model.",
        parse="path",
    )
    head: str | None = _inputs(None, "Name of the head, if there are several.", metavar="NAME")

    @property
    def criteria(self) -> Criteria:
        """The rules (raises UsageError if there is none)."""
        from exporter.evaluation.criteria import Criteria

        limits = {name: getattr(self, f"min_{name}", None) for name in BY}
        if self.occurs_in is not None and self.min_count is None:
            limits["count"] = 1
        return Criteria(
            at_least=tuple((name, value) for name, value in limits.items() if value is not None),
            top=self.top,
            by=self.by,
            coverage=self.coverage,
            max_correlation=self.max_correlation,
        )
