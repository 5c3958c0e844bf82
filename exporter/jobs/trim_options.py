"""The options of `trim`: how small the network becomes, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.planning.option import ADVANCED, option, options_of

MEASURES = {
    "multiply-adds": "of one sample",
    "parameters": "floats in the file",
    "latency": "measured; the slowest to find",
}

_trim = partial(option, section="Trim", commands=("trim", "run"))


def options_of_run(values: Mapping[str, Any]) -> TrimOptions | None:
    """The options of `run --trim`, from those of a command or a function; None without `trim`.

    Raises:
        UsageError: an option of trimmed files, and no `trim`.
    """
    defaults = {each.name: each.default for each in options_of(TrimOptions, "run")}
    given = {
        name: values[name] for name in defaults if values.get(name) not in {None, defaults[name]}
    }
    if not given.get("trim") and given:
        flag = next(iter(given)).replace("_", "-")
        raise UsageError(f"--{flag} is an option of trimmed files", "add --trim")
    return TrimOptions(**given) if given else None


@dataclass(frozen=True)
class TrimOptions:
    """How far a network is trimmed.

    Raises:
        UsageError: neither or both of target and min_agreement, or a number out of range.
    """

    trim: bool = _trim(
        False,
        "Also write a trimmed file for each pruned one, fitted on samples of --data: see "
        "docs/trim.md.",
        commands=("run",),
    )
    target: float | None = _trim(
        None, "Share of the network that stays, 0 to 1, by --by.", minimum=0, maximum=1
    )
    min_agreement: float | None = _trim(
        None,
        "Smallest network with at least this share of held-out samples that get the same first "
        "unit, 0 to 1.",
        minimum=0,
        maximum=1,
    )
    by: str = _trim("multiply-adds", "What --target is a share of.", choices=MEASURES)
    multiple: int = _trim(
        8, "Numbers of channels that stay are multiples of it.", minimum=1, section=ADVANCED
    )
    held_out: float = _trim(
        0.25,
        "Share of the samples to measure on; the others calibrate.",
        minimum=0,
        maximum=1,
        section=ADVANCED,
    )
    pareto: Path | None = _trim(
        None,
        "Write agreement by size to this .csv file, and a plot next to it (.svg).",
        commands=("trim",),
    )

    def __post_init__(self) -> None:
        if self.pareto is not None:
            object.__setattr__(self, "pareto", Path(self.pareto))
        if (self.target is None) == (self.min_agreement is None):
            raise UsageError(
                "how far to trim is not clear", "give either --target 0.5 or --min-agreement 0.99"
            )
        for name in ("target", "min_agreement", "held_out"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= (1 if name != "held_out" else 0.9):
                raise UsageError(f"{name} is {share}", "give a share between 0 and 1")
        if self.by not in MEASURES:
            raise UsageError(f"by is {self.by!r}", f"measures: {', '.join(MEASURES)}")
        if self.multiple < 1:
            raise UsageError(f"multiple is {self.multiple}", "give at least 1")
