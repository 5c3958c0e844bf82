"""The options that change what the output of a pruned model means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from exporter.errors import UsageError

PROBABILITIES = ("renormalized", "absolute")

# Values of `gate` that add an input to the model, instead of a condition on the values:
INPUT = "input"  # bool, one value for each unit
INPUT_FLOAT = "input:float"  # float32; above 0.5 means on


@dataclass(frozen=True)
class Semantics:
    """The options of a cut, besides mode and units, that change what the output means.

    A mode resolves them for a head (`Mode.resolve`); the plan and the oracle get resolved ones. The
    remap records them for verification.

    Attributes:
        probabilities: "renormalized": the probabilities of the kept units add up to 1; "absolute":
            they are those of the original, so that the head still computes all units.
        restore_width: the head is cut and the output padded to its original width.
        for_quantization: the model will be quantized: no value may be far from the others.
        floor: the real value of removed units that keep a position: at z, or with `restore_width`
            in the output. None if no removed unit keeps a position, or if their value is 0.
        merge: name of a group -> its members, which are kept next to each other and become one.
        gate: `INPUT`, `INPUT_FLOAT` or a condition that chooses units while the model runs.

    Raises:
        UsageError: an unknown kind of probabilities.
    """

    probabilities: str = "renormalized"
    restore_width: bool = False
    for_quantization: bool = False
    floor: float | None = None
    merge: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    gate: str | None = None

    def __post_init__(self) -> None:
        if self.probabilities not in PROBABILITIES:
            raise UsageError(
                f"unknown probabilities: {self.probabilities!r}",
                f"write {' or '.join(PROBABILITIES)}",
            )

    @property
    def absolute(self) -> bool:
        return self.probabilities == "absolute"

    @cached_property
    def group_of(self) -> dict[int, tuple[int, ...]]:
        """Unit -> the members of its group, for units in a group."""
        return {unit: members for members in self.merge.values() for unit in members}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The semantics that a remap records in the options of a head."""
        return cls(
            probabilities=options.get("probabilities") or "renormalized",
            restore_width=bool(options.get("restore_width")),
            floor=options.get("floor"),
            merge=options.get("merge") or {},
            gate=options.get("gate"),
        )

    def options(self) -> dict[str, Any]:
        """The entries of a remap's options (`remap.head_remap.OPTIONS`); None for unused ones."""
        return {
            "probabilities": self.probabilities if self.absolute else None,
            "restore_width": self.restore_width or None,
            "floor": self.floor,
            "merge": dict(self.merge) or None,
            "gate": self.gate,
        }


PLAIN = Semantics()
