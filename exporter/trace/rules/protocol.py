"""What a rule is given, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from exporter.graph import Graph, Node, Shape
from exporter.trace.head import UnitAxis


class Port(NamedTuple):
    """One end of a node."""

    side: Literal["input", "output"]
    slot: int


@dataclass(frozen=True, eq=False)
class Visit:
    """A node, and the labels known at one of its ends."""

    graph: Graph
    node: Node
    port: Port
    unit_axis: UnitAxis
    known: Mapping[str, UnitAxis] = field(default_factory=dict)  # what is labeled by now

    def label(self, port: Port) -> UnitAxis | None:
        """The labels that an end has by now."""
        return self.known.get(self.tensor(port))

    def tensor(self, port: Port) -> str:
        return (self.node.inputs if port.side == "input" else self.node.outputs)[port.slot]

    def width(self, port: Port, axis: int) -> int:
        """The length of an end along an axis; refuses where it is not known."""
        length = self.shape(port)[axis]
        if length is None:
            raise self.refuse(f"the shape of its {port.side} {self.tensor(port)!r} is not known")
        return length

    def shape(self, port: Port) -> Shape:
        shape = self.graph.tensors[self.tensor(port)].shape
        if shape is None:
            raise self.refuse(f"the shape of its {port.side} {self.tensor(port)!r} is not known")
        return shape

    def refuse(self, reason: str, hint: str = "") -> Refused:
        return Refused(self.node, reason, hint)


class UnitsAt(NamedTuple):
    """A rule's answer: these labels stand at that end."""

    port: Port
    unit_axis: UnitAxis
    zero: float | None = None  # see UnitConstant.zero


class States(NamedTuple):
    """A rule's answer: a number in the file states the width of an output's unit axis."""

    place: str | int  # an attribute's name, or the slot of a constant
    value: tuple[int, ...]
    entry: int | None
    offset: int = 0  # the number is this much larger than the width
    output: int = 0  # whose width it is
    node: str | None = None  # whose attribute or constant it is; None for the node itself
    input: int | None = None  # whose width it is, where it is none of the outputs


class Parts(NamedTuple):
    """A rule's answer: the node joins these labels out of parts, or takes them apart."""

    whole: UnitAxis
    stops: tuple[int, ...]  # where the parts end


class Ranks(NamedTuple):
    """A rule's answer: the node ranks the units; what it returns are their ids and values."""


class Detects(NamedTuple):
    """A rule's answer: the units are the classes that a post-process ranks boxes by."""


class Fetches(NamedTuple):
    """A rule's answer: the node takes values of units at places that are computed."""


class Peaks(NamedTuple):
    """A rule's answer: the node keeps the largest of the units' values."""


Fact = UnitsAt | States | Parts | Ranks | Detects | Fetches | Peaks
Rule = Callable[[Visit], Iterator[Fact]]


RAW = (
    "export the model without its post-process, with its class values as they are, or cut it "
    "before that is added"
)
"""What to do where the rows of a detector cannot follow a cut."""


class Refused(Exception):  # noqa: N818 - an answer of a rule, not an error of the program
    """A rule cannot let the unit axis pass."""

    def __init__(self, node: Node | None, reason: str, hint: str = "") -> None:
        super().__init__(f"{node}: {reason}" if node else reason)
        self.node = node
        self.reason = reason
        self.hint = hint
