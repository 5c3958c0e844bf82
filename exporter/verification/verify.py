"""Compare a pruned, converted or quantized model with its original, on samples.

All three stages ask the same question: does the pruned model return what the oracle of the mode
computes from the original's logits? They differ in the runtime of the original, in the limits, and
in the metrics. The stage *quantize* reports its values, and fails only if a tolerance is given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from exporter.verification.metrics import judge, metrics_of
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
    judges = _Judge(pair, samples.count, options.tolerance)
    found = (each for comparer in comparers for each in comparer.compare(runs))
    checks = tuple(check for each in found for check in judges.checks(each))
    heads = (each for each in comparers if isinstance(each, HeadComparer))
    shares = (head.removed_share(runs) for head in heads)
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
    for name in set(answers[0]).difference(variable):
        values = [each[name] for each in answers]
        if len({value.shape for value in values}) > 1:
            raise ModelError(
                f"the shape of output {name!r} of {model.name} changes from sample to sample",
                "compute it with static shapes, for example with a mask of the same width",
            )
        stacked[name] = np.stack(values)
    return stacked


@dataclass(frozen=True)
class _Judge:
    """Turns comparisons into checks with limits."""

    pair: ModelPair
    samples: int
    tolerance: float | None

    def checks(self, each: Comparison | WrongRows) -> Iterator[Check]:
        if isinstance(each, WrongRows):
            count = None if each.count is None else float(each.count)
            yield self._check(each.output, each.metric, count, 0.0, passed=each.count == 0)
            return
        quantize = self.pair.stage == "quantize"
        metrics = ROLES[each.role].metrics or metrics_of(self.pair.stage)
        tie = 0.0 if quantize else None  # a device ranks by the values that it has, near or not
        values = each.expected, each.actual
        for result in judge(*values, self._limits(each), axis=each.axis, metrics=metrics, tie=tie):
            shown = result.metric, result.value, result.limit
            yield self._check(each.output, *shown, passed=result.passed)

    def _check(
        self, output: str, metric: str, value: float | None, limit: float | None, *, passed: bool
    ) -> Check:
        pair = self.pair
        name = pair.pruned.name
        return Check(pair.stage, name, output, metric, value, limit, passed, self.samples)

    def _limits(self, each: Comparison) -> Mapping[str, float]:
        role = ROLES[each.role]
        if role.must_be_equal(self.pair.stage, each.expected):
            return {"max_abs": 0.0}
        return limits(
            self.pair.stage,
            each.precision or precision_of_limits(self.pair),
            each.expected,
            role.limit,
            tolerance=self.tolerance,
            units=each.added_units,
        )
