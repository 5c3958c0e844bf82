"""Choose units by data: run the model, compute each unit's statistics, apply the criteria."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.evaluation.criteria import Criteria, Decision, decide
from exporter.evaluation.unit_table import (
    UNLABELED,
    Predictions,
    UnitRow,
    confusion,
    count_table,
    reassigned,
    redundant,
    unit_table,
)
from exporter.formats.model import Model, unit_labels
from exporter.graph import Array
from exporter.graph.operations import Linear
from exporter.jobs.options import Job
from exporter.jobs.select_options import SelectOptions
from exporter.selection import Selection
from exporter.selection.labels import read_labels, read_text
from exporter.selection.selection_file import SCHEMA
from exporter.trace import trace
from exporter.trace.head import Head

_LARGEST_SCORES = 500_000_000  # samples x units held in memory: 2 GB of float32


@dataclass(frozen=True, eq=False)
class UnitChoice:
    """The units that the criteria keep, with the numbers that decided.

    Attributes:
        rows: the statistics of each unit.
        decisions: keep or remove, with the reason, in the order of the units.
        confused: (label, top-1) -> number of samples, for wrong predictions; empty without labels.
        moved: removed unit -> {kept unit: samples that are predicted as it after the cut}.
        source: the data, and how many samples of it.
    """

    model: str
    sha256: str | None
    head: str
    rows: tuple[UnitRow, ...]
    decisions: tuple[Decision, ...]
    confused: Mapping[tuple[int, int], int]
    moved: Mapping[int, Mapping[int, int]]
    source: str
    samples: int
    warnings: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(each.unit for each in self.decisions if each.kept)

    @property
    def selection(self) -> Selection:
        """The kept units, as `exporter.prune(keep=...)` takes them."""
        labels = tuple(row.label for row in self.rows)
        return Selection(len(self.rows), self.kept, labels if any(labels) else None)

    def table(self) -> list[dict[str, Any]]:
        """One dictionary per unit, for `pandas.DataFrame(choice.table())`."""
        return [
            {**asdict(row), "kept": decision.kept, "reason": decision.reason}
            for row, decision in zip(self.rows, self.decisions, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The `exporter/selection/1` record, which `--keep @FILE` reads."""
        return {
            "schema": SCHEMA,
            "model": {"name": self.model, "sha256": self.sha256},
            "head": self.head,
            "units": len(self.rows),
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
    criteria = options.criteria
    with job.open(source) as opened:
        model = opened.model
        found = trace(model.graph()).head(options.head)
        names = _labels(model, found, options.labels)
        if options.counts is not None:
            table = _read_counts(Path(options.counts), found.units, names)
            rows = count_table(table, found.units, names)
            decisions = decide(rows, criteria)
            return UnitChoice(
                model.name,
                model.sha256,
                found.name,
                rows,
                decisions,
                {},
                {},
                Path(options.counts).name,
                sum(table.values()),
                opened.warnings,
            )
        if job.data is None:
            raise UsageError("there is no data to choose by", "give --data, or --counts")
        samples = job.inputs(model)
        predictions = _predict(model, found, samples, names, job)
        norms = _norms(model, found) if criteria.uses("norm") else None
        rows = unit_table(predictions, names, norms)
        limit = criteria.max_correlation
        decisions = decide(rows, criteria, None if limit is None else redundant(predictions, limit))
        kept = [each.unit for each in decisions if each.kept]
        return UnitChoice(
            model=model.name,
            sha256=model.sha256,
            head=found.name,
            rows=rows,
            decisions=decisions,
            confused=confusion(predictions) if predictions.truth is not None else {},
            moved=reassigned(predictions, kept),
            source=samples.source,
            samples=samples.count,
            warnings=(
                *opened.warnings,
                *samples.warnings,
                *_unknown(samples, predictions),
                *_norm_warning(criteria),
            ),
        )


def _labels(
    model: Model, head: Head, given: str | Path | Sequence[str] | None
) -> tuple[str, ...] | None:
    if given is None:
        return unit_labels(model, head)
    names = read_labels(given) if isinstance(given, str | Path) else tuple(given)
    if len(names) != head.units:
        raise UsageError(
            f"{len(names)} labels for the {head.units} units of head {head.name!r}",
            "give one label per unit, in the order of the units",
        )
    return names


def _predict(
    model: Model, head: Head, samples: Samples, names: Sequence[str] | None, job: Job
) -> Predictions:
    """Run the model on every sample."""
    if samples.count * head.units > _LARGEST_SCORES:
        most = _LARGEST_SCORES // head.units
        raise UsageError(
            f"the scores of {samples.count} samples and {head.units} units do not fit in memory",
            f"use --samples {most} or fewer",
        )
    truth = None if samples.labels is None else _truth(samples.labels, head.units, names)
    if truth is not None and (truth == UNLABELED).all():
        truth = None  # the folders are no classes of this model; `_unknown` warns
    job.progress(f"running {model.name} on {samples.count} samples")
    runner = model.runner(job.run_options)
    scores = np.empty((samples.count, head.units), np.float32)
    for i, feed in enumerate(samples.feeds()):
        scores[i] = _unit_scores(model, head, runner(feed)[head.output])
    return Predictions(scores, truth, 0.0 if head.activation == "linear" else 0.5)


def _norms(model: Model, head: Head) -> Array:
    """(units,) Euclidean norm of the weights of each unit, over all kernels of the head."""
    squares = np.zeros(head.units)
    kernels = {
        node.inputs[node.operation.kernel]
        for node in head.body
        if isinstance(node.operation, Linear)
    }
    for constant in head.constants:
        if constant.name not in kernels:
            continue
        tensor = model.graph().tensors[constant.name]
        if tensor.read is None:
            continue
        values = np.square(tensor.dequantize(tensor.read()))
        axis = constant.unit_axis
        sums = np.moveaxis(values, axis.axis, 0).reshape(len(axis.units), -1).sum(axis=1)
        np.add.at(squares, axis.units[axis.units >= 0], sums[axis.units >= 0])
    return np.sqrt(squares)


def _unit_scores(model: Model, head: Head, output: Array) -> Array:
    """(units,) the real values of the units in the output of one sample."""
    axis = head.tensor(head.output).unit_axis
    if output.size != len(axis.units) or len(np.flatnonzero(axis.units >= 0)) != head.units:
        raise UsageError(
            f"head {head.name!r} returns several values per unit, such as boxes or pixels",
            "select works with classifiers: one value per unit and sample",
        )
    values = model.graph().tensors[head.output].dequantize(output).reshape(-1)
    scores = np.empty(head.units)
    scores[axis.units[axis.units >= 0]] = values[axis.units >= 0]
    return scores


def _truth(labels: Sequence[str | int], units: int, names: Sequence[str] | None) -> Array:
    """(samples,) unit index of each label; UNLABELED if no unit has it."""
    exact = {name: unit for unit, name in enumerate(names or ())}
    folded = {name.casefold(): unit for name, unit in exact.items()}
    found = []
    for label in labels:
        if isinstance(label, int):
            found.append(label if 0 <= label < units else UNLABELED)
        elif label in exact:
            found.append(exact[label])
        elif label.isdecimal() and int(label) < units:
            found.append(int(label))
        else:
            found.append(folded.get(label.casefold(), UNLABELED))
    return np.asarray(found)


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


def _read_counts(path: Path, units: int, names: Sequence[str] | None) -> Mapping[int, int]:
    """Unit -> count, from a CSV file of counts or a log with one label or index per line."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty", "give one label per line, or the columns label,count")
    header = [cell.strip().lower() for cell in lines[0].split(",")]
    if "count" in header:
        records = list(csv.DictReader(lines, fieldnames=header))[1:]
        key = next((each for each in ("label", "index", "unit") if each in header), None)
        if key is None:
            raise UsageError(f"{path} has no column label or index", "write a header: label,count")
        pairs = [(record[key].strip(), record["count"]) for record in records]
    else:
        pairs = [(line.strip(), "1") for line in lines]
    wanted = _truth([name for name, _ in pairs], units, names)
    counts: dict[int, int] = {}
    for (name, count), unit in zip(pairs, wanted.tolist(), strict=True):
        if unit == UNLABELED:
            raise UsageError(f"{path}: no unit is called {name!r}", "check the labels of the model")
        if not str(count).strip().isdecimal():
            raise UsageError(f"{path}: the count of {name!r} is {count!r}", "write a whole number")
        counts[unit] = counts.get(unit, 0) + int(count)
    return counts
