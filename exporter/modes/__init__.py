"""The modes: how units are removed (edits), and the expected output of the result (an oracle).

An oracle maps the original's z to the z and y that the pruned model must have; quantized values
count as the real values that they represent. It is computed in NumPy, in float64, from z alone; the
planner and the oracle of a mode share no code but the positions of the units.

The table imports no NumPy: the command line reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.modes.mode import Expected, Mode, ModeFunctions
from exporter.modes.semantics import PLAIN, PROBABILITIES, Semantics

__all__ = [
    "MODES",
    "PLAIN",
    "PROBABILITIES",
    "Expected",
    "Mode",
    "ModeFunctions",
    "Semantics",
]

MODES: Mapping[str, Mode] = {
    "slice": Mode(
        "cut the removed units out of the head; the output becomes narrower",
        "exporter.modes.slicing",
        narrows=True,
    ),
    "zero": Mode(
        "set the logits of removed units to exactly 0; the output keeps its width",
        "exporter.modes.zeroing",
        keeps_share=True,
    ),
    "mask": Mode(
        "set removed units to 0, or to the lowest value; the output keeps its width",
        "exporter.modes.masking",
    ),
    "gate": Mode(
        "choose units while the model runs, by their values or by one more input (--gate)",
        "exporter.modes.gating",
        edits_all_kept=True,
    ),
}
