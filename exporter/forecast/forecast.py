"""The record of a forecast: plain data, part of the schemas `exporter/plan/1` and
`exporter/inspect/1`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from exporter.forecast.footprint import MemoryEstimate
from exporter.forecast.verdict import Change, LatencyBound, joint_verdict, verdict
from exporter.planning.cut import Cut, HeadCut


@dataclass(frozen=True)
class Counts:
    """What a model consists of.

    Attributes:
        bytes: of its files together; None for a live model.
        parameters: see `footprint.count_parameters`.
        multiply_adds: of its linear operations for one sample; None if any count is not known.
        memory: an estimate for one run.
    """

    bytes: int | None
    parameters: int
    multiply_adds: int | None
    memory: MemoryEstimate

    def to_dict(self) -> dict[str, Any]:
        """The values, with the sum of the memory."""
        record = asdict(self)
        record["memory"] = {"method": "estimate", "bytes": self.memory.bytes, **record["memory"]}
        return record


@dataclass(frozen=True)
class FileForecast:
    """One file that a job would write, next to the uncut model.

    Attributes:
        kind, precision: of the file.
        counts: of the file.
        original: of the uncut model of this kind, in the precision that it has.
        is_exact: the file was made as the job makes it. If not, its ranges were calibrated on
            other inputs, which changes the size by a few bytes.
        bound: of the latency, against the uncut model in the same precision.
    """

    kind: str
    precision: str
    counts: Counts
    original: Counts
    is_exact: bool
    bound: LatencyBound

    @property
    def name(self) -> str:
        """Kind and precision."""
        return f"{self.kind} {self.precision}"

    @property
    def change(self) -> Change:
        return Change(self.counts.bytes or 0, self.original.bytes, self.bound)

    def to_dict(self) -> dict[str, Any]:
        """One entry of `files`."""
        return {
            "kind": self.kind,
            "precision": self.precision,
            "exact": self.is_exact,
            **self.counts.to_dict(),
            "original": self.original.to_dict(),
            "latency": {
                **asdict(self.bound),
                "speedup_bound": self.bound.speedup,
                "strict": self.bound.is_strict,
            },
            "verdict": verdict(self.change),
        }


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a cut will bring.

    Attributes:
        kind: of the model that the edits change.
        cut: selected units and edits.
        files: one for each format and precision.
        warnings: one sentence each.
    """

    kind: str
    cut: Cut
    files: tuple[FileForecast, ...]
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> tuple[str, ...]:
        """The verdict on all files, in few lines."""
        return joint_verdict({file.name: file.change for file in self.files})

    def to_dict(self) -> dict[str, Any]:
        """One entry of `plans` in the record `exporter/plan/1`."""
        cut = self.cut
        heads = [_head(part) for part in cut.parts]
        return {
            **heads[0],
            "heads": heads,
            "mode": cut.mode,
            "edits": [str(edit) for edit in cut.plan.every_edit],
            "remap": json.loads(cut.remap.to_json()),
            "warnings": list(self.warnings),
            "verdict": list(self.verdict),
            "files": [file.to_dict() for file in self.files],
        }


def _head(part: HeadCut) -> dict[str, Any]:
    selection = part.selection
    return {
        "head": part.heads[0].name,
        "units": selection.units,
        "kept": list(selection.kept),
        "kept_labels": selection.kept_labels and list(selection.kept_labels),
    }
