"""Run a model for values inside it, in its own runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array, Graph
from exporter.graph.edits import AddOutput, Plan, RemoveOutputs

_BATCH = 16  # samples of one run, if the file leaves the batch open
_BATCH_BYTES = 64 << 20  # of the inputs of one run


def with_measured_shapes(model: Model, samples: Samples, options: RunOptions) -> Graph:
    """The graph, with the shapes that the first sample gives where the file leaves lengths open."""
    graph = model.graph()
    computed = {name for node in graph.nodes for name in node.outputs if name} - graph.hidden
    unknown = [n for n in computed if graph.tensors[n].shape is None or None in graph.shape(n)]
    first = next(samples.feeds())
    values = next(values_of(model, sorted(unknown), [first], options)) if unknown else {}
    shapes = {name: each.shape for name, each in {**first, **values}.items()}
    known = {name: replace(graph.tensors[name], shape=shape) for name, shape in shapes.items()}
    return replace(graph, tensors={**graph.tensors, **known})


def batches(samples: Samples, graph: Graph) -> Iterator[dict[str, Array]]:
    """The samples in batches, if the graph's inputs and outputs leave the batch open."""
    ends = (*graph.inputs, *graph.outputs)
    is_open = all(graph.shape(name)[:1] == (None,) for name in ends)
    waiting: list[Mapping[str, Array]] = []
    for feed in samples.feeds():
        waiting.append(feed)
        size = sum(values.nbytes for values in feed.values())
        if not is_open or len(waiting) * max(size, _BATCH_BYTES // _BATCH) >= _BATCH_BYTES:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(feeds: list[Mapping[str, Array]]) -> dict[str, Array]:
    if len(feeds) == 1:
        return dict(feeds[0])
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def values_of(
    model: Model, tensors: Iterable[str], feeds: Iterable[Mapping[str, Array]], options: RunOptions
) -> Iterator[dict[str, Array]]:
    """The values of some tensors, for each feed. Only what they are computed from runs.

    Args:
        tensors: computed ones, or inputs.
    """
    graph = model.graph()
    wanted = list(dict.fromkeys(tensors))
    computed = [name for name in wanted if name not in graph.inputs]
    new = [AddOutput(name, name) for name in computed if name not in graph.outputs]
    shown = model.apply(Plan(tuple(new))) if new else model
    unread = tuple(name for name in graph.outputs if name not in computed)
    if unread and computed:
        shown = shown.apply(Plan((RemoveOutputs(unread),)))
    inputs = shown.graph().inputs
    run = shown.runner(options) if computed else None
    for feed in feeds:
        fed = to_model_inputs(feed, graph)
        found = run({name: fed[name] for name in inputs}) if run else {}
        yield {name: fed[name] if name in graph.inputs else found[name] for name in wanted}
