"""Read the units of a classifier from its outputs, of one feed at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from exporter.data.samples import Samples, to_model_inputs
from exporter.errors import UsageError
from exporter.evaluation.kept_units import KeptUnits
from exporter.formats.model import Model, RunOptions, run_each
from exporter.graph import Array
from exporter.graph.edits import AddOutput, Plan
from exporter.modes.gate_branch import MASK
from exporter.modes.merging import merge_values
from exporter.remap import HeadRemap
from exporter.trace.head import Head

Outputs = Mapping[str, Array]


def not_measurable(reason: str, hint: str) -> UsageError:
    """The error for a model or data whose task quality is not defined."""
    return UsageError(f"the task quality cannot be measured: {reason}", hint)


def run_on(model: Model, samples: Samples, options: RunOptions) -> Iterator[tuple[Outputs, int]]:
    """The outputs of each feed, and its batch size. A few feeds are in memory at a time.

    A gate that reads a mask from an input gets all units on.
    """
    graph = model.graph()
    sizes: deque[int] = deque()

    def inputs() -> Iterator[Mapping[str, Array]]:
        for feed in samples.feeds():
            values = to_model_inputs(feed, graph)
            sizes.append(len(next(iter(values.values()))))
            if MASK in graph.inputs and MASK not in values:
                shape = tuple(length or 1 for length in graph.shape(MASK))
                values[MASK] = np.ones(shape, graph.tensors[MASK].dtype)
            yield values

    for outputs in run_each(model.runner(options), inputs()):
        yield outputs, sizes.popleft()


def with_scores(model: Model, head: Head) -> Model:
    """The model with the values of the head's units as an output, if it returns only indices."""
    if head.output in model.graph().outputs:
        return model
    return model.apply(Plan((AddOutput(head.output, head.output),), model.remap))


def unit_rows(values: Array, axis: int, rows: int) -> Array:
    """(rows, positions) values with one row per sample of the batch.

    Raises:
        UsageError: each unit has several values, such as one for each pixel or box.
    """
    moved = np.moveaxis(values, axis, -1)
    if moved.size != rows * moved.shape[-1]:
        raise not_measurable(
            "the model returns several values per unit, such as pixels, boxes or time steps",
            "class labels fit models with one value per unit; give boxes or transcripts with "
            "--truth",
        )
    return moved.reshape(rows, -1)


@dataclass(frozen=True, eq=False)
class OriginalScores:
    """The scores of the units in the outputs of the original.

    Attributes:
        model: returns `head.output`.
        kept: the units that remain.
    """

    model: Model
    head: Head
    kept: KeptUnits

    def every_unit(self, outputs: Outputs, rows: int) -> Array:
        """(rows, units) the score of each unit."""
        axis = self.head.tensor(self.head.output).unit_axis
        values = unit_rows(self._real(outputs), axis.axis, rows)
        scores = np.empty((rows, self.head.units))
        present = axis.units >= 0
        scores[:, axis.units[present]] = values[:, present]
        return scores

    def kept_units(self, outputs: Outputs, rows: int) -> Array:
        """(rows, kept) the scores of the kept units alone; of merged units, their sum.

        In the order of `KeptUnits.merged_order`. The sum is that of `merge_values`, which the
        verification uses too.
        """
        if not self.kept.semantics.merge:
            return self.every_unit(outputs, rows)[:, list(self.kept.kept)]
        axis = self.head.tensor(self.head.output).unit_axis
        positions = axis.positions(self.kept.kept)
        values = np.take(self._real(outputs), positions, axis=axis.axis)
        merged = merge_values(self.head, self.kept.kept, values, self.kept.semantics)
        return unit_rows(merged, axis.axis, rows)

    def rows(self, outputs: Outputs) -> int:
        """How many values each unit has."""
        values = outputs[self.head.output]
        return int(values.size // values.shape[self.head.axis])

    def _real(self, outputs: Outputs) -> Array:
        tensor = self.model.graph().tensors[self.head.output]
        return tensor.dequantize(outputs[self.head.output])


@dataclass(frozen=True, eq=False)
class ArtifactScores:
    """The scores in the outputs of a new file, by position.

    Attributes:
        output: contains them.
        axis: the unit axis.
        part: the range of the units on that axis; None for all of it.
    """

    model: Model
    output: str
    axis: int
    part: tuple[int, int] | None
    kept: KeptUnits

    def positions(self, outputs: Outputs, rows: int) -> Array:
        """(rows, positions) the score of each position."""
        values = self.model.graph().tensors[self.output].dequantize(outputs[self.output])
        found = unit_rows(values, self.axis, rows)
        start, stop = self.part or (0, found.shape[1])
        count = len(self.kept.positions)
        if stop - start != count:
            raise not_measurable(
                f"output {self.output!r} has {stop - start} positions for {count} units",
                "use `exporter verify`, which compares shapes",
            )
        return found[:, start:stop]

    def rows(self, outputs: Outputs) -> int:
        """How many values each position has."""
        values = outputs[self.output]
        return int(values.size // values.shape[self.axis])


def artifact_scores(
    artifact: Model, head: Head, table: HeadRemap | None, kept: KeptUnits
) -> ArtifactScores | None:
    """How to read the scores of a new file; None if it returns only indices.

    Args:
        head: of the original.
        table: how the file was cut; None for an uncut one.
    """
    output = head.output if table is None else table.output
    if output not in artifact.graph().outputs:
        return None
    axis, part = (head.axis, head.unit_range) if table is None else (table.axis, table.part)
    return ArtifactScores(artifact, output, axis, part, kept)


def artifact_ids(
    artifact: Model, original: Model, head: Head, table: HeadRemap | None, kept: KeptUnits
) -> Callable[[Outputs, int], Array]:
    """How to read the units of a new file that returns only indices: -> (rows, ranks) units.

    Raises:
        UsageError: no output returns the indices of the units as they are.
    """
    outputs = artifact.graph().outputs
    found = ((each, name) for each in head.readers.rankings for name in each.outputs)
    ranking, output = next(((each, n) for each, n in found if n in outputs), (None, ""))
    if ranking is None:
        raise not_measurable(
            f"{artifact.name} returns neither the scores of head {head.name!r} nor its indices",
            "export the model with one of them as an output",
        )
    axis = ranking.rank_axes.get(output)  # None: it returns one index, without an axis

    def read(returned: Outputs, rows: int) -> Array:
        values = np.asarray(returned[output])
        ids = unit_rows(values[..., np.newaxis] if axis is None else values, axis or -1, rows)
        if table is not None and table.options["restore_ids"]:
            return kept.of_first_original(original, table, ids)
        valid = (ids >= 0) & (ids < len(kept.at_position))
        return np.where(valid, kept.at_position[np.where(valid, ids, 0)], -1)

    return read
