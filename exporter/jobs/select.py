"""Choose units by data: run the model, compute each unit's statistics, apply the criteria."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import UsageError
from exporter.evaluation.criteria import Criteria, Decision, decide
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
from exporter.formats.model import Model, unit_labels
from exporter.graph import Array
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Linear
from exporter.graph.walk import origin, through
from exporter.jobs.options import Job
from exporter.jobs.select_options import SelectOptions
from exporter.selection import Selection
from exporter.selection.labels import read_labels, read_text, text_lines
from exporter.selection.lookup import shorten_list
from exporter.selection.selection_file import SCHEMA
from exporter.trace import trace
from exporter.trace.head import Head

_LARGEST_SCORES = 500_000_000  # samples x units held in memory: 2 GB of float32
_MOST_DIGITS = 18  # of a count or an index: more do not fit in 64 bits
_SHOWN = 60  # characters of a label in a message


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
    if options.counts is not None and job.data is not None:
        raise UsageError("--counts and --data are both given", "give one of the two")
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
        if found.output not in model.graph().outputs:
            raise UsageError(
                f"{model.name} does not return the scores of head {found.name!r}, but indices or "
                "boxes",
                "select works with classifiers: one score per unit and sample",
            )
        samples = job.inputs(model)
        truth = _known_truth(samples, found.units, names, criteria)
        predictions = _predict(model, found, samples, truth, job)
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


def _known_truth(
    samples: Samples, units: int, names: Sequence[str] | None, criteria: Criteria
) -> Array | None:
    """The unit of each sample; None without labels, or if none of them is a unit of the model."""
    if samples.labels is None:
        return None
    truth = _truth(samples.labels, units, names)
    if (truth != UNLABELED).any():
        return truth
    if measure := next(filter(criteria.uses, QUALITY), None):
        raise UsageError(
            f"no unit is called {samples.labels[0]!r}, or has another label of {samples.source}: "
            f"{measure} cannot be computed",
            "give the labels of the units with --labels, or name folders by unit index",
        )
    return None  # `_unknown` warns


def _predict(
    model: Model, head: Head, samples: Samples, truth: Array | None, job: Job
) -> Predictions:
    """Run the model on every sample."""
    if samples.count * head.units > _LARGEST_SCORES:
        most = _LARGEST_SCORES // head.units
        raise UsageError(
            f"the scores of {samples.count} samples and {head.units} units do not fit in memory",
            f"use --samples {most} or fewer",
        )
    job.progress(f"running {model.name} on {samples.count} samples")
    runner = model.runner(job.run_options)
    scores = np.empty((samples.count, head.units), np.float32)
    for i, feed in enumerate(samples.feeds()):
        scores[i] = _unit_scores(model, head, runner(feed)[head.output])
    if bad := np.flatnonzero(np.isnan(scores).any(axis=1)).tolist():
        raise UsageError(
            f"{model.name} returns NaN for {len(bad)} samples, first for number {bad[0]}",
            "check the model and the range of its inputs",
        )
    largest = np.finfo(np.float32).max
    np.clip(scores, -largest, largest, out=scores)  # masked units have a score of -infinity
    return Predictions(scores, truth, _active_above(head.activation))


def _active_above(activation: str) -> float:
    if activation == "log_softmax":
        return float(np.log(0.5))
    return 0.5 if activation in ACTIVATIONS and ACTIVATIONS[activation].probability else 0.0


def _norms(model: Model, head: Head) -> Array:
    """(units,) Euclidean norm of the weights of each unit, over all kernels of the head."""
    graph, squares = model.graph(), np.zeros(head.units)
    axes = {constant.name: constant.unit_axis for constant in head.constants}
    refused = UsageError(
        f"the weights of head {head.name!r} cannot be read", "use another criterion than the norm"
    )
    linear = [(node, node.operation) for node in head.body if isinstance(node.operation, Linear)]
    if not linear:
        raise refused
    for node, operation in linear:
        kernel = node.inputs[operation.kernel]
        # of QuantizeLinear and DequantizeLinear pairs, the constant is before them
        name = origin(graph.producers, kernel, through("cast", "dequantize"))
        tensor = graph.tensors[name]
        has_scale = tensor.quantization is not None or tensor.dtype.startswith("float")
        if tensor.read is None or name not in axes or operation.packed_bits or not has_scale:
            raise refused
        values = np.square(np.asarray(tensor.dequantize(tensor.read()), np.float64))
        axis = axes[name]
        sums = np.moveaxis(values, axis.axis, 0).reshape(len(axis.units), -1).sum(axis=1)
        np.add.at(squares, axis.units[axis.units >= 0], sums[axis.units >= 0])
    if not np.isfinite(squares).all():  # the scale is computed when the model runs, for example
        raise refused
    return np.sqrt(squares)


def _unit_scores(model: Model, head: Head, output: Array) -> Array:
    """(units,) the real values of the units in the output of one sample."""
    axis = head.tensor(head.output).unit_axis
    if output.size != len(axis.units) or len(np.flatnonzero(axis.units >= 0)) != head.units:
        raise UsageError(
            f"head {head.name!r} returns several values per unit, such as boxes, pixels or a batch",
            "select works with classifiers: one value per unit and sample",
        )
    values = model.graph().tensors[head.output].dequantize(output).reshape(-1)
    scores = np.empty(head.units)
    scores[axis.units[axis.units >= 0]] = values[axis.units >= 0]
    return scores


def _truth(labels: Sequence[str | int], units: int, names: Sequence[str] | None) -> Array:
    """(samples,) unit index of each label; UNLABELED if no unit has it.

    Raises:
        UsageError: several units have one of the labels.
    """
    exact: dict[str, list[int]] = {}
    folded: dict[str, list[int]] = {}
    for unit, name in enumerate(names or ()):
        if name:  # "" is a unit without a label
            exact.setdefault(name, []).append(unit)
            folded.setdefault(name.casefold(), []).append(unit)
    return np.asarray([_unit_of(label, units, exact, folded) for label in labels])


def _unit_of(
    label: str | int,
    units: int,
    exact: Mapping[str, Sequence[int]],
    folded: Mapping[str, Sequence[int]],
) -> int:
    if isinstance(label, int):
        return label if 0 <= label < units else UNLABELED
    if label not in exact and _is_whole(label) and int(label) < units:
        return int(label)
    found = exact.get(label) or folded.get(label.casefold()) or [UNLABELED]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} units are called {label!r}: {shorten_list(found)}",
            "name the class by its unit index",
        )
    return found[0]


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


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
    named = _named_counts(path)
    counts: Counter[int] = Counter()
    wanted = _truth(list(named), units, names).tolist()
    for (name, count), unit in zip(named.items(), wanted, strict=True):
        if unit == UNLABELED:
            raise UsageError(
                f"{path}: no unit is called {_shown(name)}", "check the labels of the model"
            )
        counts[unit] += count
    return counts


def _named_counts(path: Path) -> Mapping[str, int]:
    """Label or index, as the file names it -> count."""
    text = read_text(path)
    log = Counter(filter(None, text_lines(text)))
    if not log:
        raise UsageError(f"{path} is empty", "give one label per line, or the columns label,count")
    try:
        rows = (row for row in csv.reader(StringIO(text)) if any(map(str.strip, row)))
        header = [cell.strip().lower() for cell in next(rows, [])]
        if "count" not in header:
            return log
        key = next((each for each in ("label", "index") if each in header), None)
        if key is None:
            raise UsageError(f"{path} has no column label or index", "write a header: label,count")
        counts: Counter[str] = Counter()
        for row in rows:
            cells = dict(zip(header, map(str.strip, row), strict=False))
            name, count = cells.get(key, ""), cells.get("count", "")
            if not _is_whole(count):
                raise UsageError(
                    f"{path}: the count of {_shown(name)} is {_shown(count)}",
                    "write a whole number",
                )
            counts[name] += int(count)
    except csv.Error as error:
        raise UsageError(f"{path} is not valid CSV: {error}", "check its quotes") from error
    return counts


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
