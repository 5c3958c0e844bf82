"""Time a pruned model next to its original on this machine.

`exporter.ondevice.rounds` measures, `verdict` compares the rounds, `intervals` contains the
statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from exporter.data.samples import to_model_inputs
from exporter.errors import UsageError
from exporter.formats.isolation import is_isolated, isolated
from exporter.formats.model import Model
from exporter.graph import Array
from exporter.ondevice.clocks import SYSTEM, Clocks
from exporter.ondevice.rounds import measure
from exporter.performance.latency_record import make_record
from exporter.performance.scenario import BenchOptions
from exporter.records import Latency

Feeds = Sequence[Mapping[str, Array]]


def bench_models(
    original: Model,
    pruned: Model,
    feeds: Feeds,
    options: BenchOptions,
    clocks: Clocks = SYSTEM,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Latency:
    """Time two models of one kind side by side.

    Args:
        original, pruned: of a kind that is benchmarked.
        feeds: input name -> (batch, ...) for both models; float values are quantized for quantized
            inputs. See `exporter.ondevice.rounds.measure`.
        options: the scenario.
        clocks: to simulate a machine.
        progress: called with the planned loads and seconds after the first load.

    Raises:
        UsageError: there is no feed.
        ModelError: the runtime cannot load or run one of the models.
    """
    own = [feeds_of(model, feeds) for model in (original, pruned)]
    load = partial(original.runner, options.run)
    loaders = [load, load if pruned is original else partial(pruned.runner, options.run)]
    if is_isolated():  # once in a process of its own, which a damaged file may crash
        for loader, each in zip(loaders, own, strict=True):
            loader()(each[0])
    with isolated(None):  # a timed run does not pass its inputs to another process
        measured = measure(loaders, own, options.schedule, clocks, progress)
    return make_record(measured, pruned.name, options, feeds[0])


def feeds_of(model: Model, feeds: Feeds) -> list[Mapping[str, Array]]:
    """The feeds in the dtypes of the model's inputs, without inputs that the model lacks.

    A gate adds an input to the pruned model only.

    Raises:
        UsageError: there is no feed.
    """
    if not feeds:
        raise UsageError("there are no inputs to bench with")
    graph = model.graph()
    return [
        to_model_inputs({name: feed[name] for name in graph.inputs if name in feed}, graph)
        for feed in feeds
    ]
