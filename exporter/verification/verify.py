"""Compare a pruned, converted or quantized model with its original, on samples.

All three stages ask the same question: does the pruned model return what the oracle of the mode
computes from the original's logits? They differ in the runtime of the original, in the limits, and
in the metrics. The stage *quantize* reports its values, and fails only if a tolerance is given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.records import Check, Coverage, WorstCase
from exporter.remap import HeadRemap
from exporter.verification.comparisons import comparers_of
from exporter.verification.coverage import coverage_of, features_of
from exporter.verification.gate_masks import with_masks
from exporter.verification.head_comparison import HeadComparer
from exporter.verification.judge import Allowed, Result, judge
from exporter.verification.limits import Basis, UserLimits, limits, precision_of_limits
from exporter.verification.metrics import metrics_of
from exporter.verification.roles import (
    ROLES,
    Answers,
    Comparison,
    ModelPair,
    Runs,
    Stage,
    WrongRows,
)
from exporter.verification.worst import worst_place

__all__ = ["Stage", "Verification", "VerifyOptions", "verify_pair"]


@dataclass(frozen=True)
class VerifyOptions:
    """How two models are compared.

    Attributes:
        samples: the inputs that both models run on.
        run: threads and batch, the same for both models.
        limits: replace those of `LIMITS` and `FLOORS`.
        precision: that the pruned model was quantized to, at the stage "quantize".
    """

    samples: Samples
    run: RunOptions = field(default_factory=RunOptions)
    limits: UserLimits = field(default_factory=UserLimits)
    precision: str = ""


@dataclass(frozen=True, eq=False)
class Verification:
    """All checks of one pair of models.

    Attributes:
        zeroed_share: the mean share of the probability that removed units still hold; None if the
            mode leaves them none or the activation does not compute shares.
        coverage: of each head by the samples; none at the stage "export", where the original does
            not show the features.
        worst: where failed comparisons differ most.
    """

    checks: tuple[Check, ...]
    zeroed_share: float | None = None
    coverage: tuple[Coverage, ...] = ()
    worst: tuple[WorstCase, ...] = ()


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
    heads = [each for each in comparers if isinstance(each, HeadComparer)]
    features = [] if stage == "export" else [n for each in heads for n in features_of(each.head)]
    compared = {name for names, _ in read for name in names}
    left = _run(original, {*features, *compared}, options)
    only_counted = set(features).difference(compared, original.graph().outputs)
    # A runtime may optimize a model in another way if one more tensor is an output: both sides
    # show the features.
    shown = {name for _, names in read for name in names}
    right = _run(
        pruned, {*(features if stage == "cut" else ()), *shown}, replace(options, samples=fed)
    )

    def rerun(plan: Plan, further: Iterable[Answers]) -> list[Answers]:
        runner, graph = original.apply(plan).runner(options.run), original.graph()
        feeds = zip(samples.feeds(), further, strict=True)
        return [runner(to_model_inputs(feed, graph) | dict(more)) for feed, more in feeds]

    runs = Runs(
        original=_stack(original, left, {*variable, *only_counted}),
        pruned=_stack(pruned, right, {*variable, *only_counted}),
        pruned_samples=right,
        in_quantized_values=options.limits.tolerance is None,
        rerun=rerun,
    )
    judged = [
        judged
        for comparer in comparers
        for each in comparer.compare(runs)
        for judged in _judge(pair, each, options)
    ]
    shares = (each.removed_share(runs) for each in heads)
    return Verification(
        tuple(check for check, _ in judged),
        next((share for share in shares if share is not None), None),
        tuple(coverage_of(h.head, h.kept, original.graph(), left) for h in heads if features),
        tuple(worst for _, worst in judged if worst is not None),
    )


def _run(model: Model, tensors: Iterable[str], options: VerifyOptions) -> list[Answers]:
    """Every output and these inner tensors, for each sample."""
    graph = model.graph()
    read = {name for name in tensors if name in graph.tensors}
    edits = tuple(
        AddOutput(name, name) for name in sorted(read.difference(graph.outputs, graph.inputs))
    )
    runner = (model.apply(Plan(edits, model.remap)) if edits else model).runner(options.run)
    feeds = (to_model_inputs(feed, graph) for feed in options.samples.feeds())
    fed = read.intersection(graph.inputs)
    return [{name: feed[name] for name in fed} | runner(feed) for feed in feeds]


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


def _judge(
    pair: ModelPair, each: Comparison | WrongRows, options: VerifyOptions
) -> Iterator[tuple[Check, WorstCase | None]]:
    """One check for each metric of a comparison; for the first that fails, the worst case."""
    allowed, results = _results(pair, each, options)
    located = False
    for result in results:
        source = "" if result.limit is None else "user" if result.by_user else "built-in"
        check = Check(
            stage=pair.stage,
            artifact=pair.pruned.name,
            output=each.output,
            metric=result.metric,
            value=result.value,
            limit=result.limit,
            passed=result.passed,
            samples=options.samples.count,
            limit_from=source,
        )
        worst = None
        if not (result.passed or located) and isinstance(each, Comparison):
            worst, located = _worst(check, each, allowed), True
        yield check, worst


def _worst(check: Check, each: Comparison, allowed: Allowed) -> WorstCase | None:
    place = worst_place(each, allowed, check.metric)
    if place is None:
        return None
    first = -1 if each.units is None else int(each.units[place.position])
    unit = int(each.table.to_new([first])[0]) if each.table and first >= 0 else None
    labels = each.table.labels if each.table else None
    return WorstCase(
        stage=check.stage,
        artifact=check.artifact,
        output=check.output,
        metric=check.metric,
        sample=place.sample,
        unit=unit,
        original_unit=first if first >= 0 else None,
        label=labels[unit] if labels and unit is not None and unit >= 0 else "",
        expected=place.expected if math.isfinite(place.expected) else None,
        actual=place.actual if math.isfinite(place.actual) else None,
    )


def _results(
    pair: ModelPair, each: Comparison | WrongRows, options: VerifyOptions
) -> tuple[Allowed, Sequence[Result]]:
    """What a comparison allows, and the result of each metric."""
    if isinstance(each, WrongRows):
        count = None if each.count is None else float(each.count)
        return Allowed(), [Result(each.metric, count, 0.0, passed=count == 0)]
    role = ROLES[each.role]
    by_user = each.role == "not pruned" and options.limits.tolerance is not None
    if role.must_be_equal(pair.stage, each.expected) and not by_user:
        allowed = Allowed(np.zeros(len(each.expected)))
    else:
        allowed = limits(_basis(pair, each, options), each.expected, options.limits)
    results = judge(
        each.expected,
        each.actual,
        allowed,
        axis=each.axis,
        metrics=role.metrics or metrics_of(pair.stage),
    )
    return allowed, results


def _basis(pair: ModelPair, each: Comparison, options: VerifyOptions) -> Basis:
    """Which limits apply to a comparison."""
    role = ROLES[each.role]
    if pair.stage == "quantize":
        places = (n for i, n in enumerate(each.expected.shape) if i not in {0, 1, each.axis})
        vectors = math.prod(places) == 1  # the others are the sample, the batch and the units
        synthetic = options.samples.synthetic
        return Basis(pair.stage, options.precision, role.limit, 0, synthetic, vectors)
    precision = each.precision or precision_of_limits(pair)
    return Basis(pair.stage, precision, role.limit, each.added_units)
