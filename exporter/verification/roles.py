"""How two models are compared: comparers yield values, and a role decides which limit applies.

For example, the head comparer yields the logits of both models with the role "z". The row "z" of
`ROLES` says that they are measured by all metrics of the stage, within the limit `z` of `LIMITS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from exporter.formats.model import Model
from exporter.graph import Array, Graph
from exporter.graph.edits import Plan
from exporter.remap import HeadRemap

Stage = Literal["cut", "export", "quantize"]
Answers = Mapping[str, Array]  # tensor -> values, as the runtime returns them


@dataclass(frozen=True, eq=False)
class ModelPair:
    """The two models that are compared.

    Attributes:
        stage: "cut" if both have the same kind and precision, "export" if the original is a Keras
            model, "quantize" if the pruned model has a lower precision.
        pruned: the pruned, converted or quantized model.
        masks: which units are on in each sample, (samples, units) bool; None unless the pruned
            model has a gate that reads a mask from an input.
    """

    stage: Stage
    original: Model
    pruned: Model
    masks: Array | None = None

    @property
    def graphs(self) -> tuple[Graph, Graph]:
        return self.original.graph(), self.pruned.graph()


@dataclass(frozen=True, eq=False)
class Runs:
    """What both models returned for a block of samples.

    Attributes:
        original, pruned: (samples, ...) for each tensor that has one shape in all samples.
        pruned_samples: all outputs of the pruned model, sample by sample.
        in_quantized_values: count quantized tensors in steps of their scale, not in real values.
        rerun: runs the original with a plan, and with further inputs for each sample.
        first: how many samples are in the blocks before.
    """

    original: Answers
    pruned: Answers
    pruned_samples: Sequence[Answers]
    in_quantized_values: bool
    rerun: Callable[[Plan, Iterable[Answers]], list[Answers]]
    first: int = 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Values of the pruned model, and the values that they must have.

    Attributes:
        output: the name in the report.
        expected, actual: (samples, ...).
        axis: the unit axis, counted with the samples.
        role: key of ROLES.
        precision: "int8" or "int16x8" if the values are quantized ones; "" for real values.
        added_units: how many units the activation adds up, as a softmax does; 0 if it does not.
        units: the unit of each position on the axis, as an index of the first original; -1 for a
            value of no unit; None if not known.
        table: how the head was cut; None if the values are not of a head.
        is_empty: in these samples, there is no value of this role.
    """

    output: str
    expected: Array
    actual: Array
    axis: int
    role: str
    precision: str = ""
    added_units: int = 0
    units: Array | None = None
    table: HeadRemap | None = None
    is_empty: bool = False


@dataclass(frozen=True)
class WrongRows:
    """How many rows of a detector are wrong; None if the pruned model does not return them.

    Attributes:
        output: the name in the report.
        metric: "rows", "classes" or "boxes".
    """

    output: str
    metric: str
    count: int | None


class Comparer(ABC):
    """Compares one thing that both models have, such as a head or an output with indices."""

    @abstractmethod
    def tensors(self) -> tuple[Iterable[str], Iterable[str]]:
        """The tensors to read in the original and in the pruned model, outputs or not."""

    @abstractmethod
    def compare(self, runs: Runs) -> Iterator[Comparison | WrongRows]:
        """Everything that must agree: the same outputs, in the same order, for each block."""


@dataclass(frozen=True)
class TensorComparer(Comparer):
    """Compares a tensor that was not cut.

    Attributes:
        name: in the original.
        new_name: in the pruned model.
        axis: of the units; None if it is not known, or if the tensor has none.
        role: key of ROLES.
    """

    name: str
    new_name: str
    axis: int | None
    role: str
    pair: ModelPair

    def tensors(self) -> tuple[Iterable[str], Iterable[str]]:
        is_output = self.name == self.new_name and self.name in self.pair.graphs[0].outputs
        return ((), ()) if is_output else ((self.name,), (self.new_name,))

    def compare(self, runs: Runs) -> Iterator[Comparison]:
        expected = runs.original[self.name]
        actual = runs.pruned.get(self.new_name, np.empty(0))
        tensor = self.pair.graphs[1].tensors.get(self.new_name)
        if expected.dtype.kind in "OU":
            expected, actual = as_numbers(expected, actual)
        elif self.pair.stage != "cut" and tensor is not None:
            actual = tensor.dequantize(actual)
        axis = expected.ndim - 1 if self.axis is None else self.axis + 1  # after the samples
        yield Comparison(self.name, expected, actual, axis, self.role)


def as_numbers(expected: Array, actual: Array) -> tuple[Array, Array]:
    """Texts as numbers that are equal where the texts are."""
    texts = [np.asarray(each).astype(str) for each in (expected, actual)]
    every = np.unique(np.concatenate([each.ravel() for each in texts]))
    first, second = (np.searchsorted(every, each) for each in texts)
    return first, second


@dataclass(frozen=True)
class Role:
    """How values with one role are judged.

    Attributes:
        limit: "z", "y" or "probability", see `limits`.
        metrics: keys of METRICS; None for all metrics of the stage.
        equal_at: the stages at which the largest difference must be 0; the limit does not apply.
        is_fill: the same holds at all stages if all values that are expected are fill values.
    """

    limit: Literal["z", "y", "probability"] = "y"
    metrics: tuple[str, ...] | None = None
    equal_at: frozenset[Stage] = frozenset()
    is_fill: bool = False

    def must_be_equal(self, stage: Stage, distinct: int) -> bool:
        """Args: distinct: how many different values are expected."""
        return stage in self.equal_at or (self.is_fill and distinct <= FILL_VALUES)


FILL_VALUES = 2  # removed units return one constant, and a gate adds zeros between them

ROLES: Mapping[str, Role] = {
    "z": Role("z"),
    "y": Role(),
    "probability": Role("probability"),
    "removed": Role(metrics=("max_abs",), is_fill=True),
    "not pruned": Role(equal_at=frozenset({"cut"})),
    "boxes": Role(metrics=("sqnr_db", "max_abs")),  # boxes have no unit that ranks first
    "ids": Role(metrics=("max_abs",), equal_at=frozenset(get_args(Stage))),
}
