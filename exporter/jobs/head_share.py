"""The head's share of the work of a model: counted in multiply-adds, or measured as time."""

from __future__ import annotations

from dataclasses import replace

from exporter.forecast.verdict import LatencyBound
from exporter.graph import Graph
from exporter.graph.multiply_adds import multiply_adds
from exporter.jobs.job import Job
from exporter.jobs.source import UncutModel
from exporter.performance.latency import bench_models
from exporter.planning.cut import Cut, CutOptions, plan_cut


def count_bound(planned: Graph, before: Graph, after: Graph, cut: Cut) -> LatencyBound:
    """The bound of the latency by counts of multiply-adds.

    Args:
        planned: the graph that the cut was planned for.
        before, after: the graphs of the uncut and of the pruned file.
        cut: of the head.
    """
    total, head = multiply_adds(planned), _head_work(planned, cut)
    share = head / total if head is not None and total else None
    constants = {constant.name for each in cut.heads for constant in each.constants}
    size = sum(planned.tensors[name].size_bytes or 0 for name in constants)
    kept = _kept_work(before, after, head, cut)
    return LatencyBound(share, kept, head_bytes=size, head_multiply_adds=head)


def measure_bound(
    job: Job, uncut: UncutModel, cut: Cut, options: CutOptions, counted: LatencyBound
) -> LatencyBound:
    """The bound by the measured share of the head.

    The model is timed next to itself with a head of one unit (a detector also keeps its
    background). If that is r times as fast, and the small head has a fraction g of the head's
    multiply-adds, the share of the head is (1 - 1 / r) / (1 - g). The upper end of the interval of
    r gives the bound.

    Args:
        uncut: of a kind that is timed.
        cut: planned for it, with these options; it removes a unit.
        counted: the bound by counts.

    Raises:
        ExporterError: the model cannot be run.
    """
    model = uncut.model
    job.progress(f"timing {model.name} with a head of one unit")
    first = {part.heads[0].name: part.selection.kept[:1] for part in cut.parts}
    one = CutOptions(
        keep=None if options.cuts else cut.selection.kept[:1],
        cuts={name: first[name] for name in options.cuts},
        head=options.head,
        units=options.units,
        allow_nonfinite=options.allow_nonfinite,
        allow_gather=options.allow_gather,
    )
    smallest = plan_cut(model, one)
    small = model.apply(smallest.plan)
    feeds = list(job.inputs(model, uncut.path).feeds())
    timed = bench_models(model, small, feeds, job.bench_options)
    fraction = count_bound(model.graph(), model.graph(), small.graph(), smallest).kept
    low, high = (
        min(1.0, max(0.0, (1 - 1 / speedup) / (1 - fraction))) for speedup in timed.speedup_ci95
    )
    return replace(counted, share=high, source="measured", interval=(low, high))


def _head_work(graph: Graph, cut: Cut) -> int | None:
    """The work of every head that is cut, each node counted once."""
    return multiply_adds(
        graph, {node.name: node for head in cut.heads for node in head.body}.values()
    )


def _kept_work(before: Graph, after: Graph, head: int | None, cut: Cut) -> float:
    """The fraction of the head's work that is kept; of its units if the work is not known."""
    totals = multiply_adds(before), multiply_adds(after)
    if head and totals[0] is not None and totals[1] is not None:
        return 1 - (totals[0] - totals[1]) / head
    table = cut.remap.heads[0]
    return table.new_units / cut.heads[0].units
