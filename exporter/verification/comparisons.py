"""Which things are compared in two models: heads, unit indices, rows, and unchanged outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from exporter.formats.model import Model
from exporter.remap import HeadRemap
from exporter.trace import heads_cut_together, trace, trace_recorded
from exporter.trace.head import Head
from exporter.verification.detector_inputs import (
    detector_inputs,
    has_real_values,
    outputs_of_detectors,
)
from exporter.verification.head_comparison import HeadComparer
from exporter.verification.match import part_before
from exporter.verification.rerun_original import RerunOriginal
from exporter.verification.roles import Comparer, ModelPair, TensorComparer
from exporter.verification.top_k import EmittedIds


def comparers_of(
    pair: ModelPair, tables: Sequence[HeadRemap]
) -> tuple[list[Comparer], Collection[str]]:
    """Everything to compare, and the outputs that may have another shape in each sample.

    Which comparers there are, in the order of the report:

    | comparer       | stages      | compares                                                  |
    |----------------|-------------|-----------------------------------------------------------|
    | HeadComparer   | all         | logits and output of each head in `tables`, by its oracle |
    | TensorComparer | quantize    | boxes and scores that NonMaxSuppression operators read    |
    | TensorComparer | all         | outputs that were not cut                                 |
    | RankedOutput   | all         | indices and values of the units that rank first           |
    | EmittedIds     | all         | the output that `--emit ids` adds                         |
    | DetectedRows   | cut, export | rows that NonMaxSuppression operators return              |
    | RerunOriginal  | cut         | rows that other operators compute                         |

    Raises:
        UsageError, ModelError: see `HeadComparer`.
    """
    graphs = pair.graphs
    quantize = pair.stage == "quantize"
    inputs = list(detector_inputs(pair)) if quantize else []
    new_names = {each.name: each.new_name for each in inputs}
    heads = [
        _head_comparer(pair, head, table, new_names.get(table.output, table.output))
        for head, table in _heads(pair.original, tables)
    ]
    if heads:  # they compare the class scores, and know how these were cut
        inputs = [each for each in inputs if each.role == "boxes"]
    of_detectors = {name for head in heads for name in head.head.readers.detector_outputs}
    of_detectors.update(outputs_of_detectors(graphs[0]) if quantize else ())
    outputs = set(graphs[0].outputs) - {table.output for table in tables} - of_detectors
    ranked = {each.output: each for head in heads for each in head.ranked(outputs)}
    computed = {name for head in heads for name in head.computed_from_ranks(outputs)}
    computed -= ranked.keys()
    emitted = [EmittedIds(head.table, graphs[1]) for head in heads if head.table.options["emit"]]
    detected = [] if quantize else [each for head in heads for each in head.detected()]
    variable = of_detectors - {name for each in detected for name in each.detection.rows or ()}
    traced = trace(graphs[0]).heads if quantize else ()
    axes = {head.output: head.axis for head in traced}
    comparers: list[Comparer] = [
        *heads,
        *inputs,
        *(
            TensorComparer(name, name, axes.get(name), "not pruned", pair)
            for name in sorted(outputs.difference(ranked, computed))
        ),
        *(ranked[name] for name in sorted(ranked)),
        *(each for each in emitted if each.output not in graphs[0].outputs),
        *detected,
        *(_reruns(heads, variable | computed) if pair.stage == "cut" else ()),
    ]
    return comparers, variable


def _head_comparer(pair: ModelPair, head: Head, table: HeadRemap, shown: str) -> HeadComparer:
    """The comparer of one head, with the tensor that shows its output in the pruned model.

    A quantizer may rename an inner tensor, or take it apart: it is not compared then.
    """
    graph = pair.graphs[1]
    ranked = bool(head.readers.detector_outputs) and has_real_values(graph, shown)
    compared = pair.stage != "quantize" or shown in graph.outputs or ranked
    return HeadComparer(head, table, pair, shown, compared=compared)


def _heads(original: Model, tables: Sequence[HeadRemap]) -> Iterator[tuple[Head, HeadRemap]]:
    """The head of each table; for an output that is cut with another head, that head's units."""
    graph = original.graph()
    if not tables:
        return
    found = trace_recorded(graph, [(table, part_before(original, table)) for table in tables])
    with_others: dict[str, Head] = {}
    for table in tables:
        head = with_others.get(table.name) or found.head(table.name)
        with_others |= {each.name: each for each in heads_cut_together(graph, found, head)}
        yield head, table


def _reruns(heads: Iterable[HeadComparer], variable: Collection[str]) -> Iterator[RerunOriginal]:
    """A rerun for each head with such outputs; if an output depends on several heads, the first."""
    outputs = set(variable)
    for head in heads:
        detected = set(head.head.readers.detector_outputs)
        for of_head in (detected, head.computed_from_ranks(outputs) - detected):
            rerun = head.rerun(outputs & of_head)
            if rerun is not None:
                yield rerun
                outputs.difference_update(rerun.outputs)
