"""The protocol of an opened model, which every format implements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, cast, runtime_checkable

from exporter.graph import Array, Graph
from exporter.graph.edits import Plan, RemoveOutputs
from exporter.graph.lengths import Lengths
from exporter.remap import HeadRemap, Remap
from exporter.trace.head import Head


@dataclass(frozen=True)
class RunOptions:
    """How a runtime executes a model; both sides of a comparison use the same options.

    Attributes:
        threads: within one operation.
        batch: leading dimension if the file leaves it open; a file with a fixed batch ignores it.
        provider: of onnxruntime, or delegate of LiteRT; "" for the default. See
            `exporter.ondevice.providers`.
    """

    threads: int = 1
    batch: int = 1
    provider: str = ""


class Runner(Protocol):
    """A model that is loaded into its runtime.

    Attributes:
        engine: name and version of the runtime, such as "onnxruntime 1.31.1".
    """

    engine: str

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once: input name -> (batch, ...), output name -> values.

        Outputs keep the dtype of the runtime: quantized values are not dequantized.
        """


@runtime_checkable
class ReadsAhead(Runner, Protocol):
    """A runner in another process, which several samples reach at once."""

    def run_each(self, inputs: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """See the function `run_each`."""


def run_each(runner: Runner, inputs: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """The outputs for each sample, in their order. Samples may be read ahead, a few MB of them.

    Raises:
        ExporterError: as the runner does, perhaps before the outputs of earlier samples.
    """
    return runner.run_each(inputs) if isinstance(runner, ReadsAhead) else map(runner, inputs)


class TimedRunner(Runner, Protocol):
    """A runner of a kind that is benchmarked."""

    def prepare(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Check and feed the inputs. The returned function only runs the model, and returns nothing
        useful; calling the runner ends its use.
        """


class Model(Protocol):
    """An opened model. It never changes: `apply` returns a new one.

    Attributes:
        kind: key of KINDS.
        name: of the file, or of the live model.
        sha256: of the file, in hex; None for a live model.
        precision: "fp32", "fp16", "int8", ...
        remap: of an earlier cut; None for an uncut model.
    """

    kind: str
    name: str
    sha256: str | None
    precision: str
    remap: Remap | None

    def graph(self) -> Graph:
        """The model as a neutral graph; made once."""

    def apply(self, plan: Plan) -> Self:
        """A new model with the edits of the plan and its remap."""

    def runner(self, options: RunOptions) -> Runner:
        """Load the model into its runtime."""

    def write(self, path: Path) -> None:
        """Write the file at exactly this path (`output.files` writes atomically)."""


Apply = TypeVar("Apply", bound=Callable[..., Any])


def in_turn(apply: Apply) -> Apply:
    """Decorate `apply` of a model, so that it applies the parts of a plan one after the other."""

    @wraps(apply)
    def applied(model: Any, plan: Plan) -> Any:
        first, *rest = plan.parts
        result = apply(model, first)
        for part in rest:
            result = result.apply(part)
        return result

    return cast("Apply", applied)


def without_dropped(original: Model, tables: Iterable[HeadRemap]) -> Model:
    """The original, without the outputs that cuts removed: they may be why a head was refused."""
    names = [name for table in tables for name in table.options["drop_outputs"] or ()]
    names = [name for name in dict.fromkeys(names) if name in original.graph().outputs]
    return original.apply(Plan((RemoveOutputs(tuple(names)),))) if names else original


class SizedModel(Model, Protocol):
    """A model of a kind with `sized`."""

    def with_lengths(self, lengths: Lengths) -> Self:
        """The model with these lengths of open dimensions, where they decide how it is traced."""


class SharingModel(Model, Protocol):
    """A model of a kind with `shares`: variants can have one body, a file with equal constants."""

    def write_sharing(self, path: Path) -> None:
        """Write the file, and its body next to it unless it is there (raises ModelError)."""

    def write_whole(self, path: Path) -> None:
        """Write the file with all its constants, of the body too."""


def unit_labels(model: Model, head: Head) -> tuple[str, ...] | None:
    """The label of each unit, from the file, else from the remap of an earlier cut."""
    if head.labels is not None or model.remap is None:
        return head.labels
    for table in model.remap.heads:
        if table.name == head.name and table.new_units == head.units:
            return table.labels
    return None
