"""What is compared of two models: values of heads, ids, rows, and outputs that were not cut."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.formats.model import Model
from exporter.graph import Array
from exporter.remap import HeadRemap
from exporter.trace import heads_beside, trace_recorded
from exporter.trace.head import Head
from exporter.verification.detector_inputs import Entering, behind_all, entering
from exporter.verification.detector_rows import DetectedRows
from exporter.verification.head_comparison import Pair
from exporter.verification.match import Stage, part_before
from exporter.verification.rerun_original import Replay
from exporter.verification.top_k import EmittedIds, RankedOutput, ranked_outputs


@dataclass(frozen=True, eq=False)
class Subjects:
    """Of one pair of models.

    Attributes:
        pairs: the heads that tables speak of.
        untouched: outputs that must answer as before.
        ids: outputs that show which units rank first, those with ids that the cut has added last.
        detected: rows of post-processes, by their own operator.
        replays: rows that operators put together; of a cut alone.
        entering: what enters post-processes, instead of their rows; of another precision alone.
        loose: outputs that may have another shape in each run.
    """

    pairs: Sequence[Pair]
    untouched: Sequence[str]
    ids: Sequence[RankedOutput | EmittedIds]
    detected: Sequence[DetectedRows]
    replays: Sequence[Replay]
    entering: Sequence[Entering]
    loose: Collection[str]

    @property
    def wanted(self) -> Iterator[str]:
        """The tensors of the pruned model that have to be read, besides its outputs."""
        for pair in self.pairs:
            yield from pair.wanted
        for ids in self.ids:
            if ids.source:
                yield ids.source
        for rows in self.detected:
            yield from (rows.detection.source, rows.boxes)
        for replay in self.replays:
            yield from replay.sources
        for each in self.entering:
            yield each.other

    @property
    def read(self) -> Iterator[str]:
        """The tensors of the original that have to be read, besides its outputs."""
        yield from (pair.z for pair in self.pairs)
        yield from (rows.boxes for rows in self.detected)
        yield from (each.name for each in self.entering)


def subjects_of(
    stage: Stage,
    models: tuple[Model, Model],
    tables: Sequence[HeadRemap],
    masks: Array | None,
) -> Subjects:
    """Find them in the original and in what became of it (raises as `Pair` does).

    Args:
        masks: see `Pair`.
    """
    graphs = models[0].graph(), models[1].graph()
    pairs = [Pair(head, models, table, stage, masks) for head, table in _heads(models[0], tables)]
    behind = {name for pair in pairs for name in pair.head.readers.detector_outputs}
    entered = list(entering(graphs)) if stage == "quantize" else []
    behind.update(behind_all(graphs[0]) if stage == "quantize" else ())
    whole = set(graphs[0].outputs) - {table.output for table in tables} - behind
    ranked: Mapping[str, RankedOutput] = {
        each.output: each
        for pair in pairs
        for each in ranked_outputs(pair.head, graphs, whole, pair.names())
    }
    emitted = [EmittedIds(pair.table, graphs[1]) for pair in pairs if pair.table.options["emit"]]
    emitted = [each for each in emitted if each.output not in graphs[0].outputs]
    detected = [] if stage == "quantize" else [each for pair in pairs for each in pair.detected()]
    loose = behind - {name for each in detected for name in each.detection.rows or ()}
    return Subjects(
        pairs,
        sorted(whole.difference(ranked)),
        [*(ranked[name] for name in sorted(ranked)), *emitted],
        detected,
        _replays(pairs, loose) if stage == "cut" else [],
        entered,
        loose,
    )


def _heads(original: Model, tables: Sequence[HeadRemap]) -> Iterator[tuple[Head, HeadRemap]]:
    """Each table's head; of one that another's cut narrows too, the head that lies beside."""
    graph = original.graph()
    if not tables:
        return
    found = trace_recorded(graph, [(table.name, part_before(original, table)) for table in tables])
    beside: dict[str, Head] = {}
    for table in tables:
        head = beside.get(table.name) or found.head(table.name)
        beside |= {each.name: each for each in heads_beside(graph, found, head)}
        yield head, table


def _replays(pairs: Iterable[Pair], loose: Collection[str]) -> list[Replay]:
    """Of outputs that several heads lie behind, the first's."""
    found: list[Replay] = []
    left = set(loose)
    for pair in pairs:
        replay = pair.replay(left.intersection(pair.head.readers.detector_outputs))
        if replay is not None:
            found.append(replay)
            left.difference_update(replay.outputs)
    return found
