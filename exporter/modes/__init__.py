"""The modes: how units are removed (a plan), and what the result must answer (an oracle).

An oracle maps the original's z to the z and y that the pruned model must have; codes count as the
real values that they stand for. It is computed in NumPy, in float64, from nothing but z; the
planner and the oracle of a mode share no code but the places of the units.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.modes.gating import gate_edits, gate_oracle, resolve_gate
from exporter.modes.masking import mask_beside, mask_edits, mask_oracle, resolve_mask
from exporter.modes.merging import merged, places_of
from exporter.modes.mode import Expected, Mode
from exporter.modes.semantics import PLAIN, PROBABILITIES, Semantics
from exporter.modes.slicing import resolve_slice, slice_edits, slice_oracle
from exporter.modes.zeroing import resolve_zero, zero_edits, zero_oracle

__all__ = [
    "MODES",
    "PLAIN",
    "PROBABILITIES",
    "Expected",
    "Mode",
    "Semantics",
    "merged",
    "places_of",
]

MODES: Mapping[str, Mode] = {
    "slice": Mode(
        "cut the removed units out of the head; the output becomes narrower",
        slice_edits,
        slice_oracle,
        resolve_slice,
        narrows=True,
        shares=False,
    ),
    "zero": Mode(
        "set the logits of removed units to exactly 0; the output keeps its width",
        zero_edits,
        zero_oracle,
        resolve_zero,
        narrows=False,
        shares=True,
    ),
    "mask": Mode(
        "let removed units answer 0, or the lowest value; the output keeps its width",
        mask_edits,
        mask_oracle,
        resolve_mask,
        narrows=False,
        shares=False,
        beside=mask_beside,
    ),
    "gate": Mode(
        "choose units while the model runs, by their values or by one more input (--gate)",
        gate_edits,
        gate_oracle,
        resolve_gate,
        narrows=False,
        shares=False,
        alters_all=True,
    ),
}
