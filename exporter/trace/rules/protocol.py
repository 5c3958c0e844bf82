"""The input of a rule, and the facts that it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal, NamedTuple

from exporter.graph import Graph, Node, Shape
from exporter.trace.unit_axis import Junction, UnitAxis, Width


class Port(NamedTuple):
    """One input or output of a node."""

    side: Literal["input", "output"]
    slot: int


FIRST_INPUT, FIRST_OUTPUT = Port("input", 0), Port("output", 0)


@dataclass(frozen=True, eq=False)
class Visit:
    """A node, and the unit axis of one of its inputs or outputs.

    Attributes:
        known: tensor -> its unit axis, as far as the walk has found them.
    """

    graph: Graph
    node: Node
    port: Port
    unit_axis: UnitAxis
    known: Mapping[str, UnitAxis] = field(default_factory=dict)

    def known_axis(self, port: Port) -> UnitAxis | None:
        """The unit axis of an input or output, if the walk has found it."""
        return self.known.get(self.tensor(port))

    def tensor(self, port: Port) -> str:
        return (self.node.inputs if port.side == "input" else self.node.outputs)[port.slot]

    def width(self, port: Port, axis: int) -> int:
        """The length of an axis; refused where it is not known."""
        length = self.shape(port)[axis]
        if length is None:
            raise self._unknown_shape(port)
        return length

    def shape(self, port: Port) -> Shape:
        """The shape of an input or output; refused where not even its rank is known."""
        shape = self.graph.tensors[self.tensor(port)].shape
        if shape is None:
            raise self._unknown_shape(port)
        return shape

    def states(
        self,
        place: str | int,
        value: tuple[int, ...],
        entry: int | None,
        offset: int = 0,
        port: Port = FIRST_OUTPUT,
    ) -> Width:
        """The fact that an attribute, or the constant at a slot, states the width of a port."""
        constant = self.node.inputs[place] if isinstance(place, int) else None
        return Width(self.node.name, place, constant, value, entry, self.tensor(port), offset)

    def refuse(self, reason: str, hint: str = "") -> Refused:
        return Refused(self.node, reason, hint)

    def _unknown_shape(self, port: Port) -> Refused:
        return self.refuse(f"the shape of its {port.side} {self.tensor(port)!r} is not known")


class UnitsAt(NamedTuple):
    """The fact that an input or output has this unit axis."""

    port: Port
    unit_axis: UnitAxis
    zero: float | None = None  # see UnitConstant.zero


class Reading(Enum):
    """The fact that the node reads the units, and how; its results have no unit axis."""

    RANKING = auto()
    DETECTION = auto()
    GATHER = auto()  # of units at computed positions
    MAXIMUM = auto()
    LOOKUP = auto()  # of rows of a table: its rows are the units


Fact = UnitsAt | Width | Junction | Reading
Rule = Callable[[Visit, Any], Iterator[Fact]]  # the second argument is the node's operation


RAW = (
    "export the model without its post-process, so that it returns class values, or cut it before "
    "the post-process is added"
)
"""The hint where the rows of a detector cannot follow a cut."""


class Refused(Exception):  # noqa: N818 - an answer of a rule, not an error of the program
    """The unit axis cannot pass an operation."""

    def __init__(self, node: Node | None, reason: str, hint: str = "") -> None:
        super().__init__(f"{node}: {reason}" if node else reason)
        self.node = node
        self.reason = reason
        self.hint = hint
