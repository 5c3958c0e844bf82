"""The outputs of a network on samples, and how much those of another network differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.data.samples import Samples
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array, Graph
from exporter.trace import trace
from exporter.trace.head import Head
from exporter.trimming.network import batches, values_of


@dataclass(frozen=True, eq=False)
class Observed:
    """What is compared: the logits and outputs of the heads, else the outputs as they are.

    Attributes:
        heads: of the network.
        tensors: to compare by their values: logits of heads, and outputs without a head.
    """

    heads: tuple[Head, ...]
    tensors: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph) -> Observed:
        heads = tuple(head for head in trace(graph).heads if head.output in graph.outputs)
        shown = {name for head in heads for name in (head.output, *head.other_outputs)}
        others = (name for name in graph.outputs if name not in shown)
        seen = (head.output if head.z in graph.hidden else head.z for head in heads)
        return cls(heads, tuple(dict.fromkeys((*seen, *others))))

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.tensors, *(head.output for head in self.heads))


class Answers:
    """The values of one network on samples: tensor -> (samples, ...) float64."""

    def __init__(
        self, model: Model, observed: Observed, samples: Samples, options: RunOptions
    ) -> None:
        feeds = batches(samples, model.graph())
        found: dict[str, list[Array]] = {name: [] for name in observed.all}
        for values in values_of(model, observed.all, feeds, options):
            for name, each in values.items():
                found[name].append(np.asarray(each, np.float64))
        self.values = {name: np.concatenate(each) for name, each in found.items()}
        self.observed = observed

    def error(self, other: Answers) -> float:
        """The mean squared difference of another network, as a share of the variance; the mean of
        all tensors. What a softmax ignores (a number that is added to all logits) does not count.
        """
        found = []
        for name in self.observed.tensors:
            expected, actual = self.values[name], other.values[name]
            for head in self.observed.heads:
                if head.z == name and head.activation == "softmax":
                    axis = head.tensor(name).unit_axis.axis
                    expected = expected - expected.mean(axis=axis, keepdims=True)
                    actual = actual - actual.mean(axis=axis, keepdims=True)
            variance = float(np.square(expected - expected.mean(axis=0)).mean())
            found.append(float(np.square(actual - expected).mean()) / (variance or 1.0))
        return float(np.mean(found)) if found else 0.0

    def agreement(self, other: Answers) -> float | None:
        """The share of samples (of positions, if there are several) with the same first unit of
        every head; None without a head.
        """
        shares = []
        for head in self.observed.heads:
            axis = head.tensor(head.output).unit_axis.axis
            same = self.first[head.name] == other.values[head.output].argmax(axis=axis)
            shares.append(float(same.mean()))
        return min(shares, default=None)

    @cached_property
    def first(self) -> Mapping[str, Array]:
        """Head -> index of the first unit of each sample."""
        return {
            head.name: self.values[head.output].argmax(axis=head.tensor(head.output).unit_axis.axis)
            for head in self.observed.heads
        }

    def sqnr_db(self, other: Answers) -> float:
        """Signal-to-noise ratio of the compared tensors, the lowest of them, in dB."""
        ratios = []
        for name in self.observed.tensors:
            noise = float(np.square(other.values[name] - self.values[name]).sum())
            signal = float(np.square(self.values[name]).sum())
            ratios.append(10 * np.log10(signal / noise) if noise and signal else np.inf)
        return float(min(ratios, default=np.inf))
