"""Run two models on the same samples, in blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, tee
from typing import NamedTuple
from weakref import WeakKeyDictionary

from exporter.data.samples import Samples, to_model_inputs
from exporter.formats.model import Model, RunOptions, run_each
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.verification.roles import Answers

Shown = tuple[Model, Collection[str]]  # a model, and the inner tensors that it must show

_MOST_SAMPLES, _MOST_BYTES = 64, 16 << 20  # in one block, inputs and answers
_KEPT_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Block:
    """The answers of two models to some samples.

    Attributes:
        first: how many samples are in the blocks before.
        feeds: the inputs of the original.
    """

    first: int
    feeds: Sequence[Mapping[str, Array]]
    original: Sequence[Answers]
    pruned: Sequence[Answers]


class _Key(NamedTuple):
    """How answers were computed."""

    is_batch: bool
    options: RunOptions
    tensors: frozenset[str]

    def includes(self, other: _Key) -> bool:
        return self[:2] == other[:2] and self.tensors >= other.tensors


class KnownAnswers:
    """The answers of models to the samples of one job, for further comparisons.

    Those of a model are kept while it is in use, if they take at most 64 MB. Other samples have
    other answers: those of the first samples are kept, and of a batch of them.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Model, dict[_Key, list[Answers]]] = WeakKeyDictionary()
        self._samples: Mapping[str, Array] | None = None
        self._batch: Samples | None = None

    def batch_of(
        self, samples: Samples, join: Callable[[Samples], Samples | None]
    ) -> Samples | None:
        """A batch that `join` makes: the same one in every comparison on the same samples."""
        if samples.values is not self._samples:
            return join(samples)
        self._batch = self._batch or join(samples)
        return self._batch

    def of(
        self,
        shown: Shown,
        samples: Samples,
        feeds: Iterable[Mapping[str, Array]],
        options: RunOptions,
    ) -> Iterator[Answers]:
        """The answers of a model to each sample, computed if they are not known.

        Args:
            feeds: the inputs of the samples.
        """
        if self._samples is None:
            self._samples = samples.values
        is_batch = self._batch is not None and samples.values is self._batch.values
        if samples.values is not self._samples and not is_batch:
            yield from run(shown, feeds, options)
            return
        model, tensors = shown
        kept = self._kept.setdefault(model, {})
        key = _Key(is_batch, options, frozenset(tensors))
        known = next((found for each, found in kept.items() if each.includes(key)), None)
        if known is not None:
            wanted = {*model.graph().outputs, *tensors}
            for answers, _ in zip(known, feeds, strict=True):
                yield {name: value for name, value in answers.items() if name in wanted}
            return
        found: list[Answers] = []
        size = 0
        for answers in run(shown, feeds, options):
            size += sum(value.nbytes for value in answers.values())
            if size <= _KEPT_BYTES:
                found.append(answers)
            else:
                found.clear()
            yield answers
        if size <= _KEPT_BYTES:
            kept[key] = found


def run(
    shown: Shown, feeds: Iterable[Mapping[str, Array]], options: RunOptions
) -> Iterator[Answers]:
    """Every output of a model and the inner tensors, for each sample."""
    model, tensors = shown
    graph = model.graph()
    read = {name for name in tensors if name in graph.tensors}
    fed = read.intersection(graph.inputs)
    edits = tuple(AddOutput(name, name) for name in sorted(read - fed - set(graph.outputs)))
    if edits:
        model = model.apply(Plan(edits, model.remap))
    ahead: deque[Answers] = deque()

    def inputs() -> Iterator[Mapping[str, Array]]:
        for feed in feeds:
            values = to_model_inputs(feed, graph)
            ahead.append({name: values[name] for name in fed})
            yield values

    for answers in run_each(model.runner(options), inputs()):
        yield {**ahead.popleft(), **answers}


def _computed_ahead(answers: Iterator[Answers]) -> Iterator[Answers]:
    """The same answers: those of the first samples, up to 64 MB, are computed at once."""
    first, size = [], 0
    for each in answers:
        first.append(each)
        size += sum(value.nbytes for value in each.values())
        if size > _KEPT_BYTES:
            break
    return chain(first, answers)


def answer_blocks(
    shown: tuple[Shown, Shown],
    samples: Samples,
    masks: Mapping[str, Array],
    options: RunOptions,
    known: KnownAnswers,
) -> Iterator[Block]:
    """The answers of both models, block after block; each sample is read once.

    Args:
        shown: the original, and the pruned model.
        masks: inputs that only the pruned model has, or that differ there, (samples, ...).
    """
    inputs, for_original, for_pruned = tee(samples.feeds(), 3)
    before = known.of(shown[0], samples, for_original, options)
    if samples.in_memory:  # one model after the other, so that one of them is loaded at a time
        before = _computed_ahead(before)
    if masks:
        masked = (
            {**feed, **{name: values[i] for name, values in masks.items()}}
            for i, feed in enumerate(for_pruned)
        )
        after = run(shown[1], masked, options)
    else:
        after = known.of(shown[1], samples, for_pruned, options)
    rows: list[tuple[Mapping[str, Array], Answers, Answers]] = []
    done = size = 0
    for row in zip(inputs, before, after, strict=True):
        rows.append(row)
        size += sum(value.nbytes for arrays in row for value in arrays.values())
        if len(rows) == _MOST_SAMPLES or size >= _MOST_BYTES:
            yield Block(done, *zip(*rows, strict=True))
            done, size, rows = done + len(rows), 0, []
    if rows:
        yield Block(done, *zip(*rows, strict=True))
