"""Plan a cut in four steps: trace the model, select the units, resolve the options, list the edits.

Several heads are planned one after the other. Nothing is changed or written here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from exporter.errors import UsageError, interpreting
from exporter.formats.model import Model, unit_labels
from exporter.graph.edits import Edit, Plan, RemoveOutputs, in_sequence, with_free_names
from exporter.graph.operations import NonMaxSuppression
from exporter.graph.walk import dependents
from exporter.modes import MODES, Semantics
from exporter.modes.merging import merge_units
from exporter.planning.checks import (
    check_merged_units,
    check_not_restored,
    check_weights,
)
from exporter.planning.chosen_heads import (
    check_boxes_of_classes,
    given_labels,
    heads_of_cut,
    heads_to_cut,
    trace_for,
)
from exporter.planning.cut_warnings import cut_warnings, untouched_classes
from exporter.planning.detectors import without_background_label
from exporter.planning.options import CutOptions
from exporter.planning.pixels import Images, pixel_warnings
from exporter.planning.special_units import keep_special
from exporter.planning.unit_ids import id_edits, id_options, with_emitted_output
from exporter.planning.vocabulary import (
    growth_warning,
    table_entry,
    vocabulary_edits,
    vocabulary_of,
)
from exporter.remap import HeadRemap, Origin, Pixels, Remap, compose
from exporter.remap.head_remap import OldUnits, members
from exporter.selection import Selection, Units, select
from exporter.selection.groups import UnitGroups, add_groups
from exporter.selection.unit_groups import select_groups
from exporter.trace import (
    Trace,
    heads_cut_together,
)
from exporter.trace.head import Head

__all__ = ["Cut", "CutOptions", "HeadCut", "Units", "cut_head", "plan_cut"]


@dataclass(frozen=True, eq=False)
class HeadCut:
    """What is cut in one head.

    Attributes:
        heads: the head, then those of other outputs that show the same units; in the model before
            all cuts.
    """

    heads: tuple[Head, ...]
    selection: Selection


@dataclass(frozen=True, eq=False)
class Cut:
    """A cut that is ready to be applied.

    Attributes:
        parts: one for each head that is cut, in the order of the cuts.
        plan: has no edits if all units are kept.
        remap: is written into the result.
        warnings: for the user, one sentence each.
    """

    parts: tuple[HeadCut, ...]
    mode: str
    plan: Plan
    remap: Remap
    warnings: tuple[str, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads of all parts."""
        return tuple(head for part in self.parts for head in part.heads)

    @property
    def matches(self) -> Iterator[str]:
        """The units that each pattern selects, one sentence each."""
        return (text for part in self.parts for text in part.selection.matches)

    @property
    def selection(self) -> Selection:
        """The units of the first head."""
        return self.parts[0].selection

    def quantized_to(self, precision: str) -> Cut:
        """The same cut of a model that was quantized before; the remap states the precision."""
        remap = replace(self.remap, precision=precision)
        *earlier, last = self.plan.parts
        plan = in_sequence([*earlier, replace(last, remap=remap)])
        return replace(self, remap=remap, plan=plan)


def plan_cut(
    model: Model,
    options: CutOptions,
    original: Origin | None = None,
    images: Images | None = None,
) -> Cut:
    """Plan a cut of a model.

    Args:
        model: of any kind.
        options: which units to keep, and how.
        original: the model from which this one was converted, if it was.
        images: how inputs expect pixels, for the metadata of the result (see `image_inputs`).

    Raises:
        UsageError: the options do not fit the model, or name no head.
        ModelError: the model has no head, or the mode cannot cut it.
        NotAllowedError: weights are not finite, or a detector's background is removed.
    """
    with interpreting(f"planning the cut of {model.name}"):
        return _plan(model, options, original, images or {})


def _plan(model: Model, options: CutOptions, original: Origin | None, images: Images) -> Cut:
    """The cuts of all heads, each planned in the result of those before it: heads may share a
    kernel.
    """
    check_not_restored(model)
    this, dropping = Origin(model.name, model.sha256), _dropping(model, options)
    model = model.apply(dropping[0]) if dropping else model
    found, before = trace_for(model, options), model
    parts, steps = [], list[Cut]()
    for head, of_head in heads_to_cut(found, options):
        first = not steps
        before = before if first else before.apply(steps[-1].plan)
        of_this = of_head if first else replace(of_head, drop_outputs=())
        try:
            traced = found if first else trace_for(before, of_this)
            source = original if first else None
            steps.append(_cut_head(before, of_this, this, source, images, found=traced))
        except UsageError as error:
            if not options.cuts:
                raise
            raise UsageError(f"head {head.name!r}: {error.message}", error.hint) from error
        heads = heads_cut_together(model.graph(), found, head)
        parts.append(HeadCut(heads, steps[-1].selection))
    remap = replace(steps[-1].remap, parent=steps[0].remap.parent)
    *earlier, last = (step.plan for step in steps)
    plan = in_sequence([*dropping, *earlier, replace(last, remap=remap)])
    warnings = dict.fromkeys(warning for step in steps for warning in step.warnings)
    return Cut(tuple(parts), options.mode, plan, remap, tuple(warnings))


def cut_head(model: Model, options: CutOptions, images: Images) -> Cut:
    """Plan the cut of one head, and of the other outputs that show its units (see `plan_cut`)."""
    dropping = _dropping(model, options)
    this = Origin(model.name, model.sha256)
    before = model.apply(dropping[0]) if dropping else model
    cut = _cut_head(before, options, this, None, images, found=trace_for(before, options))
    return replace(cut, plan=in_sequence([*dropping, cut.plan]))


def _dropping(model: Model, options: CutOptions) -> list[Plan]:
    """The plan that removes outputs, if the options ask for that."""
    names, known = options.drop_outputs, model.graph().outputs
    if not names:
        return []
    if cut := [name for name in (*options.cuts, options.head) if name in names]:
        raise UsageError(
            f"output {cut[0]!r} cannot be cut and removed", "leave one of the two options out"
        )
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"the model has no output {unknown[0]!r} to remove", f"outputs: {', '.join(known)}"
        )
    if set(known) <= set(names):
        raise UsageError("no output would be left", "keep at least one")
    for node in model.graph().nodes:
        rows = isinstance(node.operation, NonMaxSuppression) and dependents(
            model.graph(), node.outputs
        )
        if rows and (part := next((name for name in names if name in rows), None)):
            raise UsageError(
                f"{part!r} is a part of the rows that {node} returns",
                "the other parts cannot be checked without it: leave it in the model",
            )
    return [Plan((RemoveOutputs(names),))]


def _cut_head(
    model: Model,
    options: CutOptions,
    this: Origin,
    original: Origin | None,
    images: Images,
    *,
    found: Trace,
) -> Cut:
    """The cut of one head of a model without the outputs that are removed.

    Args:
        this: the model before all cuts of this call.
        found: the heads of the model.
    """
    heads = heads_of_cut(model, found, options)
    check_boxes_of_classes(heads, options)
    vocabulary = vocabulary_of(model.graph(), heads[0], options)
    if vocabulary:
        heads = (vocabulary.head, *heads[1:])
    used = vocabulary.used if vocabulary else ()
    selection, groups = _select(model, heads[0], options, original or this, used)
    resolved = _resolve(heads, selection, groups, options)
    tables = [each.table for each in resolved]
    if vocabulary:
        entry = {"vocabulary": table_entry(vocabulary, selection, options)}
        tables[0] = replace(tables[0], options={**tables[0].options, **entry})
    tables[0] = with_emitted_output(model.graph(), heads[0], tables[0], options)
    remap = _remap(model, tables, this, original, images)
    check_merged_units(model, remap.of(heads[0].name))
    of_ids = vocabulary_edits(model.graph(), vocabulary, tables[0]) if vocabulary else ()
    edits = (
        *with_free_names(_mode_edits(resolved, selection, options), model.graph().tensors),
        *(of_ids if not selection.keeps_all else ()),
        *id_edits(model.graph(), heads[0], remap.of(heads[0].name), options),
    )
    growth = growth_warning(model.graph(), heads[0], selection, options)
    if not options.allow_nonfinite:
        constants = {constant.name for head in heads for constant in head.constants}
        check_weights(model.graph(), constants, edits)
    warnings = (
        *cut_warnings(heads, selection, options, tables[0].new_units),
        *([growth] if growth else ()),
        *(
            f"signature {name!r} is not cut: it has a subgraph of its own, and keeps all units"
            for name in model.graph().other_entries
        ),
        *untouched_classes(model, heads[0], options),
        *pixel_warnings(images, tables[0], labeled=heads[0].labels is not None),
    )
    part = HeadCut(heads, selection)
    return Cut((part,), options.mode, Plan(edits, remap, images), remap, warnings)


def _select(
    model: Model, head: Head, options: CutOptions, original: Origin, used: Collection[int]
) -> tuple[Selection, UnitGroups]:
    """The kept units and the groups to merge; all units where only groups or a gate are given.

    Args:
        used: the units that the model itself needs.
    """
    labels = given_labels(options)
    all_units = options.keep is None and options.remove is None
    earlier = model.remap.original.sha256 if model.remap else None
    files = (model.sha256, original.sha256, earlier)
    in_groups = partial(select_groups, options.group or 1, blocks=options.group_blocks)
    selection = (select if options.group is None else in_groups)(
        units=head.units,
        keep=range(head.units // (options.group or 1)) if all_units else options.keep,
        remove=options.remove,
        labels=unit_labels(model, head)
        if labels is None
        else without_background_label(head, labels),
        keep_order=options.keep_order,
        hashes=tuple(filter(None, files)),
    )
    removed = options.remove is not None
    selection = keep_special(
        model.graph(),
        head,
        selection,
        options.protect,
        used,
        removed=removed,
        allowed=options.allow_remove_special or options.group is not None,
    )
    before = {table.name: table for table in model.remap.heads} if model.remap else {}
    rank = [min(members(p)) for p in before[head.name].new_to_old] if head.name in before else None
    return add_groups(selection, options.merge, removed=removed, rank=rank)


class _Resolved(NamedTuple):
    """A head, the options that its mode has resolved, and its table for the remap."""

    head: Head
    semantics: Semantics
    table: HeadRemap


def _resolve(
    heads: Sequence[Head], selection: Selection, groups: UnitGroups, options: CutOptions
) -> list[_Resolved]:
    asked, mode = replace(options.semantics, merge=groups), MODES[options.mode]
    semantics = [(head, mode.resolve(head, asked)) for head in heads]
    return [_Resolved(*each, _table(*each, selection, options)) for each in semantics]


def _table(
    head: Head, semantics: Semantics, selection: Selection, options: CutOptions
) -> HeadRemap:
    kept = selection.kept
    new_to_old = merge_units(kept, semantics) if options.narrows else tuple(range(head.units))
    units = head.unit_range or ((0, head.units) if options.units is not None else None)
    return HeadRemap(
        name=head.name,
        output=head.output,
        axis=head.axis,
        part=units and (units[0], units[0] + len(new_to_old)),
        mode=options.mode,
        activation=head.activation,
        logits=None if head.z == head.output else head.z,  # a cut keeps the names of tensors
        old_units=head.units,
        new_units=len(new_to_old),
        kept=kept,
        new_to_old=new_to_old,
        labels=_labels(selection, new_to_old, semantics),
        options={
            **semantics.options(),
            **id_options(head, options),
            "gather": bool(head.gather) or None,
            "labels_given": options.labels is not None or None,
            "drop_outputs": options.drop_outputs or None,
        },
    )


def _labels(
    selection: Selection, new_to_old: Sequence[OldUnits], semantics: Semantics
) -> tuple[str, ...] | None:
    """One for each new unit; a merged one has the name of its group."""
    labels = selection.labels
    names = {group: name for name, group in semantics.merge.items()}
    return labels and tuple(names[u] if isinstance(u, tuple) else labels[u] for u in new_to_old)


def _remap(
    model: Model,
    tables: Sequence[HeadRemap],
    this: Origin,
    original: Origin | None,
    images: Images,
) -> Remap:
    pixels = {
        name: None if known is None else Pixels(tuple(known.mean), tuple(known.std))
        for name, known in images.items()
    }
    later = Remap(original or this, this if original else None, tuple(tables), pixels=pixels)
    if model.remap is None:
        return later
    remap = compose(model.remap, later)
    dropped = {name for table in tables for name in table.options["drop_outputs"] or ()}
    return replace(remap, heads=tuple(h for h in remap.heads if h.output not in dropped))


def _mode_edits(
    resolved: Sequence[_Resolved], selection: Selection, options: CutOptions
) -> tuple[Edit, ...]:
    """The edits of the mode on the head, then after the other outputs that show its units."""
    mode, kept = MODES[options.mode], selection.kept
    (head, semantics, _), *others = resolved
    if selection.keeps_all and not semantics.merge and not mode.edits_all_kept:
        return ()
    edits = mode.edits(head, kept, semantics)
    more: list[Edit] = []
    removed_at = {head.z}
    for other, resolved_other, _ in others:
        # A mode that keeps the width removes units at z, and another output may have its own z.
        keeps_width = not (mode.narrows or mode.edits_all_kept or resolved_other.restore_width)
        is_separate = keeps_width and other.z not in removed_at
        has_own_constants = other.output not in head.other_outputs  # boxes of the classes
        separate = is_separate or has_own_constants
        edits_of = mode.edits if separate else mode.other_output_edits
        removed_at.add(other.z)
        more += edits_of(other, kept, resolved_other)
    return (*edits, *more)
