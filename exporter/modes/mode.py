"""A mode: how to edit a model, and how to compute what the result must return.

This module and the table of modes import no NumPy, because the command line reads the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from exporter.modes.semantics import PLAIN, Semantics

if TYPE_CHECKING:
    from exporter.graph import Array
    from exporter.graph.edits import Edit
    from exporter.trace.head import Head


@dataclass(frozen=True, eq=False)
class Expected:
    """What a pruned model must answer, in float64; shapes as the model returns them."""

    z: Array
    y: Array


class Edits(Protocol):
    """Head, kept units and settled meaning -> what to change in the file."""

    def __call__(
        self, head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
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
        semantics: Semantics = PLAIN,
        places: Sequence[int] | None = None,
        /,
    ) -> Expected: ...


@dataclass(frozen=True)
class ModeFunctions:
    """The functions of a mode; its module holds them as `FUNCTIONS`.

    Attributes:
        edits: how to edit.
        oracle: what the result must return.
        resolve: fills in what the head decides about the semantics that the user asked for; raises
            UsageError where they contradict the head or the mode, ModelError where the head cannot
            be edited that way.
        beside: how to edit behind another output that shows the same units.
    """

    edits: Edits
    oracle: Oracle
    resolve: Callable[[Head, Semantics], Semantics]
    beside: Edits = lambda _head, _kept, _meaning=PLAIN, /: ()


@dataclass(frozen=True)
class Mode:
    """One way to remove units.

    Attributes:
        summary: one line of help.
        module: name of the module that holds its `FUNCTIONS`, imported on first use.
        narrows: the output has one position for each kept unit, instead of one for each unit.
        shares: removed units keep a share of what is shared out, as under a softmax.
        alters_all: there is something to edit where all units are kept.
    """

    summary: str
    module: str
    narrows: bool = False
    shares: bool = False
    alters_all: bool = False

    @property
    def functions(self) -> ModeFunctions:
        functions: ModeFunctions = import_module(self.module).FUNCTIONS
        return functions

    @property
    def edits(self) -> Edits:
        return self.functions.edits

    @property
    def oracle(self) -> Oracle:
        return self.functions.oracle

    @property
    def resolve(self) -> Callable[[Head, Semantics], Semantics]:
        return self.functions.resolve

    @property
    def beside(self) -> Edits:
        return self.functions.beside
