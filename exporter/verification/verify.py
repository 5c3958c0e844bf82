"""Compare a pruned, converted or quantized model with its original, on samples.

All three stages ask the same question: does the pruned model return what the oracle of the mode
computes from the original's logits? They differ in the runtime of the original, in the limits, and
in the metrics. The stage *quantize* reports its values, and fails only if a tolerance is given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.records import Check
from exporter.remap import HeadRemap
from exporter.verification.comparisons import comparers_of
from exporter.verification.gate_masks import with_masks
from exporter.verification.head_comparison import HeadComparer
from exporter.verification.limits import limits, precision_of_limits
from exporter.verification.metrics import Result, judge, metrics_of
from exporter.verification.roles import (
    ROLES,
    Answers,
    Comparison,
    ModelPair,
    Runs,
    Stage,
    WrongRows,
)

__all__ = ["Stage", "Verification", "VerifyOptions", "verify_pair"]


@dataclass(frozen=True)
class VerifyOptions:
    """How two models are compared.

    Attributes:
        samples: the inputs that both models run on.
        run: threads and batch, the same for both models.
        tolerance: replaces the limits of `LIMITS`.
    """

    samples: Samples
    run: RunOptions = field(default_factory=RunOptions)
    tolerance: float | None = None


@dataclass(frozen=True, eq=False)
class Verification:
    """All checks of one pair of models.

    Attributes:
        zeroed_share: the mean share of the probability that removed units still hold; None if the
            mode leaves them none or the activation does not compute shares.
    """

    checks: tuple[Check, ...]
    zeroed_share: float | None = None


def verify_pair(
    stage: Stage,
    original: Model,
    pruned: Model,
    tables: Sequence[HeadRemap],
    options: VerifyOptions,
) -> Verification:
    """Run both models on the samples and compare z and y of every head, and all other outputs.

    Args:
        stage: see `ModelPair`.
        original: the model that was cut, or the model that it was converted from.
        pruned: the pruned, converted or quantized model.
        tables: how each head was cut. Outputs that no table names must be unchanged, except for
            outputs that show how the units of a head rank.
        options: the samples, and how to run and compare.

    Raises:
        UsageError: the original has no such head, or lacks units that a table names.
        ModelError: a model does not run, or does not show the values to compare.
    """
    samples = options.samples
    fed, masks = with_masks(samples, pruned.graph(), tables)
    pair = ModelPair(stage, original, pruned, masks)
    comparers, variable = comparers_of(pair, tables)
    read = [comparer.tensors() for comparer in comparers]
    left = _run(original, (name for names, _ in read for name in names), options)
    right = _run(
        pruned, (name for _, names in read for name in names), replace(options, samples=fed)
    )

    def rerun(plan: Plan, further: Iterable[Answers]) -> list[Answers]:
        runner, graph = original.apply(plan).runner(options.run), original.graph()
        feeds = zip(samples.feeds(), further, strict=True)
        return [runner(to_model_inputs(feed, graph) | dict(more)) for feed, more in feeds]

    runs = Runs(
        original=_stack(original, left, variable),
        pruned=_stack(pruned, right, variable),
        pruned_samples=right,
        in_quantized_values=options.tolerance is None,
        rerun=rerun,
    )
    found = (each for comparer in comparers for each in comparer.compare(runs))
    checks = tuple(
        check for each in found for check in _checks(pair, each, samples.count, options.tolerance)
    )
    shares = (each.removed_share(runs) for each in comparers if isinstance(each, HeadComparer))
    return Verification(checks, next((share for share in shares if share is not None), None))


def _run(model: Model, tensors: Iterable[str], options: VerifyOptions) -> list[Answers]:
    """Every output and these inner tensors, for each sample."""
    graph = model.graph()
    inner = {name for name in tensors if name in graph.tensors} - set(graph.outputs)
    edits = tuple(AddOutput(name, name) for name in sorted(inner))
    runner = (model.apply(Plan(edits, model.remap)) if edits else model).runner(options.run)
    return [runner(to_model_inputs(feed, graph)) for feed in options.samples.feeds()]


def _stack(model: Model, answers: Sequence[Answers], variable: Collection[str]) -> Answers:
    """Tensor -> (samples, ...), without the outputs that may have another shape in each sample."""
    stacked: dict[str, Array] = {}
    for name in [name for name in answers[0] if name not in variable]:
        values = [each[name] for each in answers]
        if len({value.shape for value in values}) > 1:
            raise ModelError(
                f"the shape of output {name!r} of {model.name} changes from sample to sample",
                "compute it with static shapes, for example with a mask of the same width",
            )
        stacked[name] = np.stack(values)
    return stacked


def _checks(
    pair: ModelPair, each: Comparison | WrongRows, samples: int, tolerance: float | None
) -> Iterator[Check]:
    """One check for each metric of a comparison."""
    for result in _results(pair, each, tolerance):
        shown = result.metric, result.value, result.limit, result.passed
        yield Check(pair.stage, pair.pruned.name, each.output, *shown, samples)


def _results(
    pair: ModelPair, each: Comparison | WrongRows, tolerance: float | None
) -> Sequence[Result]:
    if isinstance(each, WrongRows):
        count = None if each.count is None else float(each.count)
        return [Result(each.metric, count, 0.0, passed=count == 0)]
    role = ROLES[each.role]
    if role.must_be_equal(pair.stage, each.expected):
        allowed = {"max_abs": 0.0}
    else:
        allowed = limits(
            pair.stage,
            each.precision or precision_of_limits(pair),
            each.expected,
            role.limit,
            tolerance=tolerance,
            units=each.added_units,
        )
    return judge(
        each.expected,
        each.actual,
        allowed,
        axis=each.axis,
        metrics=role.metrics or metrics_of(pair.stage),
        tie=0.0 if pair.stage == "quantize" else None,  # a device has no tolerance when it ranks
    )
