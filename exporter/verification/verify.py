"""Compare a pruned, converted or quantized model with its original, on samples.

All three stages ask the same question: does the pruned model return what the oracle of the mode
computes from the original's logits? They differ in the runtime of the original, in the limits, and
in the metrics. The stage *quantize* reports its values, and fails only if a tolerance is given.

Samples are compared in blocks, so that any number of them takes the same memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ModelError
from exporter.formats.model import Model, Runner, RunOptions, without_dropped
from exporter.graph import Array
from exporter.graph.edits import Plan
from exporter.records import Check, Confusion, Coverage, UnitAgreement, WorstCase, WorstSample
from exporter.remap import HeadRemap
from exporter.verification.answers import Block, KnownAnswers, answer_blocks
from exporter.verification.comparisons import comparers_of
from exporter.verification.coverage import Covered, features_of
from exporter.verification.head_comparison import HeadComparer
from exporter.verification.limits import UserLimits
from exporter.verification.outcome import Outcome
from exporter.verification.roles import Answers, Comparer, ModelPair, Runs, Stage
from exporter.verification.token_ids import pair_inputs

__all__ = ["Stage", "Verification", "VerifyOptions", "verify_pair"]


@dataclass(frozen=True)
class VerifyOptions:
    """How two models are compared.

    Attributes:
        samples: the inputs that both models run on.
        run: threads and batch, the same for both models.
        limits: replace those of `LIMITS` and `FLOORS`.
        precision: that the pruned model was quantized to, at the stage "quantize".
        known: answers of the original that another comparison has computed.
    """

    samples: Samples
    run: RunOptions = field(default_factory=RunOptions)
    limits: UserLimits = field(default_factory=UserLimits)
    precision: str = ""
    known: KnownAnswers = field(default_factory=KnownAnswers)


@dataclass(frozen=True, eq=False)
class Verification:
    """All checks of one pair of models.

    Attributes:
        zeroed_share: the mean share of the probability that removed units still hold; None if the
            mode leaves them none or the activation does not compute shares.
        coverage: of each head by the samples; none at the stage "export", where the original does
            not show the features.
        worst: where failed comparisons differ most.
        agreement: of a quantized model, for the units with the lowest share.
        worst_sample: of all outputs, the one with a failed check or nearest to its limit; None if
            no values were compared.
        confusions: of a quantized model, for the units that it confuses most.
    """

    checks: tuple[Check, ...]
    zeroed_share: float | None = None
    coverage: tuple[Coverage, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    agreement: tuple[UnitAgreement, ...] = ()
    worst_sample: WorstSample | None = None
    confusions: tuple[Confusion, ...] = ()


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
    original = without_dropped(original, tables)
    fed = pair_inputs(options.samples, original, pruned, tables)
    pair = ModelPair(stage, original, pruned, fed.masks)
    comparers, variable = comparers_of(pair, tables)
    heads = [each for each in comparers if isinstance(each, HeadComparer)]
    features = [] if stage == "export" else [n for each in heads for n in features_of(each.head)]
    if not original.graph().hidden.isdisjoint(features):
        features = []
    read = [comparer.tensors() for comparer in comparers]
    compared = {name for names, _ in read for name in names}
    only_counted = set(features).difference(compared, original.graph().outputs)
    # A runtime may optimize a model in another way if one more tensor is an output: both sides
    # show the features.
    shown = {name for _, names in read for name in names}.union(features if stage == "cut" else ())
    blocks = answer_blocks(
        ((original, {*features, *compared}), (pruned, shown)),
        fed.original,
        fed.different,
        options.run,
        options.known,
    )
    comparing = _Comparing(pair, comparers, {*variable, *only_counted}, options)
    comparing.joinable = set(original.graph().outputs).difference(compared, shown)
    covered = [Covered(each.head, each.kept, original.graph()) for each in heads if features]
    for block in blocks:
        comparing.add(block)
        for answers in block.original:
            for each in covered:
                each.add(answers)
    outcomes, count = comparing.outcomes.values(), fed.cut.count
    judged = [each for outcome in outcomes for each in outcome.checks(count)]
    samples = list(filter(None, (outcome.worst_sample(count) for outcome in outcomes)))
    return Verification(
        tuple(check for check, _ in judged),
        next((share.mean for share in comparing.shares if share.count), None),
        tuple(each.coverage for each in covered),
        tuple(worst for _, worst in judged if worst is not None),
        tuple(row for outcome in outcomes for row in outcome.agreement()),
        max(samples, key=lambda each: each[0])[1] if samples else None,
        tuple(row for outcome in outcomes for row in outcome.confusion()),
    )


@dataclass
class _Mean:
    """The mean of values, each of which is the mean of so many samples."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float | None, count: int) -> None:
        if value is not None:
            self.total, self.count = self.total + value * count, self.count + count

    @property
    def mean(self) -> float:
        return self.total / self.count


class _Comparing:
    """Compares blocks of samples.

    Args:
        variable: the outputs that may have another shape in each sample.

    Attributes:
        outcomes: comparer and place in its order -> what is known of an output.
        shares: for each head, see `HeadComparer.removed_share`.
        joinable: outputs that are not of a head. Their values are compared in one row if their
            shapes differ from sample to sample, and are the same in both models.
    """

    def __init__(
        self,
        pair: ModelPair,
        comparers: Sequence[Comparer],
        variable: Collection[str],
        options: VerifyOptions,
    ) -> None:
        self._pair, self._comparers, self._options = pair, comparers, options
        self._variable = variable
        self.joinable: set[str] = set()
        self._shapes: tuple[dict[str, tuple[int, ...]], ...] = ({}, {})
        self._rerunner: dict[int, Runner] = {}
        self.outcomes: dict[tuple[int, int], Outcome] = {}
        self._heads = [each for each in comparers if isinstance(each, HeadComparer)]
        self.shares = [_Mean() for _ in self._heads]

    def add(self, block: Block) -> None:
        def rerun(plan: Plan, further: Iterable[Answers]) -> list[Answers]:
            graph, runner = self._pair.original.graph(), self._runner(plan)
            feeds = zip(block.feeds, further, strict=True)
            return [runner(to_model_inputs(feed, graph) | dict(more)) for feed, more in feeds]

        joined = self._of_varying_shape(block)
        runs = Runs(
            original=self._stack(0, block.original, joined),
            pruned=self._stack(1, block.pruned, joined),
            pruned_samples=block.pruned,
            in_quantized_values=self._options.limits.tolerance is None,
            rerun=rerun,
            first=block.first,
        )
        for number, comparer in enumerate(self._comparers):
            for place, each in enumerate(comparer.compare(runs)):
                key = number, place
                if key not in self.outcomes:
                    self.outcomes[key] = Outcome(
                        self._pair,
                        each,
                        self._options.limits,
                        quantized_to=self._options.precision,
                        synthetic=self._options.samples.synthetic,
                    )
                self.outcomes[key].add(each)
        for head, share in zip(self._heads, self.shares, strict=True):
            share.add(head.removed_share(runs), len(block.pruned))

    def _runner(self, plan: Plan) -> Runner:
        """The original with a plan; loaded once."""
        if id(plan) not in self._rerunner:
            model = self._pair.original.apply(plan)
            self._rerunner[id(plan)] = model.runner(self._options.run)
        return self._rerunner[id(plan)]

    def _of_varying_shape(self, block: Block) -> set[str]:
        """The outputs to join: a merged decoder returns a cache of another length, for example."""
        pairs = list(zip(block.original, block.pruned, strict=True))
        names = self.joinable & block.original[0].keys() & block.pruned[0].keys()
        alike = {n for n in names if all(a[n].shape == b[n].shape for a, b in pairs)}
        first = {n: self._shapes[0].get(n, block.original[0][n].shape) for n in alike}
        return {n for n in alike if any(a[n].shape != first[n] for a, _ in pairs)}

    def _stack(
        self, side: int, answers: Sequence[Answers], joined: Collection[str]
    ) -> Mapping[str, Array]:
        """Tensor -> (samples, ...), without the outputs that may have several shapes.

        Args:
            joined: outputs whose values become one row, (1, values of all samples).
        """
        model, shapes = (self._pair.original, self._pair.pruned)[side], self._shapes[side]
        stacked: dict[str, Array] = {}
        for name in answers[0]:
            if name in self._variable:
                continue
            values = [each[name] for each in answers]
            if name in joined:
                self._shapes[side].setdefault(name, values[0].shape)
                stacked[name] = np.concatenate([value.ravel() for value in values])[np.newaxis]
                continue
            shape = shapes.setdefault(name, values[0].shape)
            if any(value.shape != shape for value in values):
                raise ModelError(
                    f"the shape of output {name!r} of {model.name} changes from sample to sample",
                    "compute it with static shapes, for example with a mask of the same width",
                )
            stacked[name] = np.stack(values)
        return stacked
