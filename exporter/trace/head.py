"""A head: which constants make the units of one output, and what narrows with them. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from exporter.graph import Array, Node, Quantization, Shape, Use
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation


@dataclass(frozen=True, eq=False)
class UnitAxis:
    """One axis of a tensor, and the unit that each position on it belongs to.

    Attributes:
        axis: counted from the front, never negative.
        units: int64, one entry a position; -1 marks a position that belongs to no unit.
    """

    axis: int
    units: Array  # (positions,)

    def same(self, other: UnitAxis) -> bool:
        return self.axis == other.axis and np.array_equal(self.units, other.units)

    def at(self, axis: int) -> UnitAxis:
        """The same labels on another axis."""
        return UnitAxis(axis, self.units)

    def positions(self, kept: Sequence[int]) -> Array:
        """The positions that stay for the kept units, in the order in which they then stand.

        Positions without a unit stay where they are. Units in another than ascending order change
        places with each other, occurrence by occurrence, so that repeated blocks (anchors) stay
        whole.
        """
        chosen = np.asarray(kept, dtype=np.int64)
        chosen = chosen[np.isin(chosen, self.units)]  # a part of an axis lacks some of them
        ascending = np.sort(chosen)
        stay = np.flatnonzero((self.units < 0) | np.isin(self.units, ascending))
        if np.array_equal(chosen, ascending):
            return stay
        goes_to = dict(zip(ascending.tolist(), chosen.tolist(), strict=True))
        places = {unit: np.flatnonzero(self.units == unit) for unit in goes_to}
        seen = dict.fromkeys(goes_to, 0)
        result = stay.copy()
        for i, position in enumerate(stay):
            unit = int(self.units[position])
            if unit >= 0:
                result[i] = places[goes_to[unit]][seen[unit]]
                seen[unit] += 1
        return result

    def removed(self, kept: Sequence[int]) -> Array:
        """The positions of units that are not kept, ascending."""
        return np.flatnonzero((self.units >= 0) & ~np.isin(self.units, np.asarray(kept)))


@dataclass(frozen=True, eq=False)
class UnitTensor:
    """A computed tensor that narrows with the head."""

    name: str
    shape: Shape
    dtype: str
    unit_axis: UnitAxis
    quantization: Quantization | None = None


@dataclass(frozen=True, eq=False)
class UnitConstant:
    """A constant that is cut with the head, as seen by the uses that agree on its labels.

    Attributes:
        zero: what a removed unit's entries are filled with so that its value becomes 0; None where
            they may stay as they are (scales, variances).
        quantization: what its codes stand for.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    unit_axis: UnitAxis
    uses: tuple[Use, ...]
    zero: float | None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Width:
    """A number in the file that states the width of a labeled axis.

    Attributes:
        node: the node that carries it, in an attribute or in a constant input.
        place: the attribute's name, or the slot of the constant.
        constant: the constant's name, where it stands in one.
        value: the whole attribute or constant as it stands.
        entry: where in `value` the width stands; None where the value is the width itself.
        tensor: the labeled tensor whose axis it states.
        offset: how much larger than the width the number is.
    """

    node: str
    place: str | int
    constant: str | None
    value: tuple[int, ...]
    entry: int | None
    tensor: str
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Junction:
    """A node that joins a labeled axis out of parts, or takes it apart.

    Attributes:
        stops: where on the whole axis the parts end.
    """

    node: Node
    whole: UnitAxis
    stops: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Ranking:
    """A node that ranks the units: an argmax, a top-k.

    Attributes:
        node: its operation is a TopK.
        source: the labeled tensor whose units it ranks.
        stated: where the file states how many it returns; None where it returns one.
        ids: the nodes that hand its ids on, in running order, itself in front.
        outputs: those of the model that hold ids.
        carried: those in which some of the ids stand, taken at computed places or beside other
            values.
        lengths: tensor -> the axis on which it has one position a rank.
        shapes: of the tensors in `lengths`, and of those that hold ids.
        fixed: a node behind it that counts on the number of ranks.
        divided: the nodes that divide places of units, which stand in one line, row by row, by the
            number of units; what is left are ids.
        counts: where the file states that number; nowhere if it measures it while it runs.
        tables: constants in which the ids are looked up; they are cut with the units.
        looked_up: the outputs of the model that hold what stands there.
    """

    node: Node
    source: str
    stated: Width | None
    ids: tuple[Node, ...]
    outputs: tuple[str, ...]
    carried: tuple[str, ...]
    lengths: Mapping[str, int]
    shapes: Mapping[str, Shape]
    fixed: Node | None = None
    divided: tuple[Node, ...] = ()
    counts: tuple[Width, ...] = ()
    tables: tuple[UnitConstant, ...] = ()
    looked_up: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Detection:
    """A post-process that ranks boxes by their classes' values.

    Attributes:
        node: its operation is a NonMaxSuppression.
        source: the labeled tensor with the classes' values.
        ids: the outputs of the model that hold class numbers.
        rows: the outputs of the model that hold boxes, class numbers, scores and their count; None
            where not all of them are returned.
        behind: all outputs of the model that depend on it.
        tables: constants in which the class numbers are looked up; they are cut with the classes.
    """

    node: Node
    source: str
    ids: tuple[str, ...]
    rows: tuple[str, str, str, str] | None
    behind: tuple[str, ...]
    tables: tuple[UnitConstant, ...] = ()


@dataclass(frozen=True, eq=False)
class Readers:
    """The nodes that read the units of a head and return indices of units, or boxes.

    Attributes:
        rankings: each an argmax or a top-k over the units.
        detections: each the post-process of a detector that ranks boxes by the units.
        from_maximum: outputs of a post-process that reads only the largest value of each box;
            which rows they contain after a cut depends on the input.
    """

    rankings: tuple[Ranking, ...] = ()
    detections: tuple[Detection, ...] = ()
    from_maximum: tuple[str, ...] = ()

    @property
    def id_outputs(self) -> tuple[str, ...]:
        """The outputs of the model that contain unit indices."""
        ranked = (name for each in self.rankings for name in (*each.outputs, *each.carried))
        detected = (name for each in self.detections if not each.tables for name in each.ids)
        return (*ranked, *detected)

    @property
    def detector_outputs(self) -> tuple[str, ...]:
        """The outputs of the model that are computed from a post-process."""
        behind = (name for each in self.detections for name in each.behind)
        return tuple(dict.fromkeys((*behind, *self.from_maximum)))

    @property
    def tables(self) -> tuple[UnitConstant, ...]:
        """The constants in which unit indices are looked up."""
        ranked = (table for each in self.rankings for table in each.tables)
        return (*ranked, *(table for each in self.detections for table in each.tables))


@dataclass(frozen=True, eq=False)
class Factor:
    """What scales probabilities, read out of a constant.

    Attributes:
        by: float64, one entry a position on the unit axis.
        tensors: computed, out of the constant alone: they hand it on.
    """

    by: Array  # (positions,)
    tensors: tuple[str, ...]


class AxisPart(NamedTuple):
    """A stretch of a unit axis: the units, or what shares the axis with them."""

    name: str  # "classes", "box", "object", "background"; "other" where nothing tells
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.name} {self.start}:{self.stop}"


@dataclass(frozen=True, eq=False)
class Head:
    """What makes the units of one output, from the linear operations to the output.

    Attributes:
        name: how people call it: the output's name, with ":axis" where several axes could be units,
            or that of the node that ranks the units where no output shows them.
        output: the output that shows the units; an inner tensor where only ids are returned.
        axis: the output's unit axis.
        units: how many units there are.
        activation: name of the last activation, "linear" where there is none.
        z: the tensor of values before that activation; the output itself where there is none.
        body: the labeled nodes that make z, the linear ones among them, in running order.
        tail: the nodes from z to the output: the activation, what only moves positions, and what
            scales probabilities.
        other_outputs: further outputs of the model that show the same units and narrow with them.
        labels: one a unit, where the file carries them.
        junctions: where parts of the unit axis meet.
        readers: nodes after the output, or after z, that read the units and return indices.
        axis_parts: of the output's unit axis, in its order; none where all of it are units.
        factors: node of the tail that scales probabilities -> by what.
    """

    name: str
    output: str
    axis: int
    units: int
    activation: str
    z: str
    tensors: tuple[UnitTensor, ...]
    constants: tuple[UnitConstant, ...]
    widths: tuple[Width, ...]
    body: tuple[Node, ...] = field(repr=False)
    tail: tuple[Node, ...] = field(repr=False)
    other_outputs: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    junctions: tuple[Junction, ...] = ()
    readers: Readers = field(default_factory=Readers)
    axis_parts: tuple[AxisPart, ...] = ()
    factors: Mapping[str, Factor] = field(default_factory=dict, repr=False)

    def tensor(self, name: str) -> UnitTensor:
        """The labeled tensor of that name; KeyError if the head does not label it."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    @cached_property
    def producers(self) -> Mapping[str, tuple[Node, int]]:
        """Tensor name -> the node of body or tail that computes it, and the slot of its output."""
        nodes = (*self.body, *self.tail)
        return {name: (node, slot) for node in nodes for slot, name in enumerate(node.outputs)}

    @property
    def competes(self) -> bool:
        """Does each answer depend on all units, as under a softmax over them?"""
        return any(
            isinstance(node.operation, Activation)
            and ACTIVATIONS[node.operation.function].mixes
            and node.operation.axis == self.tensor(node.outputs[0]).unit_axis.axis
            for node in self.tail
        )

    @property
    def unit_range(self) -> tuple[int, int] | None:
        """Where the units stand on the output's axis, if other things share it."""
        units = self.tensor(self.output).unit_axis.units
        where = np.flatnonzero(units >= 0)
        if len(where) == len(units):
            return None
        return int(where[0]), int(where[-1]) + 1
