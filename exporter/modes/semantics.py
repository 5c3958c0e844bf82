"""What changes the meaning of a cut, beside mode and units: asked for, settled, recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from exporter.errors import UsageError

PROBABILITIES = ("renormalized", "absolute")

# Values of `gate` that add an input to the model, instead of a condition on the values:
INPUT = "input"  # bool, one value a unit
INPUT_FLOAT = "input:float"  # float32; above 0.5 means on


@dataclass(frozen=True)
class Semantics:
    """What the options of a cut say of the answers.

    The mode resolves what a user asks for against a head (`Mode.resolve`). The remap records it,
    and read from there when the file is verified: the plan and the oracle see settled ones alone.

    Attributes:
        probabilities: "renormalized" shares out among the kept units; "absolute" lets each of them
            answer as in the original, which needs all units for the sum.
        restore_width: the head is narrow (or whole, where absolute), and the output has the
            original's width; removed units answer `floor`, or 0.
        for_quantization: the model will be quantized later: no value may stand out.
        floor: the real value that stands for removed units which still have a place, but show no
            probability: at z, or where the width is restored, in the output. None where no removed
            unit has a place, or where they are 0.
        merge: name of a group -> its members, units that stand side by side and answer as one.
        gate: how units are chosen while the model runs: `INPUT`, `INPUT_FLOAT`, or a condition;
            None where they are not.

    Raises:
        UsageError: no such kind of probabilities.
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
                f"there are no probabilities {self.probabilities!r}",
                f"they are {' or '.join(PROBABILITIES)}",
            )

    @property
    def absolute(self) -> bool:
        return self.probabilities == "absolute"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The meaning that the options of a head's table tell."""
        return cls(
            probabilities=options.get("probabilities") or "renormalized",
            restore_width=bool(options.get("restore_width")),
            floor=options.get("floor"),
            merge=options.get("merge") or {},
            gate=options.get("gate"),
        )

    def options(self) -> dict[str, Any]:
        """Entries for the options of a head's table (`remap.table.OPTIONS`), None where unused."""
        return {
            "probabilities": self.probabilities if self.absolute else None,
            "restore_width": self.restore_width or None,
            "floor": self.floor,
            "merge": dict(self.merge) or None,
            "gate": self.gate,
        }


PLAIN = Semantics()
