"""Two files without a remap: which inputs and outputs, and which units, belong together."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.formats.model import Model
from exporter.jobs.job import Job
from exporter.quantization.quantize import is_quantized
from exporter.remap import Origin, Remap
from exporter.verification.recover import recover_tables
from exporter.verification.renamed import Renamed, match_inputs, match_outputs, need_no_change


@dataclass(frozen=True, eq=False)
class Counterpart:
    """The second of two files, as it is compared with the first.

    Attributes:
        model: under the names of the first.
        remap: in the file or next to it; else recovered from its weights; None if it has none.
        warnings: one for each guess.
    """

    model: Model
    remap: Remap | None
    warnings: tuple[str, ...] = ()


def counterpart(first: Model, second: Model, remap: Remap | None, job: Job) -> Counterpart:
    """Match the ends and the units of two files.

    Args:
        remap: in the second file, or next to it.

    Raises:
        UsageError: an input has no counterpart, or an option names an unknown one.
    """
    notes: list[str] = []
    if remap is None or job.map_input or job.map_output:
        second, pairs = _matched(first, second, job)
        notes += pairs
    if remap is None:
        remap, note = _recovered_remap(first, second)
        notes.append(note)
    if job.quantized_to is None and is_quantized(second) and not is_quantized(first):
        notes.append(
            f"{second.name} contains quantized values, but nothing states that it was quantized, "
            "so it must match like a cut: --precision states it"
        )
    return Counterpart(second, remap, tuple(notes))


def _matched(first: Model, second: Model, job: Job) -> tuple[Model, tuple[str, ...]]:
    """The second model under the names of the first, and a note for each guess."""
    inputs = match_inputs(first, second, job.map_input)
    outputs = match_outputs(first, second, job.map_output)
    if need_no_change(first, second, inputs, outputs):
        return second, ()
    return Renamed(second, inputs, outputs, first.graph()), (*inputs.notes, *outputs.notes)


def _recovered_remap(first: Model, second: Model) -> tuple[Remap | None, str]:
    """The remap that the weights show, or None; and a note."""
    tables = tuple(recover_tables(first, second))
    if not tables:
        return None, f"{second.name} has no remap: all outputs are compared as they are"
    found = ", ".join(
        f"{table.new_units} of {table.old_units} units of {table.name!r}" for table in tables
    )
    origin = Origin(first.name, first.sha256)
    note = f"{second.name} has no remap: {found} were recognized by their weights"
    return Remap(origin, None, tables), note
