"""The outputs of a network on samples, and how much those of another network differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exporter.data.samples import Samples
from exporter.errors import ModelError
from exporter.formats.model import Model, RunOptions
from exporter.graph import Array, Graph
from exporter.trace import trace
from exporter.trace.head import Head
from exporter.trimming.network import batches, values_of

_NOT_FINITE = 1e6  # larger than any error of finite values


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
    """The values of one network on samples: tensor -> (samples, ...) float64.

    Raises:
        ModelError: the shape of an output depends on the values of the samples.
    """

    def __init__(
        self, model: Model, observed: Observed, samples: Samples, options: RunOptions
    ) -> None:
        feeds = batches(samples, model.graph())
        found: dict[str, list[Array]] = {name: [] for name in observed.all}
        for values in values_of(model, observed.all, feeds, options):
            for name, each in values.items():
                found[name].append(np.atleast_1d(np.asarray(each, np.float64)))
        for name, parts in found.items():
            if len({part.shape[1:] for part in parts}) > 1:
                raise _varies(name)
        self.values = {name: np.concatenate(each) for name, each in found.items()}
        self.observed = observed

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(values).all() for values in self.values.values())

    def _pairs(self, other: Answers) -> Iterator[tuple[str, Array, Array]]:
        for name in self.observed.tensors:
            if self.values[name].shape != other.values[name].shape:
                raise _varies(name)
            yield name, self.values[name], other.values[name]

    def error(self, other: Answers) -> float:
        """The mean squared difference of another network, as a share of the variance; the mean of
        all tensors. What a softmax ignores (a number that is added to all logits) does not count.
        A network that returns NaN or infinite values has a large error.
        """
        if not other.is_finite:
            return _NOT_FINITE
        found = []
        for name, *pair in self._pairs(other):
            expected, actual = pair
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
        every head; None without a head. NaN agrees with nothing.
        """
        shares = []
        for head in self.observed.heads:
            axis = head.tensor(head.output).unit_axis.axis
            actual = other.values[head.output]
            same = (self.first[head.name] == actual.argmax(axis)) & ~np.isnan(actual).any(axis)
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
        for _, expected, actual in self._pairs(other):
            noise = float(np.square(actual - expected).sum())
            signal = float(np.square(expected).sum())
            ratios.append(10 * np.log10(signal / noise) if noise and signal else np.inf)
        return float(min(ratios, default=np.inf))


def _varies(name: str) -> ModelError:
    return ModelError(
        f"the shape of {name!r} depends on the values of the samples, so that trimmed networks "
        "cannot be compared by it",
        "trim the part of the model before the selection of its results",
    )
