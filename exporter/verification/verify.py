"""The comparisons: *cut* (original + oracle against pruned), *export* (Keras against files), and
*quantize* (float against what is quantized).

All ask the same question: does the pruned model answer what the mode's oracle makes of the
original's z? They differ in which runtime the original runs, in how far apart the two may be, and
in what is measured: what a coarser file lost is told as such, and fails only on request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.records import Check
from exporter.remap import HeadRemap
from exporter.trace import trace
from exporter.verification.comparisons import Subjects, subjects_of
from exporter.verification.detector_inputs import Entering, holds_reals
from exporter.verification.detector_rows import DetectedRows
from exporter.verification.gate_masks import with_masks
from exporter.verification.head_comparison import Answers, Compared
from exporter.verification.limit_rows import row_of
from exporter.verification.limits import limits
from exporter.verification.match import Stage
from exporter.verification.metrics import COARSER, STANDARD, judge
from exporter.verification.rerun_original import Replay
from exporter.verification.top_k import EmittedIds, RankedOutput

__all__ = ["Stage", "Verification", "VerifyOptions", "verify_pair"]


@dataclass(frozen=True)
class VerifyOptions:
    """How two models are compared.

    Attributes:
        samples: the inputs that both models run on.
        run: threads and batch, the same for both sides.
        tolerance: instead of the limits of `limits.LIMITS`.
    """

    samples: Samples
    run: RunOptions = field(default_factory=RunOptions)
    tolerance: float | None = None


@dataclass(frozen=True, eq=False)
class Verification:
    """Every check of one pair of models.

    Attributes:
        zeroed_share: how much of the probability the removed units still hold, on average; None
            where the mode leaves them none or the activation does not share out.
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
        stage: "cut" where both are of one kind and precision, "export" where the original is a
            Keras model, "quantize" where the pruned model is coarser.
        original: the model that was cut, or that its file was converted from.
        pruned: what became of it.
        tables: what became of each head; outputs that no table names must answer as before, but
            for those that show how the units of a head rank.
        options: the samples, and how the models run.

    Raises:
        UsageError: the original has no such head, or not the units that a table speaks of.
        ModelError: a model does not run, or does not show what must be compared.
    """
    samples = options.samples
    fed, masks = with_masks(samples, pruned.graph(), tables)
    subjects = subjects_of(stage, (original, pruned), tables, masks)
    answers = (
        _run(original, subjects.read, options, subjects.loose),
        _run(pruned, subjects.wanted, replace(options, samples=fed), subjects.loose),
    )
    known = trace(original.graph()).heads if stage == "quantize" else ()
    axes = {head.output: head.axis for head in known}
    context = _Context(stage, (original, pruned), samples, options, axes)
    checks = tuple(context.all(subjects, answers))
    shares = (pair.dead_share(answers[1].stacked) for pair in subjects.pairs)
    return Verification(checks, next((s for s in shares if s is not None), None))


class _Answered(NamedTuple):
    """What a model answered.

    Attributes:
        stacked: what has the same shape for each sample.
        single: everything, sample by sample.
    """

    stacked: Answers
    single: Sequence[Answers]


def _run(
    model: Model,
    tensors: Iterable[str],
    options: VerifyOptions,
    loose: Collection[str],
) -> _Answered:
    """Every output and some inner tensors, for all samples.

    Args:
        loose: outputs that may have another shape in each run.
    """
    graph = model.graph()
    inner = {name for name in tensors if name in graph.tensors} - set(graph.outputs)
    edits = tuple(AddOutput(name, name) for name in sorted(inner))
    runner = (model.apply(Plan(edits, model.remap)) if edits else model).runner(options.run)
    answers = [runner(to_model_inputs(feed, graph)) for feed in options.samples.feeds()]
    names = [name for name in answers[0] if name not in loose]
    stacked = {name: _stacked(model, name, [each[name] for each in answers]) for name in names}
    return _Answered(stacked, answers)


def _stacked(model: Model, name: str, answers: Sequence[Array]) -> Array:
    if len({answer.shape for answer in answers}) > 1:
        raise ModelError(
            f"output {name!r} of {model.name} has another shape from sample to sample",
            "compute it with static shapes: by a mask of the same width, say",
        )
    return np.stack(answers)


_FILLED = 2  # different values at most: the one that removed units answer, and 0 between them


_HALF = ("fp16", "bf16")


@dataclass(frozen=True, eq=False)
class _Context:
    stage: Stage
    models: tuple[Model, Model]  # the original, the pruned one
    samples: Samples  # of the original
    options: VerifyOptions
    axes: Mapping[str, int]  # output -> its unit axis, where it is known

    def all(self, subjects: Subjects, answers: tuple[_Answered, _Answered]) -> Iterator[Check]:
        """Every check, of what both models answered."""
        left, right = answers[0].stacked, answers[1].stacked
        outputs = self.pruned.graph().outputs
        entered = {each.name: each.other for each in subjects.entering}
        for pair in subjects.pairs:
            shown = entered.get(pair.table.output, pair.table.output)
            ranked = pair.head.readers.detector_outputs and holds_reals(self.pruned.graph(), shown)
            if self.stage == "quantize" and not (shown in outputs or ranked):
                continue  # a tensor inside, which a library has taken apart
            codes = self.options.tolerance is None
            for each in pair.comparisons(left, right, codes=codes, shown=shown):
                yield from self.of(each)
        for tensor in subjects.entering:
            if (
                tensor.axis is None or not subjects.pairs
            ):  # the pairs know what a cut did to classes
                yield from self.entered(tensor, left, right)
        for output in subjects.untouched:
            yield from self.untouched(output, left, right)
        for ids in subjects.ids:
            yield from self.ranked(ids, right)
        for rows in subjects.detected:
            yield from self.detected(rows, left, right)
        for replay in subjects.replays:
            yield from self.replayed(replay, answers[1].single)

    def of(self, each: Compared) -> Iterator[Check]:
        """A head's values."""
        precision = each.coded or self._precision
        tolerance, values = self.options.tolerance, (each.expected, each.actual)
        if each.what == "removed":
            constant = len(np.unique(each.expected)) <= _FILLED
            allowed: Mapping[str, float] = {"max_abs": 0.0}
            if not constant:
                allowed = limits(self.stage, precision, each.expected, "y", tolerance=tolerance)
            yield from self._judged(each.name, values, allowed, each.axis, ("max_abs",))
            return
        allowed = limits(
            self.stage,
            precision,
            each.expected,
            each.what,
            tolerance=tolerance,
            units=each.shared_over,
        )
        yield from self._judged(each.name, values, allowed, each.axis)

    def untouched(self, output: str, left: Answers, right: Answers) -> Iterator[Check]:
        """An output that was not cut: equal to the bit where the runtime is the same."""
        expected = left[output]
        actual = right.get(output, np.empty(0))
        allowed: Mapping[str, float] = {"max_abs": 0.0}
        if self.stage != "cut":
            tolerance = self.options.tolerance
            allowed = limits(self.stage, self._precision, expected, "y", tolerance=tolerance)
            tensor = self.pruned.graph().tensors.get(output)
            actual = tensor.dequantize(actual) if tensor is not None else actual
        axis = self.axes.get(output, expected.ndim - 2) + 1  # behind the samples
        yield from self._judged(output, (expected, actual), allowed, axis)

    def entered(self, each: Entering, left: Answers, right: Answers) -> Iterator[Check]:
        """What enters a post-process in another precision; boxes have no first unit."""
        expected = left[each.name]
        tensor = self.pruned.graph().tensors[each.other]
        tolerance = self.options.tolerance
        allowed = limits(self.stage, self._precision, expected, "y", tolerance=tolerance)
        metrics = COARSER if each.axis is not None else ("sqnr_db", "max_abs")
        axis = 0 if each.axis is None else each.axis + 1
        values = expected, tensor.dequantize(right[each.other])
        yield from self._judged(each.name, values, allowed, axis, metrics)

    def ranked(self, each: RankedOutput | EmittedIds, right: Answers) -> Iterator[Check]:
        """Ids of units, or their values in order: exactly what the values that are ranked give."""
        values = each.expected(right), right.get(each.output, np.empty(0))
        yield from self._judged(each.output, values, {"max_abs": 0.0}, 0, ("max_abs",))

    def detected(self, each: DetectedRows, left: Answers, right: Answers) -> Iterator[Check]:
        """Rows of a post-process: those of kept classes as they were, and none of their own."""
        name = each.detection.node.name
        source = self.pruned.graph().tensors.get(each.detection.source)
        if source is None or not each.returned(right):
            yield self._counted(name, "rows", None)
            return
        if not each.shared_out:
            yield self._counted(name, "rows", each.lost(left, right))
        yield self._counted(name, "classes", each.foreign(right, source))
        graphs = self.models[0].graph(), self.pruned.graph()
        yield self._counted(name, "boxes", each.moved((left, right), graphs))

    def replayed(self, each: Replay, answers: Sequence[Answers]) -> Iterator[Check]:
        """Rows that operators put together: what the original makes of the same class values."""
        if not set(answers[0]).issuperset((*each.sources, *each.outputs)):
            yield self._counted(each.name, "rows", None)
            return
        original, _ = self.models
        runner = original.apply(Plan(each.edits(), original.remap)).runner(self.options.run)
        pairs = zip(self.samples.feeds(), answers, strict=True)
        feeds = (
            to_model_inputs(feed, original.graph()) | each.feed(answer) for feed, answer in pairs
        )
        lost, foreign = each.differing([runner(feed) for feed in feeds], answers)
        yield self._counted(each.name, "rows", lost)
        yield self._counted(each.name, "classes", foreign)

    def _counted(self, name: str, metric: str, count: int | None) -> Check:
        found = None if count is None else float(count)
        samples, passed = self.samples.count, count == 0
        return Check(self.stage, self.pruned.name, name, metric, found, 0.0, passed, samples)

    @property
    def pruned(self) -> Model:
        return self.models[1]

    @property
    def _precision(self) -> str:
        """Whose limits hold for values that are no codes: those of float32 behind codes or a wider
        float, and of what Keras computes in where its file knows better.
        """
        original, stated = (model.precision for model in self.models)
        if self.stage == "cut":
            stated = row_of(self.pruned)
        if self.stage == "export" and original in _HALF:
            return original
        codes = self.stage == "cut" and stated.startswith(("int8", "uint8", "int16"))
        return "fp32" if codes or stated == "fp64" else stated

    def _judged(
        self,
        output: str,
        values: tuple[Array, Array],
        allowed: Mapping[str, float],
        axis: int,
        metrics: Sequence[str] | None = None,
    ) -> Iterator[Check]:
        coarser = self.stage == "quantize"
        metrics = metrics or (COARSER if coarser else STANDARD)
        tie = 0.0 if coarser else None  # how often a device names another unit, gated or not
        for result in judge(*values, allowed, axis=axis, metrics=metrics, tie=tie):
            yield Check(
                stage=self.stage,
                artifact=self.pruned.name,
                output=output,
                metric=result.metric,
                value=result.value,
                limit=result.limit,
                passed=result.passed,
                samples=self.samples.count,
            )
