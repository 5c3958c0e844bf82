"""Labels in a file next to a model: they are read for a cut, and the file follows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from exporter.errors import ExporterError
from exporter.formats.model import Model, unit_labels
from exporter.jobs.source import OpenedModel
from exporter.planning.chosen_heads import trace_for
from exporter.planning.options import CutOptions, parse_range
from exporter.remap import Remap
from exporter.selection.nearby_labels import LabelFile, has_candidates, nearby_labels
from exporter.trace.head import Head

_ROWS = 3  # axes of an output with units for each step of a text


def with_label_file(
    model: Model, path: Path | None, options: CutOptions
) -> tuple[CutOptions, LabelFile | None]:
    """The options with the labels in a file next to the model, and that file.

    Only if no labels are given, and the model has none for the head.

    Args:
        model: to be cut.
        path: of its file; None if it has none.
    """
    is_settled = options.labels is not None or options.cuts_input  # then a tokenizer names units
    if path is None or is_settled or not has_candidates(path):
        return options, None
    try:
        found = trace_for(model, options)
        heads = [found.head(name) for name in options.cuts or (options.head,)]
    except ExporterError:  # planning the cut says why
        return options, None
    part = parse_range(options.units)
    file = label_file_of(model, path, heads, part and part[1] - part[0])
    return (options, None) if file is None else (replace(options, labels=file.labels), file)


def with_label_files(
    opened: OpenedModel, variants: Mapping[str, CutOptions]
) -> tuple[OpenedModel, dict[str, tuple[CutOptions, LabelFile | None]]]:
    """As `with_label_file`, for several cuts of a model, whose warnings name the files."""
    found = {n: with_label_file(opened.model, opened.path, each) for n, each in variants.items()}
    notes = dict.fromkeys(text for _, file in found.values() for text in note(file))
    return replace(opened, warnings=(*opened.warnings, *notes)), found


def label_file_of(
    model: Model, path: Path, heads: Iterable[Head], units: int | None = None
) -> LabelFile | None:
    """The file with the labels of the only head that has none in the model."""
    unlabeled = [head for head in heads if unit_labels(model, head) is None]
    if len(unlabeled) != 1:
        return None
    is_text = len(unlabeled[0].tensor(unlabeled[0].output).shape) == _ROWS
    return nearby_labels(path, units or unlabeled[0].units, is_text=is_text)


def label_texts(file: LabelFile | None, remap: Remap | None) -> dict[str, str]:
    """Name -> text of the file that follows a cut; {} if there is none."""
    heads = remap.heads if remap else ()
    labels = next((head.labels for head in heads if head.labels), None)
    return {} if file is None or labels is None else {file.path.name: file.text(labels)}


def next_to(out: Path, file: LabelFile | None, remap: Remap, *, force: bool) -> dict[str, str]:
    """As `label_texts`, for an output file. A file that is there keeps its name: this one gets that
    of the output in front.
    """
    texts = label_texts(file, remap)
    if file is None or not texts:
        return {}
    target = out.with_name(file.path.name)
    is_same_folder = target.resolve() == file.path.resolve()
    is_taken = is_same_folder or (target.exists() and not force)
    return {f"{out.stem}.{n}" if is_taken else n: text for n, text in texts.items()}


def note(file: LabelFile | None) -> tuple[str, ...]:
    """A remark for the user."""
    if file is None:
        return ()
    added = " and ".join(map(repr, (*file.around[0], *file.around[1])))
    more = f", and {added}, which its reader adds" if added else ""
    return (f"labels read from {file.path.name} next to the model{more}",)
