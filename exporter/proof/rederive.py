"""Make a cut again, from the original and the remap that the cut file contains.

The remap records the resolved options of the cut. A few options are not in it, because they follow
from what it records: they are tried, and the remap that results decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from exporter.errors import ExporterError
from exporter.formats.model import Model
from exporter.graph.normalization import Normalization
from exporter.modes import MODES
from exporter.planning.cut import cut_head
from exporter.planning.options import CutOptions
from exporter.planning.pixels import Images, image_inputs
from exporter.remap import HeadRemap, Remap


@dataclass(frozen=True, eq=False)
class Rederived:
    """A cut that was made again.

    Attributes:
        model: the original itself if the cut keeps everything, and changes nothing.
        remap: what a file with this cut has to contain.
    """

    model: Model
    remap: Remap


def rederive(original: Model, remap: Remap) -> Rederived:
    """Cut the original again, by the remap of the file that was cut from it.

    Args:
        original: the model that was cut, or the first one of a chain of cuts.
        remap: of the cut file.

    Raises:
        ExporterError: the original cannot be cut as the remap says.
    """
    steps = _steps_after(original, remap)
    model, result = original, remap
    for tables in steps:
        made = _cut_again(model, tables, _images(model, remap))
        model, result = made.model, made.remap
    return Rederived(model, result)


def _steps_after(original: Model, remap: Remap) -> Sequence[tuple[HeadRemap, ...]]:
    """The tables of each cut after the original, in the unit indices of the model that it cut."""
    if original.remap is None:
        return remap.steps or (remap.heads,)
    done = len(original.remap.steps or (original.remap.heads,))
    return remap.steps[done:]


def _images(model: Model, remap: Remap) -> Images:
    """How inputs expect pixels: as the model shows, else as the user said when it was cut."""
    given = {
        name: known and Normalization(known.mean, known.std) for name, known in remap.pixels.items()
    }
    shown = image_inputs(model, None)
    return {name: shown.get(name) or known for name, known in given.items()}


def _cut_again(model: Model, tables: tuple[HeadRemap, ...], images: Images) -> Rederived:
    """One cut, with the options whose result is nearest to the recorded tables."""
    errors: list[ExporterError] = []
    found: list[tuple[int, Rederived]] = []
    for options in _candidates(tables[0]):
        try:
            cut = cut_head(model, options, images)
            made = model.apply(cut.plan) if cut.plan.every_edit else model
        except ExporterError as error:
            errors.append(error)
            continue
        heads = cut.remap.steps[-1] if cut.remap.steps else cut.remap.heads
        apart = sum(one != other for one, other in zip(heads, tables, strict=False))
        found.append((apart + abs(len(heads) - len(tables)), Rederived(made, cut.remap)))
        if not found[-1][0]:
            break
    if not found:
        raise errors[0]
    return min(found, key=lambda each: each[0])[1]


def _candidates(table: HeadRemap) -> Iterator[CutOptions]:
    """The options that may have led to a table.

    1. Outputs with indices: they return the original ones by default, or by `restore_ids`, or new
       ones by `new_ids`. The table records which outputs do, but not which option was given.
    2. The range of the units is in the table whether the user gave it or the model shows it.
    3. Of labels that the user gave, the table has those of the new units. No other is needed.
    """
    recorded = table.options
    narrows = MODES[table.mode].narrows and not recorded["restore_width"]
    tokens = recorded["vocabulary"] or {}
    several = narrows and not tokens
    ids = [(False, False), (True, False), (False, True)][: 3 if several else 1]
    ranges = (
        [None] if table.part is None else [None, (table.part[0], table.part[0] + table.old_units)]
    )
    emit = recorded["emit"]
    count = emit and emit["count"]
    base = CutOptions(
        keep=table.kept,
        keep_order=narrows,
        head=table.name,
        mode="slice" if recorded["gate"] else table.mode,
        gate=recorded["gate"],
        probabilities=recorded["probabilities"] or "renormalized",
        restore_width=bool(recorded["restore_width"]),
        merge=recorded["merge"] or {},
        labels=_given_labels(table),
        drop_outputs=recorded["drop_outputs"] or (),
        vocabulary="both" if tokens else "output",
        keep_ids=bool(tokens.get("keep_ids")),
        unknown_id=tokens["unknown"] if tokens.get("keep_ids") else None,
        emit=emit and ("ids" if count is None else f"ids:{count}"),
        allow_nonfinite=True,
        allow_gather=bool(recorded["gather"]),
        allow_remove_special=True,
    )
    for units, (restore_ids, new_ids) in product(ranges, ids):
        yield replace(base, units=units, restore_ids=restore_ids, new_ids=new_ids)


def _given_labels(table: HeadRemap) -> list[str] | None:
    """One label for each unit before the cut; numbers for units that have none any more."""
    if not table.options["labels_given"] or table.labels is None:
        return None
    found = [f"unit {unit}" for unit in range(table.old_units)]
    for label, units in zip(table.labels, table.new_to_old, strict=True):
        if not isinstance(units, tuple):
            found[units] = label
    return found
