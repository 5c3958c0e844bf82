"""What a mode is: how to edit, and what the result must then answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporter.graph import Array
from exporter.graph.edits import Edit
from exporter.modes.semantics import PLAIN, Semantics
from exporter.trace.head import Head


@dataclass(frozen=True, eq=False)
class Expected:
    """What a pruned model must answer, in float64; shapes as the model returns them."""

    z: Array
    y: Array


class Edits(Protocol):
    """Head, kept units and settled meaning -> what to change in the file."""

    def __call__(
        self, head: Head, kept: Sequence[int], meaning: Semantics = PLAIN, /
    ) -> tuple[Edit, ...]: ...


class Oracle(Protocol):
    """Head, kept units, the original's z and settled meaning -> the z and y of the result.

    `places` are the units that have a place in the result, alive or not: fewer than the mode leaves
    where an earlier or a later cut took some away. None where it is all that the mode leaves.
    """

    def __call__(
        self,
        head: Head,
        kept: Sequence[int],
        z: Array,
        meaning: Semantics = PLAIN,
        places: Sequence[int] | None = None,
        /,
    ) -> Expected: ...


@dataclass(frozen=True)
class Mode:
    """One way to remove units.

    Attributes:
        summary: one line for people.
        edits: how to edit.
        oracle: what the result must answer.
        settle: the meaning that a wish has on a head, with what the head decides filled in; raises
            UsageError where the wish contradicts the head or the mode, ModelError where the head
            cannot be had that way.
        narrows: the output has one position a kept unit instead of one a unit.
        alters_all: there is something to edit where all units are kept.
        beside: how to edit behind another output that shows the same units.
        shares: removed units keep a share of what is shared out, as under a softmax.
    """

    summary: str
    edits: Edits
    oracle: Oracle
    resolve: Callable[[Head, Semantics], Semantics]
    narrows: bool
    shares: bool
    alters_all: bool = False
    beside: Edits = lambda _head, _kept, _meaning=PLAIN, /: ()
