"""A mode: how to edit a model, and how to compute the expected output of the result.

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
    """The expected z and y of a pruned model, in float64, in the shapes that the model returns."""

    z: Array
    y: Array


class Edits(Protocol):
    """Head, kept units, resolved semantics -> the edits of the file."""

    def __call__(
        self, head: Head, kept: Sequence[int], semantics: Semantics = PLAIN, /
    ) -> tuple[Edit, ...]: ...


class Oracle(Protocol):
    """Head, kept units, the original's z, resolved semantics -> the expected z and y.

    `present` are the units that have a position in the result, kept or not; None for all that the
    mode leaves. An earlier or later cut may have removed some of them.
    """

    def __call__(
        self,
        head: Head,
        kept: Sequence[int],
        z: Array,
        semantics: Semantics = PLAIN,
        present: Sequence[int] | None = None,
        /,
    ) -> Expected: ...


@dataclass(frozen=True)
class ModeFunctions:
    """The functions of a mode; its module holds them as `FUNCTIONS`.

    Attributes:
        edits: how to edit.
        oracle: computes the expected output.
        resolve: fills in what the head decides about the semantics that the user asked for; raises
            UsageError where they contradict the head or the mode, ModelError where the head cannot
            be edited that way.
        other_output_edits: the edits after another output that contains the same units.
    """

    edits: Edits
    oracle: Oracle
    resolve: Callable[[Head, Semantics], Semantics]
    other_output_edits: Edits = lambda _head, _kept, _semantics=PLAIN, /: ()


@dataclass(frozen=True)
class Mode:
    """One way to remove units.

    Attributes:
        summary: one line of help.
        module: name of the module that holds its `FUNCTIONS`, imported on first use.
        narrows: the output has one position for each kept unit, instead of one for each unit.
        keeps_share: removed units keep a share of the probability under a softmax.
        edits_all_kept: the mode edits the model even if all units are kept.
    """

    summary: str
    module: str
    narrows: bool = False
    keeps_share: bool = False
    edits_all_kept: bool = False

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
    def other_output_edits(self) -> Edits:
        return self.functions.other_output_edits
