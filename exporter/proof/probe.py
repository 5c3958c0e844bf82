"""Probe the head of a cut file: a proof that needs neither the planner nor samples.

1. The network before the head is compared directly: the tensor that the head reads must be computed
   by equal operations and constants in both files.
2. The head is a linear map. It is determined by its results for zeros and for each unit vector,
   which are fed in place of that tensor, or of the tensors of all branches. Each kept weight and
   bias must be equal to the original's, each removed unit as the oracle of the mode says.
3. The operations after the logits are fed with logits in their place: each unit first, ties, and
   values so large that an activation saturates.

Both files run in their own runtime. See docs/proof.md for the limits of this argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import ExporterError
from exporter.formats.model import Model, RunOptions, without_dropped
from exporter.formats.structure import HasStructure
from exporter.graph import Array, Graph
from exporter.graph.edits import AddOutput, Plan
from exporter.graph.operations import Linear
from exporter.graph.walk import applies
from exporter.proof.head_input import NotOpenError, Source, adds_branches, in_cut, inputs_of
from exporter.remap import HeadRemap
from exporter.trace.head import Head
from exporter.verification.comparisons import comparers_of
from exporter.verification.gate_masks import with_masks
from exporter.verification.head_comparison import HeadComparer
from exporter.verification.limits import LOST_IN_ADDING
from exporter.verification.roles import ROLES, Answers, Comparer, Comparison, ModelPair, Runs
from exporter.verification.top_k import EmittedIds, RankedOutput

LARGEST = 10_000_000_000  # products of a probe: one or two seconds
_NAMED = 3  # tensors in a message
_LARGEST_VALUES = 20_000_000  # of the logits of a probe: they and the outputs are kept
_BATCH = 64
_CORNERS = 32  # units that are ranked first, one after the other


@dataclass(frozen=True)
class Probe:
    """The result of a probe.

    Attributes:
        text: what was fed, or why nothing was.
        failures: what differs, one sentence each.
    """

    text: str
    failures: tuple[str, ...] = ()


def probe(
    original: Model, cut: Model, tables: Sequence[HeadRemap], largest: int = LARGEST
) -> Probe:
    """Feed the heads of two files directly, and compare their results by the oracle.

    Args:
        tables: how the heads were cut; in the indices of the original, or of its own original.
        largest: do not run a probe with more products than this.
    """
    try:
        return _probe(without_dropped(original, tables), cut, tables, largest)
    except NotOpenError as error:
        return Probe(f"not possible: {error}")
    except ExporterError as error:
        return Probe(f"not possible: {error.message}")


def _probe(original: Model, cut: Model, tables: Sequence[HeadRemap], largest: int) -> Probe:
    if not (isinstance(original, HasStructure) and isinstance(cut, HasStructure)):
        raise NotOpenError("a Keras model cannot be fed after its input")
    found, _ = comparers_of(ModelPair("cut", original, cut), tables)
    heads = [e.head for e in found if isinstance(e, HeadComparer) and not e.head.gather]
    if not heads:
        raise NotOpenError("its units are mixed before the output, and no weight is removed")
    graph = original.graph()
    sources = inputs_of(graph, heads)
    new_names = in_cut(original, cut, [source.name for source in sources])
    most, in_turn = _most_rows(graph, heads, largest), adds_branches(graph, heads)
    fed, count = _fed(sources, most, in_turn=in_turn)
    parts = (
        _Part(original, fed, ()),
        _Part(cut, {new_names[name]: values for name, values in fed.items()}, tables),
    )
    pair = ModelPair("cut", original, cut, parts[1].masks)
    comparers = [c for c in comparers_of(pair, tables)[0] if _is_probed(c, parts[1])]
    before, after = (
        part.run(name for each in comparers for name in each.tensors()[side])
        for side, part in enumerate(parts)
    )
    is_alone = all(source.is_multiplied for source in sources)  # else logits determine no outputs
    failures = list(_judge_all(comparers, before, after, graph, logits_only=not is_alone))
    more, rows = ([], 0) if failures or not is_alone else _probe_tail(pair, comparers, tables)
    names = [repr(source.name) for source in sources if source.is_multiplied]
    where = ", ".join(names[:_NAMED])
    where += f" and {len(names) - _NAMED} more tensors" if len(names) > _NAMED else ""
    text = f"{count} vectors fed at {where}, and {rows} rows of logits after it"
    if any(_is_rounded(graph, head) for head in heads):
        text += "; values that quantization rounds to the same step cannot be distinguished"
    return Probe(text, tuple(dict.fromkeys((*failures, *more))))


def _fed(sources: Sequence[Source], most: int, *, in_turn: bool) -> tuple[dict[str, _Rows], int]:
    """Tensor -> (samples, batch, ...) to feed, and the number of rows.

    The first row has zeros everywhere.

    Args:
        in_turn: the vectors of each source have rows of their own, with zeros in place of the other
            sources: so each result has one term, also if the head adds its branches.

    Raises:
        NotOpenError: more than `most` rows.
    """
    counts = [source.rows for source in sources]
    rows = 1 + (sum(counts) if in_turn else max(counts))
    if rows > most:
        raise NotOpenError(f"{rows:,} vectors are needed, and at most {most:,} are fed")
    batch = sources[0].batch or _BATCH
    fed, start = {}, 1
    for source, count in zip(sources, counts, strict=True):
        zero = np.zeros(source.shape, np.float32)
        fed[source.name] = _Rows(source.vectors(), zero, start, rows, batch)
        start += count if in_turn else 0
    return fed, rows


class _Rows(Sequence[Array]):
    """Batches of rows that are zero but for some: each is made when it is used."""

    def __init__(self, vectors: Array, zero: Array, start: int, count: int, batch: int) -> None:
        self._vectors, self._zero = vectors, zero  # (rows, ...), (...)
        self._start, self._count, self._batch = start, count, batch

    def __len__(self) -> int:
        return (self._count + self._batch - 1) // self._batch

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        found = np.repeat(self._zero[np.newaxis], self._batch, axis=0)
        first = index * self._batch - self._start
        low, high = max(first, 0), min(first + self._batch, len(self._vectors))
        if low < high:
            found[low - first : high - first] = self._vectors[low:high]
        return found

    def changed(self, change: Callable[[Array], Array]) -> _Rows:
        """The same rows after a function of each value."""
        changed = change(self._vectors), change(self._zero)
        return _Rows(*changed, self._start, self._count, self._batch)


def _most_rows(graph: Graph, heads: Sequence[Head], largest: int) -> int:
    """How many rows have no more than so many products in all, and fit in memory."""
    products = 0
    widest = max(prod(n or 1 for n in graph.shape(head.z)) for head in heads)
    for node in dict.fromkeys(node for head in heads for node in head.body):
        if isinstance(node.operation, Linear):
            after = graph.shape(node.outputs[0])[1:]
            units = graph.shape(node.outputs[0])[node.operation.output_axis] or 1
            kernel = graph.shape(node.inputs[node.operation.kernel])
            products += prod(n or 1 for n in (*after, *kernel)) // units
    return min(largest // max(1, products), _LARGEST_VALUES // widest)


def _is_rounded(graph: Graph, head: Head) -> bool:
    """Are the logits quantized, here or on their way?"""
    quantized = graph.tensors[head.z].quantization is not None
    return quantized or any(applies(node, "quantize") for node in head.body)


def _is_probed(comparer: Comparer, part: _Part) -> bool:
    """Is it of a head, or of an output with indices that depends on the tensor that is fed?"""
    if isinstance(comparer, HeadComparer):
        return not comparer.head.gather
    outputs = part.model.graph().outputs
    return isinstance(comparer, EmittedIds | RankedOutput) and comparer.output in outputs


class _Part:
    """A model that is fed at inner tensors.

    Attributes:
        model: the part of the model after them.
        masks: see `with_masks`.
    """

    def __init__(
        self, model: Model, fed: Mapping[str, Array | _Rows], tables: Sequence[HeadRemap]
    ) -> None:
        """Args: fed: tensor -> (samples, batch, ...) real values."""
        is_input = set(fed) <= set(model.graph().inputs)
        assert isinstance(model, HasStructure)  # noqa: S101 - narrows the type
        self.model: Model = model if is_input else model.starting_at(tuple(fed))
        graph = self.model.graph()
        values: Any = {}
        for name, each in fed.items():
            change = partial(_as_input, graph, name)
            values[name] = each.changed(change) if isinstance(each, _Rows) else change(each)
        self._samples, self.masks = with_masks(Samples(values, ""), graph, tables)

    def run(self, tensors: Iterable[str]) -> list[Answers]:
        """Every output and these inner tensors, for each sample."""
        graph = self.model.graph()
        inner = {name for name in tensors if name in graph.tensors}
        inner -= {*graph.outputs, *graph.inputs}
        edits = tuple(AddOutput(name, name) for name in sorted(inner))
        model = self.model.apply(Plan(edits, self.model.remap)) if edits else self.model
        runner = model.runner(RunOptions())
        return [runner(feed | self._others(feed)) for feed in self.feeds()]

    def feeds(self) -> list[dict[str, Array]]:
        """The values that are fed, for each sample."""
        return list(self._samples.feeds())

    def _others(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Zeros for inputs of the whole model that the part still reads."""
        graph, batch = self.model.graph(), len(next(iter(feed.values())))
        result = {}
        for name in set(graph.inputs) - set(feed):
            leading, *rest = graph.shape(name) or (None,)
            shape = [batch if leading is None else leading, *(n or 1 for n in rest)]
            result[name] = np.zeros(shape, graph.tensors[name].dtype)
        return result


def _as_input(graph: Graph, name: str, values: Array) -> Array:
    """Real values as the tensor has them: quantized if it is."""
    tensor = graph.tensors[name]
    quantized = values if tensor.quantization is None else tensor.quantization.quantize(values)
    return quantized.astype(np.dtype(tensor.dtype))


# --- logits ---------------------------------------------------------------------------------------


def _probe_tail(
    pair: ModelPair, comparers: Sequence[Comparer], tables: Sequence[HeadRemap]
) -> tuple[list[str], int]:
    """Feed logits in place of those that the head computes; the failures, and how many were fed."""
    heads = [each for each in comparers if isinstance(each, HeadComparer)]
    gated = any(table.options["gate"] for table in tables)
    graph, cut = pair.original.graph(), pair.pruned
    if gated or any(each.new_z in {None, *cut.graph().outputs} for each in heads):
        return [], 0
    original: dict[str, Array] = {}
    fed: dict[str, Array] = {}
    corners = [_corners(each.head, graph) for each in heads]
    most = max(map(len, corners))  # a head with fewer units has fewer rows: they are repeated
    for each, rows_of_head in zip(heads, corners, strict=True):
        values = np.resize(rows_of_head, (most, *rows_of_head.shape[1:]))
        original[each.head.z] = _as_input(graph, each.head.z, values)
        fed[each.new_z or ""] = each.expected(original).z
    part = _Part(cut, fed, tables)
    names = [name for each in comparers for name in each.tensors()[1]]
    runs = zip(part.run(names), part.feeds(), strict=True)
    after = [{**answers, **feed} for answers, feed in runs]
    rows = zip(*original.values(), strict=True)
    before = [dict(zip(original, each, strict=True)) for each in rows]
    return list(_judge_all(comparers, before, after, cut.graph())), len(after)


def _corners(head: Head, graph: Graph) -> Array:
    """Rows of logits: ties, saturated ones, both orders, and units that are first by far."""
    unit_axis = head.tensor(head.z).unit_axis
    shape = [n or 1 for n in graph.shape(head.z)]
    width = shape[unit_axis.axis]
    first = np.unique(np.linspace(0, width - 1, min(width, _CORNERS)).round().astype(int))
    line = np.linspace(-8.0, 8.0, width)
    random = np.random.default_rng(0)
    rows = [
        *(np.full(width, value) for value in (0.0, -20.0, 20.0)),
        line,
        line[::-1],
        15.0 * (-1.0) ** np.arange(width),
        *(12.0 * (first[:, np.newaxis] == np.arange(width))),
        *random.normal(scale=4.0, size=(4, width)),
    ]
    along = [1] * len(shape)
    along[unit_axis.axis] = width
    return np.stack([np.broadcast_to(row.reshape(along), shape) for row in rows])


# --- results --------------------------------------------------------------------------------------


def _judge_all(
    comparers: Iterable[Comparer],
    original: Sequence[Answers],
    cut: Sequence[Answers],
    graph: Graph,
    *,
    logits_only: bool = False,
) -> Iterator[str]:
    runs = Runs(_stack(original), _stack(cut), cut, in_quantized_values=True, rerun=lambda *_: [])
    for comparer in comparers:
        for each in comparer.compare(runs):
            assert isinstance(each, Comparison)  # noqa: S101 - only detectors yield others
            if each.is_empty or (logits_only and each.role not in {"z", "removed"}):
                continue
            if text := _judge(each, _step(graph, comparer)):
                yield text


def _stack(answers: Sequence[Answers]) -> Answers:
    return {name: np.stack([each[name] for each in answers]) for name in answers[0]}


def _step(graph: Graph, comparer: Comparer) -> float:
    """The relative rounding of an activation in the type of the head."""
    names = [comparer.head.z] if isinstance(comparer, HeadComparer) else []
    dtypes = {graph.tensors[name].dtype for name in names if name in graph.tensors}
    return max((_ROUNDING.get(dtype, 2e-6) for dtype in dtypes), default=2e-6)


_ROUNDING = {"float16": 4e-3, "bfloat16": 3e-2}


def _judge(each: Comparison, step: float) -> str:
    """How a comparison fails; "" if it does not.

    Logits, removed units and indices are equal. After an activation, values may differ by its
    rounding: by one step if they are quantized.
    """
    if each.expected.shape != each.actual.shape:
        return f"{each.output} has the shape {each.actual.shape}, expected {each.expected.shape}"
    expected, actual = (np.asarray(v, np.float64) for v in (each.expected, each.actual))
    with np.errstate(invalid="ignore"):
        equal = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
        apart = np.where(equal, 0.0, np.abs(expected - actual))
    if each.role == "z" or ROLES[each.role].must_be_equal("cut", len(np.unique(expected))):
        limit = 0.0
    elif each.precision:
        limit = 1.0 + 2.0 * each.added_units * (each.precision == "int16x8")
    else:
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
        limit = step * largest + each.added_units * LOST_IN_ADDING
    if (apart <= limit).all():
        return ""
    place = np.unravel_index(int(np.argmax(np.nan_to_num(apart, nan=np.inf))), apart.shape)
    unit = place[each.axis] if each.axis < len(place) else 0
    row = place[0] * expected.shape[1] + place[1] if len(place) > 1 else place[0]
    values = f"{actual[place]:.9g}, expected {expected[place]:.9g}"
    return f"{each.output}: position {unit} is {values} (row {row} of the probe)"
