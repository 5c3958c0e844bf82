"""One head of the original beside what became of it: what to read, and what must be there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from exporter.formats.model import Model
from exporter.graph import Array, Quantization
from exporter.graph.activations import ACTIVATIONS
from exporter.modes import MODES, Expected
from exporter.modes.merging import merged
from exporter.modes.semantics import INPUT, INPUT_FLOAT
from exporter.remap.head_remap import HeadRemap, members, originals
from exporter.trace.head import Detection, Head
from exporter.trace.rules.class_ids import number_columns
from exporter.verification.detector_rows import DetectedRows
from exporter.verification.match import Stage, meaning_of, units_of, z_of
from exporter.verification.merged import unmerged
from exporter.verification.quantized_values import as_codes, codes_of, width_of
from exporter.verification.rerun_original import Replay, sources_of
from exporter.verification.top_k import Names

What = Literal["z", "y", "probability", "removed"]
Answers = Mapping[str, Array]  # tensor -> (samples, ...), as the runtime gives them


@dataclass(frozen=True, eq=False)
class Compared:
    """Two answers that must agree.

    Attributes:
        name: for the report.
        expected, actual: (samples, ...); codes where `coded`, else real values.
        axis: the unit axis, behind the samples.
        what: "removed" where they are those of removed units alone, which answer a constant.
        coded: "int8" or "int16x8" where they are codes, or real values that lie where codes do,
            and count as such; "" where they do not.
        shared_over: how many units the activation shares out over; 0 where it does not.
    """

    name: str
    expected: Array
    actual: Array
    axis: int
    what: What
    coded: str
    shared_over: int = 0


class Pair:
    """One head of the original beside what became of it.

    Attributes:
        head: of the original.
        kept: the units that are alive, in the original's indices, in the order of their places.
        places: the units that have a place, alive or not.
        z: the tensor to read in the original.
        wanted: the tensors to read in the pruned model, besides its outputs.
    """

    def __init__(
        self,
        head: Head,
        models: tuple[Model, Model],
        table: HeadRemap,
        stage: Stage,
        masks: Array | None = None,
    ) -> None:
        """Find the head's values in both models.

        Args:
            head: of the original.
            models: the original, and what became of it.
            table: what became of the head; it speaks of the original, or of its own original.
            stage: "export" where the two models name their tensors differently.
            masks: which units were on in each sample, (samples, units) bool; of a gate by input.

        Raises:
            UsageError: the original has no such head, or not the units that the table speaks of.
            ModelError: the pruned model does not show what it must be compared in.
        """
        original, pruned = models
        chosen = table.options["gate"] in {INPUT, INPUT_FLOAT}  # and not another head's units
        self.table, self._masks = table, masks if chosen else None
        self.head = head
        self.kept, self.places = units_of(original, self.head, table)
        self.z = self.head.z
        self._new_z = z_of(pruned, self.head, table, stage)
        self._graphs = original.graph(), pruned.graph()
        shown = table.output in self._graphs[0].outputs  # if not, it is only ranked
        self._meaning = meaning_of(original, table)
        self._members = unmerged(self._graphs[1], table.output) if self._meaning.merge else None
        behind = self._in_front_of_gate() if self._new_z == self.z else None
        wanted = (self._new_z, None if shown else table.output, self._members, behind)
        self.wanted = tuple(name for name in wanted if name)

    def _in_front_of_gate(self) -> str | None:
        """The values that a gate floors, to be read as they are read in the original.

        onnxruntime computes codes that are read besides by other kernels, whose codes are others.
        """
        graph = self._graphs[1]
        if self.table.options["gate"] is None:
            return None
        known = graph.tensors[self.z]
        for name in graph.producers[self.z][0].inputs:
            tensor = graph.tensors.get(name)
            if tensor and not tensor.is_constant and tensor.dtype == known.dtype:
                return name
        return None

    def comparisons(
        self, left: Answers, right: Answers, *, codes: bool = True, shown: str | None = None
    ) -> Iterator[Compared]:
        """What must agree.

        Args:
            left, right: answers of the original and of the pruned model.
            codes: compare values that have codes as codes.
            shown: the tensor of the pruned model that stands for the output; None: its own name.
        """
        expected = self._expected(left)
        head, output = self.head, self.table.output
        if self._new_z is not None:
            axis = head.tensor(self.z).unit_axis.axis
            actual = self._real(right, self._new_z)
            known = codes_of(self._graphs[0], self.z) if codes else None
            values = self._compared((f"{output} (z)", "z", axis), expected.z, actual, known)
            yield from self._apart(values, self.z, expected.z)
        function = ACTIVATIONS.get(head.activation)
        probable = function is not None and function.probability and not head.factors
        what: What = "probability" if probable else "y"
        what = "z" if self.z == head.output else what
        known = codes_of(self._graphs[0], head.output) if codes else None
        actual = self._real(right, shown or output)
        if self._members is not None:
            yield from self._merged(what, expected.y, self._real(right, self._members), actual)
            return
        answer = self._compared((output, what, head.axis), expected.y, actual, known)
        yield from self._apart(answer, head.output, expected.y)

    def _merged(
        self, what: What, wanted: Array, members: Array, actual: Array
    ) -> Iterator[Compared]:
        """The members' values, and what the merged output must be of those that the model has.

        Codes of several members may each be off by one, which their sum must not be blamed for.
        """
        head, name = self.head, self.table.output
        known = codes_of(self._graphs[0], head.output)
        yield self._compared((f"{name} (members)", what, head.axis), wanted, members, known)
        fits = members.shape == wanted.shape
        answer = merged(head, self.kept, members, self._meaning) if fits else np.empty(0)
        own = self._graphs[0].tensors[head.output].quantization
        merged_what: What = "y" if what == "z" else what
        yield self._compared((name, merged_what, head.axis), answer, actual, own)

    def _apart(self, both: Compared, tensor: str, real: Array) -> Iterator[Compared]:
        """Kept units and removed ones, where these answer a value that no limit may follow.

        A floor of -1e4 among the expected values would allow the others 1e4 times as much.

        Args:
            both: codes, perhaps, of what is expected and what is there.
            tensor: whose values they are.
            real: what is expected, as real values.
        """
        if self.table.options["gate"] is not None:
            yield from self._gated_apart(both, real)
            return
        mode, labels = MODES[self.table.mode], self.head.tensor(tensor).unit_axis
        units = labels.units[labels.positions(self.places)]
        dead = (units >= 0) & ~np.isin(units, self.kept)
        width = both.expected.shape[both.axis]
        fits = both.actual.shape == both.expected.shape and width == len(dead)
        if mode.shares or not fits or not dead.any():
            yield both
            return
        for where, name, what in ((~dead, "", both.what), (dead, " (removed)", "removed")):
            left, right = (np.compress(where, v, both.axis) for v in (both.expected, both.actual))
            yield replace(both, name=f"{both.name}{name}", expected=left, actual=right, what=what)

    def detected(self) -> Iterator[DetectedRows]:
        """The rows that post-processes return of this head's classes."""
        first = int(np.argmax(self.head.tensor(self.head.output).unit_axis.units >= 0))
        for detection in self.head.readers.detections:
            if detection.rows is not None:
                before, after = self._numbers(detection)
                alive = [(i, unit) for i, unit in enumerate(self.places) if unit in self.kept]
                numbers = {before[unit]: after[i] for i, unit in alive}
                columns = {number: first + i for i, number in enumerate(after)}
                yield DetectedRows(detection, numbers, columns, self.head.competes)

    def names(self) -> Names:
        """What outputs call the units that have a place, if they return ids."""
        sizes = [len(members(place)) for place in self.table.new_to_old]
        first = np.asarray(self.places)[np.cumsum([0, *sizes[:-1]])]
        restored = originals(self.table) if self.table.options["restore_ids"] else None
        return Names(tuple(first.tolist()), restored)

    def replay(self, outputs: Collection[str]) -> Replay | None:
        """What the model's own operators make of the classes' values, if any of the outputs."""
        graph, head = self._graphs[0], self.head
        own = tuple(name for name in graph.outputs if name in outputs)
        sources = sources_of(graph, head, own)
        if not own or not sources:
            return None
        before, after = self._numbers(*head.readers.detections[:1])
        numbers = {before[unit]: after[i] for i, unit in enumerate(self.places)}
        columns = {n: c for n, c in number_columns(graph, head).items() if n in own}
        return Replay(self.table.name, head, own, sources, self.places, numbers, columns)

    def _numbers(self, detection: Detection | None = None) -> tuple[list[int], list[int]]:
        """What a post-process calls the classes: of the original, and of what became of it."""
        for table in detection.tables if detection else ():
            read = self._graphs[0].tensors[table.name].read
            rows = table.unit_axis.units >= 0
            before = [] if read is None else [int(number) for number in np.ravel(read())[rows]]
            return before, [before[unit] for unit in self.places]
        restored = [min(members(place)) for place in self.table.new_to_old]
        count = self.table.new_units
        after = restored if self.table.options["restore_ids"] else list(range(count))
        return list(range(self.head.units)), after

    def _gated_apart(self, both: Compared, real: Array) -> Iterator[Compared]:
        """Units that are on and those that are off, which are others in each sample.

        Each side is compared at its full width, with 0 where units are of the other.
        """
        expected, actual = both.expected, both.actual
        floor = self.table.options["floor"]
        off = real == (0.0 if both.what == "probability" else floor)
        if actual.shape != expected.shape or not off.any():
            yield both
            return
        for off_here, name, what in ((off, "", both.what), (~off, " (off)", "removed")):
            left, right = (np.where(off_here, 0.0, values) for values in (expected, actual))
            yield replace(both, name=f"{both.name}{name}", expected=left, actual=right, what=what)

    def dead_share(self, right: Answers) -> float | None:
        """The mean share of the probability that units removed in place hold.

        None where there are none, the mode leaves them no share, nothing is shared out, or the
        output is not what it should be.
        """
        if not MODES[self.table.mode].shares:
            return None
        head, axis = self.head, self.head.axis + 1
        dead = np.flatnonzero(~np.isin(self.places, self.kept))
        values = self._real(right, self.table.output)
        fits = values.ndim > axis and values.shape[axis] == len(self.places)
        shares = head.competes and head.activation == "softmax" and not head.factors
        if not (len(dead) and fits and shares):
            return None
        return float(np.take(values, dead, axis=axis).sum(axis=axis).mean())

    def _expected(self, left: Answers) -> Expected:
        tensor = self._graphs[0].tensors[self.z]
        values = tensor.dequantize(left[self.z])
        answers = [self._oracle(z, self._on(i)) for i, z in enumerate(values)]
        return Expected(np.stack([a.z for a in answers]), np.stack([a.y for a in answers]))

    def _on(self, sample: int) -> tuple[int, ...]:
        """The units that are alive in a sample: of a gate by input those that its mask has on."""
        if self._masks is None:
            return self.kept
        on = np.asarray(self.places)[self._masks[sample]]
        return tuple(np.intersect1d(self.kept, on).tolist())

    def _oracle(self, z: Array, kept: tuple[int, ...]) -> Expected:
        """The mode's, with what the table alone tells of its options and of earlier cuts."""
        mode = MODES[self.table.mode]
        return mode.oracle(self.head, kept, z, self._meaning, self.places)

    def _real(self, right: Answers, name: str) -> Array:
        """An answer of the pruned model; nothing where it lacks it, which no check passes."""
        tensor = self._graphs[1].tensors.get(name)
        return (
            tensor.dequantize(right[name]) if tensor is not None and name in right else np.empty(0)
        )

    def _compared(
        self,
        told: tuple[str, What, int],
        expected: Array,
        actual: Array,
        known: Quantization | None,
    ) -> Compared:
        """As codes, if they are known; z that is given as real values must equal as it stands."""
        name, what, axis = told
        given = self._graphs[0].tensors[self.z].quantization is None
        if known is not None and not (what == "z" and given):
            expected, actual = as_codes(known, expected), as_codes(known, actual)
        units = self._added_up() if self.head.competes else 0
        return Compared(name, expected, actual, axis + 1, what, width_of(known), units)

    def _added_up(self) -> int:
        """Units whose exponentials the pruned model adds up: all those that are not left out."""
        everything = self._meaning.absolute or MODES[self.table.mode].shares
        return self.head.units if everything else len(self.kept)
