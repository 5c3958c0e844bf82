"""What every kind of model can do, whichever file format it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from exporter.graph import Array, Graph
from exporter.graph.edits import Plan
from exporter.remap import Remap
from exporter.trace.head import Head


@dataclass(frozen=True)
class RunOptions:
    """How a runtime executes a model; both sides of a comparison use the same.

    Attributes:
        threads: within one operation.
        batch: leading dimension where the file leaves it open; a file with a fixed one keeps it.
    """

    threads: int = 1
    batch: int = 1


class Runner(Protocol):
    """A model loaded into its runtime."""

    engine: str  # name and version, such as "onnxruntime 1.31.1"

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run: input name -> values with the batch in front, output name -> values.

        Outputs keep the runtime's dtype (integers are codes, not dequantized).
        """


class Model(Protocol):
    """A model file, opened. Never changed: `apply` gives a new one."""

    kind: str  # key of models.KINDS
    name: str  # the file's name, or the live model's
    sha256: str | None  # of the file; None for a live model
    precision: str  # "fp32", "fp16", "int8", ...
    remap: Remap | None  # carried by a model that was cut before

    def graph(self) -> Graph:
        """The neutral picture; drawn once."""

    def apply(self, plan: Plan) -> Self:
        """A new model with the plan's edits made and its remap inside; this one stays as it is."""

    def runner(self, options: RunOptions) -> Runner:
        """Load the model into its runtime."""

    def write(self, path: Path) -> None:
        """Write the file at exactly this path. Use `files.save` to have it appear whole."""


def unit_labels(model: Model, head: Head) -> tuple[str, ...] | None:
    """One label a unit: those that the format carries, else those of an earlier cut's remap."""
    if head.labels is not None or model.remap is None:
        return head.labels
    for table in model.remap.heads:
        if table.name == head.name and table.new_units == head.units:
            return table.labels
    return None
