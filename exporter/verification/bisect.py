"""Find the first tensor that differs in two files, with the operation that computes it.

A cut keeps the names of tensors. All tensors that both files compute under the same name become
outputs, both files run once on one input, and the tensors are compared in the order in which the
original computes them. Of tensors with a unit axis only the kept units are compared; tensors after
the logits are not, because their expected values differ by mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.formats.model import Model, without_dropped
from exporter.graph import Array, Graph, Node
from exporter.graph.edits import AddOutput, Plan
from exporter.records import FirstDifference
from exporter.remap import HeadRemap
from exporter.verification.comparisons import comparers_of
from exporter.verification.floors import FLOORS
from exporter.verification.head_comparison import HeadComparer
from exporter.verification.metrics import Block, measure
from exporter.verification.roles import Answers, ModelPair
from exporter.verification.token_ids import pair_inputs
from exporter.verification.verify import VerifyOptions

_ROUNDING = 1e-5  # of the largest value: kernels of another width may round differently


def first_difference(
    pair: ModelPair, tables: Sequence[HeadRemap], sample: int, options: VerifyOptions
) -> FirstDifference:
    """The first tensor that differs on one sample.

    Args:
        sample: index of the input among the samples of the options.
    """
    fed = pair_inputs(options.samples, pair.original, pair.pruned, tables)
    original = without_dropped(pair.original, tables)
    pair = ModelPair(pair.stage, original, pair.pruned, fed.masks)
    heads = [each for each in comparers_of(pair, tables)[0] if isinstance(each, HeadComparer)]
    nodes = dict(_shared(pair.graphs, heads))
    left = _answers(pair.original, nodes, _one(fed.original, sample), options)
    right = _answers(pair.pruned, nodes, _one(fed.cut, sample), options)
    equal = 0
    for name, node in nodes.items():
        values = _comparable(pair, heads, name, (left, right))
        if values is None:
            continue
        if not _differs(*values, options.precision if pair.stage == "quantize" else ""):
            equal += 1
            continue
        expected, actual = values
        place = _largest(expected, actual)
        return FirstDifference(
            artifact=pair.pruned.name,
            tensor=name,
            operation=str(node),
            sample=sample,
            place=place,
            expected=_finite(expected[place]),
            actual=_finite(actual[place]),
            equal=equal,
        )
    return FirstDifference(pair.pruned.name, "", "", sample, (), None, None, equal)


def _one(samples: Samples, index: int) -> Mapping[str, Array]:
    return {name: np.asarray(values[index]) for name, values in samples.values.items()}


def _shared(
    graphs: tuple[Graph, Graph], heads: Sequence[HeadComparer]
) -> Iterator[tuple[str, Node]]:
    """The tensors that both files compute, before or outside the operations after the logits."""
    after = {name for each in heads for node in each.head.tail for name in node.outputs}
    left, right = graphs
    for node in left.nodes:
        for name in node.outputs:
            if name and name in right.producers and name not in after:
                yield name, node


def _answers(
    model: Model, names: Mapping[str, Node], feed: Mapping[str, Array], options: VerifyOptions
) -> Answers:
    graph = model.graph()
    edits = tuple(AddOutput(name, name) for name in names if name not in graph.outputs)
    runner = model.apply(Plan(edits, model.remap)).runner(options.run)
    return runner(to_model_inputs(feed, graph))


def _comparable(
    pair: ModelPair, heads: Sequence[HeadComparer], name: str, answers: tuple[Answers, Answers]
) -> tuple[Array, Array] | None:
    """The values of a tensor in both files, of the kept units only; None if the shapes differ."""
    before, after = (
        graph.tensors[name].dequantize(values[name])
        for graph, values in zip(pair.graphs, answers, strict=True)
    )
    for each in heads:
        known = {tensor.name: tensor.unit_axis for tensor in each.head.tensors}
        if name not in known:
            continue
        axis, units = known[name].axis, known[name].units
        positions = known[name].positions(each.present)
        kept = np.isin(units[positions], each.kept) | (units[positions] < 0)
        if after.shape[axis] != len(positions):
            return None
        before = np.take(before, positions[kept], axis=axis)
        after = np.compress(kept, after, axis=axis)
    return (before, after) if before.shape == after.shape and before.size else None


def _differs(expected: Array, actual: Array, precision: str) -> bool:
    """Beyond rounding; of a quantized file, if there is more noise than its floor allows."""
    finite = np.isfinite(expected) & np.isfinite(actual)
    if not finite.all():
        return not np.array_equal(expected[~finite], actual[~finite], equal_nan=True)
    if precision:
        noise = measure("sqnr_db", Block(expected, actual, -1))
        return bool(noise < FLOORS[precision].synthetic.sqnr_db)
    largest = max(1.0, float(np.abs(expected).max()))
    return bool(np.abs(expected - actual).max() > _ROUNDING * largest)


def _largest(expected: Array, actual: Array) -> tuple[int, ...]:
    """The index of the largest difference, or of the first value that is not finite."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(expected - actual)
    apart = np.where(np.isnan(apart), np.inf, apart)
    return tuple(map(int, np.unravel_index(int(np.argmax(apart)), apart.shape)))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
