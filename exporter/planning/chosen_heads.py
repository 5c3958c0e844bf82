"""Trace a model, and find the heads that the options of a cut name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.errors import ModelError, UsageError
from exporter.formats.model import Model
from exporter.planning.checks import check_head
from exporter.planning.detectors import without_background_label
from exporter.planning.options import CutOptions, parse_range
from exporter.selection.labels import read_labels
from exporter.storage.urls import local_path
from exporter.trace import (
    Trace,
    heads_cut_together,
    trace,
    trace_recorded,
    with_gathered,
    with_offers,
)
from exporter.trace.head import Head


def trace_for(model: Model, options: CutOptions) -> Trace:
    """All heads; the range of the units is given, or recorded in the remap of the model."""
    graph = model.graph()
    units = parse_range(options.units)
    if units is None:
        tables = model.remap.heads if model.remap else ()
        cut = ((table, table.part) for table in tables if not table.options["gather"])
        found = trace_recorded(graph, cut)
    else:
        found = trace(graph, units)
    named = [*options.cuts, *([options.head] if options.head else [])]
    if options.allow_gather:
        found = with_gathered(graph, found, units, named)
    elif options.mode == "slice" and (named or not found.heads):
        found = with_offers(graph, found, named)
    if units is not None and not (found.heads or found.gathered):
        raise UsageError(
            f"no head has its units at {units[0]}:{units[1]}: {found.refusals[0]}",
            "`exporter inspect MODEL` shows the heads and the parts of their axes",
        )
    return found


def heads_of_cut(model: Model, found: Trace, options: CutOptions) -> tuple[Head, ...]:
    """The chosen head and those that are cut with it; refused where they do not fit the options."""
    heads = heads_cut_together(model.graph(), found, found.head(options.head))
    units = parse_range(options.units)
    if units is not None and (heads[0].unit_range or (0, heads[0].units)) != units:
        raise UsageError(
            f"the model shows the positions of the units of head {heads[0].name!r}",
            "leave out --units",
        )
    check_head(heads[0], options)
    return heads


def check_boxes_of_classes(heads: Sequence[Head], options: CutOptions) -> None:
    """ModelError for what has no meaning for a box."""
    boxes = [h.output for h in heads[1:] if h.output not in heads[0].other_outputs]
    asked = {"--merge": options.merge, "--gate": options.gate, "--emit": options.emit}
    flag = next((flag for flag, value in asked.items() if value), None)
    if boxes and flag:
        raise ModelError(
            f"output {boxes[0]!r} has a box for each class, which cannot follow {flag}",
            f"leave out {flag}, or remove the boxes: --drop-output {boxes[0]}",
        )


def heads_to_cut(found: Trace, options: CutOptions) -> Iterator[tuple[Head, CutOptions]]:
    """Each head to cut, with its options; the class maps of a detector have the same ones."""
    if not options.cuts:
        if options.selects_nothing and options.drop_outputs and found.heads and not options.head:
            yield found.heads[0], options.of_head(found.heads[0].name, None, None)
            return
        head = found.head(options.head)
        for name in found.cut_with(head.name):
            yield found.head(name), options.of_head(name, options.keep, options.labels)
        return
    heads = {name: found.head(name) for name in options.cuts}
    labeled = _labeled_head(list(heads.values()), options)
    done: dict[str, str] = {}
    for name, keep in options.cuts.items():
        for each in found.cut_with(name):
            if done.setdefault(each, name) != name:
                raise UsageError(
                    f"heads {done[each]!r} and {name!r} are class maps of one detector",
                    "name one of them: the others keep the same units",
                )
            labels = options.labels if name == labeled else None
            yield found.head(each), options.of_head(each, keep, labels)


def _labeled_head(heads: Sequence[Head], options: CutOptions) -> str | None:
    """The name of the head that the given labels belong to: that with as many units."""
    labels = given_labels(options)
    if labels is None:
        return None
    fits = [h.name for h in heads if len(without_background_label(h, labels)) == h.units]
    if len(fits) != 1:
        names = " and ".join(map(repr, fits)) or "no head"
        raise UsageError(
            f"the {len(labels)} labels fit {names}, of {len(heads)} that are cut",
            "cut the head that they belong to in a call of its own",
        )
    return fits[0]


def given_labels(options: CutOptions) -> tuple[str, ...] | None:
    """The labels of the options, from a file or as they are; None without any."""
    given = options.labels
    labels = read_labels(local_path(given)) if isinstance(given, str | Path) else given
    return None if labels is None else tuple(labels)
