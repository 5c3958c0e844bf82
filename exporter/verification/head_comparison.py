"""Compare one head: the tensors to read in both models, and the values that they must have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np

from exporter.graph import Array, Quantization
from exporter.graph.activations import ACTIVATIONS
from exporter.graph.operations import Activation, Elementwise
from exporter.graph.walk import dependents
from exporter.modes import MODES, Expected
from exporter.modes.merging import merge_values
from exporter.remap.head_remap import HeadRemap, members, originals
from exporter.trace.head import Head
from exporter.trace.readers import Detection
from exporter.verification.detector_rows import DetectedRows
from exporter.verification.gate_masks import reads_mask
from exporter.verification.layout import Order, logits_order
from exporter.verification.match import members_of_merged, semantics_of, units_of, z_of
from exporter.verification.quantized_values import precision_of, quantization_of, quantize
from exporter.verification.rerun_original import RerunOriginal, sources_of
from exporter.verification.roles import Answers, Comparer, Comparison, ModelPair, Runs
from exporter.verification.top_k import RankedOutput, ranked_outputs

_ROUNDED = {"bfloat16": "bf16", "float16": "fp16"}  # dtype of an output -> row of LIMITS


class HeadComparer(Comparer):
    """Compares the logits and the output of one head with the oracle of its mode.

    Attributes:
        head: of the original.
        table: how it was cut.
        kept: the kept units, in the original's indices, in the order of their positions.
        present: the units that have a position in the pruned model, kept or not.
        new_z: the tensor with the logits in the pruned model; None if it shows none.
    """

    def __init__(
        self, head: Head, table: HeadRemap, pair: ModelPair, shown: str, *, compared: bool = True
    ) -> None:
        """Find the head's tensors in both models.

        Args:
            head: of the original.
            table: how it was cut; in indices of the original, or of the original's own original.
            shown: the tensor of the pruned model with the values of the output.
            compared: False if the pruned model shows no such tensor.

        Raises:
            UsageError: the original has no such head, or lacks units that the table names.
            ModelError: the pruned model does not show the values to compare.
        """
        self.table, self.head = table, head
        self._shown, self._compared = shown, compared
        self._masks = pair.masks if reads_mask(table) else None  # else of another head's units
        self.kept, self.present = units_of(pair.original, head, table)
        self._graphs, self._is_cut = pair.graphs, pair.stage == "cut"
        self.new_z = z_of(pair, head, table)
        self._order: Order | None = None  # of the axes of `new_z`; None for the original's
        if self.new_z is not None and pair.stage == "export":
            self._order = logits_order(pair, head, table.output, self.new_z)
            self.new_z = None if self._order is None else self.new_z
        self._semantics = semantics_of(pair.original, table)
        merge = self._semantics.merge
        self._members = members_of_merged(self._graphs[1], table.output) if merge else None

    def tensors(self) -> tuple[Iterable[str], Iterable[str]]:
        read = {self.new_z, self._members, self._gate_input()}
        if self.table.output not in self._graphs[0].outputs:  # an inner tensor, which is ranked
            read.add(self.table.output)
        if self._shown != self.table.output:
            read.add(self._shown)
        return (self.head.z,), [name for name in read if name]

    def _gate_input(self) -> str | None:
        """The values that a gate masks, if they have to be read in the pruned model as well.

        The original's logits are read. onnxruntime computes quantized logits that are read with
        other kernels, which give other values: both models must use the same kernels.
        """
        z, graph = self.head.z, self._graphs[1]
        if self.new_z != z or self.table.options["gate"] is None:
            return None
        for name in graph.producers[z][0].inputs:
            tensor = graph.tensors.get(name)
            if tensor and not tensor.is_constant and tensor.dtype == graph.tensors[z].dtype:
                return name
        return None

    def compare(self, runs: Runs) -> Iterator[Comparison]:
        if not self._compared:
            return
        head, output = self.head, self.table.output
        expected = self.expected(runs.original, runs.first)
        if self.new_z is not None:
            actual = self._real(runs.pruned, self.new_z)
            if self._order is not None and actual.ndim == len(self._order) + 1:
                actual = actual.transpose(0, *(axis + 1 for axis in self._order))
            values = expected.z, actual
            known = self._quantization(head.z, runs)
            logits = self._comparison(f"{output} (z)", "z", head.z, values, known)
            yield from self._split(logits, head.z, expected.z)
        role, known = self._role(), self._quantization(head.output, runs)
        actual = self._real(runs.pruned, self._shown)
        if self._members is None:
            values = expected.y, actual
            answer = self._comparison(output, role, head.output, values, known)
            yield from self._split(answer, head.output, expected.y)
            return
        values = expected.y, self._real(runs.pruned, self._members)
        yield self._comparison(f"{output} (members)", role, head.output, values, known)
        yield self._merged(role, *values, actual)

    def _role(self) -> str:
        head = self.head
        if head.normalized:
            return "probability"
        if head.z == head.output:
            return "z"
        function = ACTIVATIONS.get(head.activation)
        probability = function is not None and function.probability and not head.factors
        return "probability" if probability else "y"

    def _quantization(self, tensor: str, runs: Runs) -> Quantization | None:
        return quantization_of(self._graphs[0], tensor) if runs.in_quantized_values else None

    def _comparison(
        self,
        output: str,
        role: str,
        tensor: str,
        values: tuple[Array, Array],
        known: Quantization | None,
    ) -> Comparison:
        """Compare quantized values if `known` is given, but logits that are real as they are."""
        expected, actual = values
        has_real_logits = self._graphs[0].tensors[self.head.z].quantization is None
        if known is not None and not (role == "z" and has_real_logits):
            expected, actual = quantize(known, expected), quantize(known, actual)
        axis = self.head.tensor(tensor).unit_axis.axis + 1
        added = self._added_units() if self.head.competes else 0
        precision, units = precision_of(known), self._units_of(tensor)
        if self._is_cut and not precision:  # a float32 model may return rounded values
            precision = _ROUNDED.get(self._graphs[0].tensors[tensor].dtype, "")
        return Comparison(output, expected, actual, axis, role, precision, added, units, self.table)

    def _units_of(self, tensor: str) -> Array:
        """Of each position of a tensor in the pruned model (see `Comparison.units`)."""
        unit_axis = self.head.tensor(tensor).unit_axis
        units = unit_axis.units[unit_axis.positions(self.present)]
        first = np.full(self.head.units, -1)
        first[list(self.present)] = [u for each in self.table.new_to_old for u in members(each)]
        return np.where(units >= 0, first[units], -1)

    def _added_units(self) -> int:
        """How many exponentials the pruned model adds up."""
        all_units = self._semantics.absolute or MODES[self.table.mode].keeps_share
        return self.head.units if all_units else len(self.kept)

    def _merged(
        self, role: str, expected_members: Array, members_: Array, actual: Array
    ) -> Comparison:
        """The merged output, expected from the members that the pruned model itself computes.

        Quantized values of several members may each be off by one step, and the sum must not count
        these steps again.
        """
        fits = members_.shape == expected_members.shape
        nothing = np.empty(0)  # has no expected shape: it fails
        expected = (
            merge_values(self.head, self.kept, members_, self._semantics) if fits else nothing
        )
        known = self._graphs[0].tensors[self.head.output].quantization
        role = "y" if role == "z" else role
        merged = self._comparison(
            self.table.output, role, self.head.output, (expected, actual), known
        )
        return replace(merged, units=None)

    def _split(self, both: Comparison, tensor: str, real: Array) -> Iterator[Comparison]:
        """Kept units and removed units, if the removed ones return a constant.

        A mask value of -1e4 among the expected values would allow the kept units a difference that
        is 1e4 times as large.

        Args:
            tensor: the name of the tensor in the original.
            real: the expected values, as real ones.
        """
        gated = self.table.options["gate"] is not None
        removed = None
        if both.actual.shape == both.expected.shape:
            removed = self._off(both, real) if gated else self._removed(both, tensor)
        if removed is None or not (gated or removed.any()):
            yield both
            return
        suffix = " (off)" if gated else " (removed)"
        for mask, ending, role in ((~removed, "", both.role), (removed, suffix, "removed")):
            left, right = (
                np.where(mask, v, 0.0) if gated else np.compress(mask, v, both.axis)
                for v in (both.expected, both.actual)
            )
            yield replace(
                both,
                output=f"{both.output}{ending}",
                expected=left,
                actual=right,
                role=role,
                added_units=0 if ending else both.added_units,
                units=both.units if gated or both.units is None else both.units[mask],
                is_empty=bool(ending) and not removed.any(),
            )

    def _off(self, both: Comparison, real: Array) -> Array:
        """(samples, ...) which values belong to units that the gate has off in that sample."""
        mask_value = 0.0 if both.role == "probability" else self.table.options["floor"]
        return np.asarray(real == mask_value)

    def _removed(self, both: Comparison, tensor: str) -> Array | None:
        """Which positions on the unit axis are removed units with a constant value."""
        unit_axis = self.head.tensor(tensor).unit_axis
        units = unit_axis.units[unit_axis.positions(self.present)]
        fits = both.expected.shape[both.axis] == len(units)
        if MODES[self.table.mode].keeps_share or not fits:
            return None
        return np.asarray((units >= 0) & ~np.isin(units, self.kept))

    def removed_share(self, runs: Runs) -> float | None:
        """The mean share of the probability that removed units hold in a block of samples.

        None if no removed unit has a position, the mode leaves them no share, the activation does
        not compute shares, or the output is not as expected.
        """
        head, axis = self.head, self.head.axis + 1
        removed = np.flatnonzero(~np.isin(self.present, self.kept))
        shares = head.competes and head.activation == "softmax" and not head.factors
        if not (MODES[self.table.mode].keeps_share and shares and len(removed)):
            return None
        values = self._real(runs.pruned, self.table.output)
        if values.ndim <= axis or values.shape[axis] != len(self.present):
            return None
        return float(np.take(values, removed, axis=axis).sum(axis=axis).mean())

    def expected(self, original: Answers, first: int = 0) -> Expected:
        """The oracle's logits and outputs for each sample.

        Args:
            original: of a block of samples.
            first: how many samples are in the blocks before.
        """
        logits = self._graphs[0].tensors[self.head.z].dequantize(original[self.head.z])
        oracle = MODES[self.table.mode].oracle
        if self._rows_are_independent():
            rows = logits.reshape(-1, *logits.shape[2:])
            both = oracle(self.head, self.kept, rows, self._semantics, self.present)
            z, y = (v.reshape(*logits.shape[:2], *v.shape[1:]) for v in (both.z, both.y))
            return Expected(z, y)
        found = [
            oracle(self.head, self._on(first + i), z, self._semantics, self.present)
            for i, z in enumerate(logits)
        ]
        return Expected(np.stack([each.z for each in found]), np.stack([each.y for each in found]))

    def _rows_are_independent(self) -> bool:
        """Whether the samples may be one batch: no operation moves or reads across rows."""
        if self.table.options["gate"] is not None or self._semantics.merge:
            return False
        kinds = {type(node.operation) for node in self.head.tail}
        axes = {getattr(node.operation, "axis", None) for node in self.head.tail}
        axes.add(self.head.tensor(self.head.z).unit_axis.axis)
        return kinds <= {Activation, Elementwise} and 0 not in axes

    def _on(self, sample: int) -> tuple[int, ...]:
        """The kept units, or those of them that the mask of a gate has on in a sample."""
        if self._masks is None:
            return self.kept
        on = np.asarray(self.present)[self._masks[sample]]
        return tuple(np.intersect1d(self.kept, on).tolist())

    def _real(self, pruned: Answers, name: str) -> Array:
        """Real values of the pruned model; an empty array, which fails, if it lacks the tensor."""
        tensor = self._graphs[1].tensors.get(name)
        if tensor is None or name not in pruned:
            return np.empty(0)
        return tensor.dequantize(pruned[name])

    # --- indices and rows that follow from the head ---------------------------------------------

    def ranked(self, outputs: set[str]) -> Iterator[RankedOutput]:
        """Those of the outputs that show how the units rank."""
        first, restored = self._first_members(), self._restored_ids()
        return ranked_outputs(self.head, self._graphs, outputs, first, restored)

    def _first_members(self) -> tuple[int, ...]:
        """The unit of the original at each position; of a merged unit, its first member."""
        sizes = [len(members(units)) for units in self.table.new_to_old]
        first: list[int] = np.asarray(self.present)[np.cumsum([0, *sizes[:-1]])].tolist()
        return tuple(first)

    def computed_from_ranks(self, outputs: set[str]) -> set[str]:
        """Those of the outputs that are computed from the results of a ranking of the units."""
        rankings = (name for each in self.head.readers.rankings for name in each.node.outputs)
        return outputs & dependents(self._graphs[0], rankings)

    def _restored_ids(self) -> Array | None:
        return originals(self.table) if self.table.options["restore_ids"] else None

    def detected(self) -> Iterator[DetectedRows]:
        """The rows that NonMaxSuppression operators return for this head's classes."""
        first = int(np.argmax(self.head.tensor(self.head.output).unit_axis.units >= 0))
        for detection in self.head.readers.detections:
            if detection.rows is not None:
                before, after = self._class_indices(detection)
                kept = [(i, unit) for i, unit in enumerate(self.present) if unit in self.kept]
                new_index = {before[unit]: after[i] for i, unit in kept}
                columns = {index: first + i for i, index in enumerate(after)}
                yield DetectedRows(detection, self._graphs, new_index, columns, self.head.competes)

    def rerun(self, outputs: Collection[str]) -> RerunOriginal | None:
        """A rerun of the original with the pruned model's class scores; None without outputs."""
        graph, head = self._graphs[0], self.head
        own = tuple(name for name in graph.outputs if name in outputs)
        sources = sources_of(graph, head, own)
        if not own or not sources:
            return None
        before, after = self._class_indices(*head.readers.detections[:1])
        units = self._first_members()
        new_index = {before[unit]: after[i] for i, unit in enumerate(units)}
        columns = {n: c for n, c in head.readers.columns.items() if n in own}
        ordered, name = set(own).isdisjoint(head.readers.detector_outputs), self.table.name
        return RerunOriginal(name, head, own, sources, units, new_index, columns, ordered)

    def _class_indices(self, detection: Detection | None = None) -> tuple[list[int], list[int]]:
        """The class index of each unit of the original, and of each pruned position."""
        for table in detection.tables if detection else ():
            read = self._graphs[0].tensors[table.name].read
            rows = table.unit_axis.units >= 0
            before = [] if read is None else [int(index) for index in np.ravel(read())[rows]]
            return before, [before[unit] for unit in self.present]
        restored = self._restored_ids()
        after = range(self.table.new_units) if restored is None else restored.tolist()
        return list(range(self.head.units)), list(after)
