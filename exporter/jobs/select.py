"""Choose units by data: run the model, compute each unit's statistics, apply the criteria."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from exporter.data.samples import Samples
from exporter.data.tokenizer import find_tokenizer
from exporter.errors import UsageError
from exporter.evaluation.corpus import count_tokens
from exporter.evaluation.counts import read_counts
from exporter.evaluation.criteria import Criteria, Decision, decide
from exporter.evaluation.labels import labels_of_units, units_of_labels
from exporter.evaluation.unit_table import (
    QUALITY,
    UNLABELED,
    Predictions,
    UnitRow,
    confusion,
    count_table,
    reassigned,
    redundant,
    unit_table,
)
from exporter.graph import Array
from exporter.jobs.job import Job
from exporter.jobs.predict import detected_rows, predict, weight_norms
from exporter.jobs.select_options import SelectOptions
from exporter.jobs.source import OpenedModel
from exporter.selection import Selection
from exporter.selection.selection_file import SCHEMA, SelectionFile
from exporter.trace import trace
from exporter.trace.head import Head

_SHOWN = 10  # units in the text of a choice


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnitChoice(Selection):
    """The selection that the criteria make, with the numbers that decided.

    Attributes:
        rows: the statistics of each unit; `reasons` says why it is kept or removed.
        confused: (label, top-1) -> number of samples, for wrong predictions; empty without labels.
        moved: removed unit -> {kept unit: samples that are predicted as it after the cut}.
        source: the data, and how many samples of it.
    """

    model: str
    sha256: str | None
    head: str
    rows: tuple[UnitRow, ...]
    confused: Mapping[tuple[int, int], int]
    moved: Mapping[int, Mapping[int, int]]
    source: str
    samples: int
    warnings: tuple[str, ...] = ()

    @property
    def as_file(self) -> SelectionFile:
        """The content of the selection file; `keep` checks that it belongs to the model."""
        return replace(super().as_file, model=self.model, sha256=self.sha256 or "")

    def __repr__(self) -> str:
        """How many units are kept, and the first of them with their reasons."""
        shown = [f"  {self._name(unit)}: {self.reasons[unit]}" for unit in self.kept[:_SHOWN]]
        more = [f"  ... and {len(self.kept) - _SHOWN} more"] if len(self.kept) > _SHOWN else []
        return "\n".join([self._title, *shown, *more])

    @property
    def _title(self) -> str:
        return f"{len(self.kept)} of {self.units} units of {self.model} kept, by {self.source}"

    def _name(self, unit: int) -> str:
        label = self.rows[unit].label
        return f"{unit} {label}" if label else str(unit)

    def _repr_html_(self) -> str:
        """The units in a notebook: kept ones first if there are many."""
        from exporter.report.notebook import fragment

        return fragment(self._title, self.table(), self.warnings)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each unit."""
        from exporter.report.notebook import data_frame

        return data_frame(self.table())

    def table(self) -> list[dict[str, Any]]:
        """One dictionary per unit."""
        kept = frozenset(self.kept)
        return [
            {**asdict(row), "kept": row.unit in kept, "reason": self.reasons[row.unit]}
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """The `exporter/selection/1` record, which `--keep @FILE` reads."""
        return {
            "schema": SCHEMA,
            "model": {"name": self.model, "sha256": self.sha256},
            "head": self.head,
            "units": self.units,
            "kept": list(self.kept),
            "data": {"source": self.source, "samples": self.samples},
            "table": self.table(),
            "confused": [
                {"label": a, "predicted": b, "samples": n} for (a, b), n in self.confused.items()
            ],
            "moved": [
                {"removed": unit, "predicted": new, "samples": n}
                for unit, row in self.moved.items()
                for new, n in row.items()
            ],
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """One JSON text, indented, with a newline at its end."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def select_units(source: str | Path | Any, job: Job, options: SelectOptions) -> UnitChoice:
    """Choose the units of a model by data; nothing is written.

    Args:
        source: a path, or a live `keras.Model`.
        job: `data` are the samples; with class labels for precision, recall and F1.
        options: the rules, and the head that they apply to.

    Raises:
        ExporterError: the model cannot be opened or has no head, the data does not fit, or no unit
            passes the criteria.
    """
    sources = {"--counts": options.counts, "--data": job.data, "--occurs-in": options.occurs_in}
    given = [name for name, path in sources.items() if path is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are both given", "give one of them")
    with job.open(source) as opened:
        head = trace(opened.model.graph()).head(options.head)
        names = labels_of_units(opened.model, head, options.labels)
        if options.counts is not None:
            return _by_counts(opened, head, names, options)
        if options.occurs_in is not None:
            return _by_text(opened, head, names, options, job)
        if job.data is None:
            raise UsageError(
                "there is no data to choose by", "give --data, --counts or --occurs-in"
            )
        return _by_predictions(opened, head, names, options.criteria, job)


def _chosen(rows: tuple[UnitRow, ...], decisions: Sequence[Decision], **facts: Any) -> UnitChoice:
    labels = tuple(row.label for row in rows)
    return UnitChoice(
        len(rows),
        tuple(each.unit for each in decisions if each.kept),
        labels if any(labels) else None,
        reasons={each.unit: each.reason for each in decisions},
        rows=rows,
        **facts,
    )


def _by_counts(
    opened: OpenedModel, head: Head, names: Sequence[str] | None, options: SelectOptions
) -> UnitChoice:
    path = Path(str(options.counts))
    counts = read_counts(path, head.units, names)
    rows = count_table(counts, head.units, names)
    return _chosen(
        rows,
        decide(rows, options.criteria),
        model=opened.model.name,
        sha256=opened.model.sha256,
        head=head.name,
        confused={},
        moved={},
        source=path.name,
        samples=sum(counts.values()),
        warnings=opened.warnings,
    )


def _by_text(
    opened: OpenedModel,
    head: Head,
    names: Sequence[str] | None,
    options: SelectOptions,
    job: Job,
) -> UnitChoice:
    path = Path(str(options.occurs_in))
    job.progress(f"counting the tokens of {path.name}")
    tokenizer = find_tokenizer(path, opened.path, job.tokenizer)
    counts, lines = count_tokens(path, tokenizer, head.units)
    if names is None:
        names = [*tokenizer.tokens, *[""] * (head.units - len(tokenizer.tokens))]
    rows = count_table(dict(enumerate(counts.tolist())), head.units, names)
    return _chosen(
        rows,
        decide(rows, options.criteria, always=tokenizer.fixed),
        model=opened.model.name,
        sha256=opened.model.sha256,
        head=head.name,
        confused={},
        moved={},
        source=f"{path.name}, tokens of {tokenizer.path.name}",
        samples=lines,
        warnings=opened.warnings,
    )


def _by_predictions(
    opened: OpenedModel, head: Head, names: Sequence[str] | None, criteria: Criteria, job: Job
) -> UnitChoice:
    model = opened.model
    is_detector = detected_rows(model, head) is not None
    if head.output not in model.graph().outputs and not is_detector:
        raise UsageError(
            f"{model.name} does not return the scores of head {head.name!r}, but indices or boxes",
            "select works with classifiers, and detectors with TFLite_Detection_PostProcess",
        )
    samples = job.inputs(model, opened.path)
    if not is_detector:
        truth = _known_truth(samples, head.units, names, criteria)
    else:
        samples, truth = _of_detector(samples, criteria)
    predictions = predict(model, head, samples, truth, job)
    norms = weight_norms(model, head) if criteria.uses("norm") else None
    rows = unit_table(predictions, names, norms)
    limit = criteria.max_correlation
    decisions = decide(rows, criteria, None if limit is None else redundant(predictions, limit))
    warnings = (*samples.warnings, *_unknown(samples, predictions), *_norm_warning(criteria))
    return _chosen(
        rows,
        decisions,
        model=model.name,
        sha256=model.sha256,
        head=head.name,
        confused=confusion(predictions) if predictions.truth is not None else {},
        moved={}
        if is_detector
        else reassigned(predictions, [each.unit for each in decisions if each.kept]),
        source=samples.source,
        samples=samples.count,
        warnings=(*opened.warnings, *warnings),
    )


def _of_detector(samples: Samples, criteria: Criteria) -> tuple[Samples, None]:
    """The samples without labels: one label per image says nothing about the boxes."""
    if measure := next(filter(criteria.uses, QUALITY), None):
        raise UsageError(
            f"{measure} of a detector needs the boxes of each image, and images have one label",
            "use --min-count, --coverage, --top or --min-active; `--truth` measures its quality",
        )
    return replace(samples, labels=None), None


def _known_truth(
    samples: Samples, units: int, names: Sequence[str] | None, criteria: Criteria
) -> Array | None:
    """The unit of each sample; None without labels, or if none of them is a unit of the model."""
    if samples.labels is None:
        return None
    labels = [label for label in samples.labels if not isinstance(label, tuple)]
    if len(labels) < len(samples.labels):
        raise UsageError(
            f"the samples of {samples.source} have any number of labels each",
            "select needs one label per sample: shape [samples]",
        )
    truth = units_of_labels(labels, units, names)
    if (truth != UNLABELED).any():
        return truth
    if measure := next(filter(criteria.uses, QUALITY), None):
        raise UsageError(
            f"no unit is called {labels[0]!r}, or has another label of {samples.source}: "
            f"{measure} cannot be computed",
            "give the labels of the units with --labels, or name folders by unit index",
        )
    return None  # `_unknown` warns


def _unknown(samples: Samples, predictions: Predictions) -> tuple[str, ...]:
    if samples.labels is None:
        return ()
    if predictions.truth is None:
        return (f"no unit is called {samples.labels[0]!r}; the labels of the data are not used",)
    count = int((predictions.truth == UNLABELED).sum())
    if not count:
        return ()
    return (f"{count} of {len(predictions.truth)} samples have a label that no unit has",)


def _norm_warning(criteria: Criteria) -> tuple[str, ...]:
    if not criteria.uses("norm"):
        return ()
    return ("a small norm does not prove that a unit is unimportant: check the quality on data",)
