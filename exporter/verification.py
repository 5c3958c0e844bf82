"""The two comparisons: *cut* (original + oracle against pruned) and *export* (Keras against files).

Both ask the same question: does the pruned model answer what the mode's oracle makes of the
original's z? They differ in which runtime the original runs, and in how far apart the two may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from exporter.activations import ACTIVATIONS
from exporter.graph import Array
from exporter.head import Head
from exporter.models.model import Model, RunOptions
from exporter.modes import MODES
from exporter.parity import judge, limits
from exporter.plan import AddOutput, Plan
from exporter.remap import HeadRemap
from exporter.report.record import Check
from exporter.rules import Refused
from exporter.samples import Samples
from exporter.trace import Trace, trace, trace_axis

Stage = Literal["cut", "export"]
Answers = Mapping[str, Array]  # output name -> (samples, ...)


@dataclass(frozen=True)
class VerifyOptions:
    """How two models are compared.

    Attributes:
        run: threads and batch, the same for both sides.
        tolerance: instead of the limits of `parity.LIMITS`.
    """

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
    job: tuple[Samples, VerifyOptions],
) -> Verification:
    """Run both models on the samples and compare z and y of every head, and all other outputs.

    Args:
        stage: "cut" where both are of one kind, "export" where the original is a Keras model.
        original: the model that was cut, or that its file was converted from.
        pruned: what became of it.
        tables: what became of each head; outputs that no table names must answer as before.
        job: on what, and how.

    Raises:
        UsageError, ModelError: the original has no such head.
    """
    samples, options = job
    found = trace(original.graph()) if tables else Trace((), ())
    pairs = [_Pair(found, original, pruned, table, stage) for table in tables]
    left = _run(original, {pair.z for pair in pairs}, samples, options)
    right = _run(pruned, {pair.new_z for pair in pairs if pair.new_z}, samples, options)
    context = _Context(stage, pruned, samples.count, options)
    checks = [check for pair in pairs for check in pair.checks(left, right, context)]
    whole = set(original.graph().outputs) - {table.output for table in tables}
    checks += [c for o in sorted(whole) for c in _untouched(o, left, right, context)]
    return Verification(tuple(checks), _zeroed_share(pairs, right))


@dataclass(frozen=True, eq=False)
class _Context:
    stage: Stage
    pruned: Model
    samples: int
    options: VerifyOptions

    def judged(
        self, output: str, expected: Array, actual: Array, allowed: Mapping[str, float], axis: int
    ) -> Iterator[Check]:
        for result in judge(expected, actual, allowed, axis=axis):
            yield Check(
                stage=self.stage,
                artifact=self.pruned.name,
                output=output,
                metric=result.metric,
                value=result.value,
                limit=result.limit,
                passed=result.passed,
                samples=self.samples,
            )


class _Pair:
    """One head of the original beside what became of it."""

    def __init__(
        self, found: Trace, original: Model, pruned: Model, table: HeadRemap, stage: Stage
    ) -> None:
        self.table = table
        self.head = found.head(table.name)
        self.kept = _kept_in(original, table)
        self.z = self.head.z
        self.new_z = _z_of(pruned, self.head, table, stage)

    def checks(self, left: Answers, right: Answers, context: _Context) -> Iterator[Check]:
        z, y = self._expected(left)
        axis = self.head.tensor(self.z).labels.axis + 1  # samples stand in front
        options = context.options
        if self.new_z is not None and self.z != self.head.output:
            allowed = limits(context.stage, context.pruned.precision, z, "z", options.tolerance)
            yield from context.judged(
                f"{self.table.output} (z)", z, right[self.new_z], allowed, axis
            )
        what: Literal["probability", "y"] = "probability" if self._probability else "y"
        allowed = limits(context.stage, context.pruned.precision, y, what, options.tolerance)
        output = self.table.output
        yield from context.judged(output, y, right[output], allowed, self.head.axis + 1)

    def _expected(self, left: Answers) -> tuple[Array, Array]:
        oracle = MODES[self.table.mode].oracle
        answers = [oracle(self.head, self.kept, z) for z in left[self.z]]
        return np.stack([a.z for a in answers]), np.stack([a.y for a in answers])

    @property
    def _probability(self) -> bool:
        function = ACTIVATIONS.get(self.head.activation)
        return function is not None and function.probability


def _kept_in(original: Model, table: HeadRemap) -> tuple[int, ...]:
    """The kept units in the original's own indices, which was perhaps cut before."""
    if original.remap is None:
        return table.kept
    return tuple(original.remap.to_new(table.kept, head=table.name).tolist())


def _z_of(pruned: Model, head: Head, table: HeadRemap, stage: Stage) -> str | None:
    """The tensor of z in the pruned model; None where nothing tells it.

    A cut keeps the names of tensors. A converted file has names of its own, and is traced.
    """
    graph = pruned.graph()
    if head.z == head.output:
        return table.output
    if stage == "cut" and head.z in graph.tensors:
        return head.z
    try:
        return trace_axis(graph, table.output, table.axis).z
    except Refused:
        return None


def _run(model: Model, further: set[str], samples: Samples, options: VerifyOptions) -> Answers:
    """Every output and some inner tensors, for all samples."""
    outputs = model.graph().outputs
    edits = tuple(AddOutput(name, name) for name in sorted(further) if name not in outputs)
    runner = (model.apply(Plan(edits, model.remap)) if edits else model).runner(options.run)
    answers = [runner(feeds) for feeds in samples.feeds()]
    return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def _untouched(output: str, left: Answers, right: Answers, context: _Context) -> Iterator[Check]:
    """An output that was not cut: equal to the bit where the runtime is the same."""
    expected, actual = left[output], right.get(output, np.empty(0))
    allowed: Mapping[str, float] = {"max_abs": 0.0}
    if context.stage == "export":
        precision, tolerance = context.pruned.precision, context.options.tolerance
        allowed = limits(context.stage, precision, expected, "y", tolerance)
    yield from context.judged(output, expected, actual, allowed, expected.ndim - 1)


def _zeroed_share(pairs: list[_Pair], right: Answers) -> float | None:
    """The mean probability mass that zeroed softmax units still hold."""
    if not pairs:
        return None
    head, table = pairs[0].head, pairs[0].table
    if table.mode != "zero" or head.activation != "softmax":
        return None
    removed = head.tensor(head.output).labels.removed(pairs[0].kept)
    held = np.take(right[head.output], removed, axis=head.axis + 1)
    return float(held.sum(axis=head.axis + 1).mean())
