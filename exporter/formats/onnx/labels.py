"""Class names in a file's metadata: read as data, never executed, and cut with the units.

If a cut knows the labels and no entry has them, it adds the entry `names`, a Python dictionary such
as {0: 'owl', 1: 'macaw'}. Ultralytics writes and reads it, and so do tools that follow it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from exporter.formats.onnx.protos import set_metadata
from exporter.graph import Graph
from exporter.graph.operations import TopK
from exporter.remap import HeadRemap, Remap
from exporter.remap.head_remap import group_names
from exporter.selection.labels import ADDED_BY_READERS, Added, without_added

NAMES = "names"
LINES = "character"  # written by PaddlePaddle's exporters: one label a line
KEYS = (NAMES, "labels", "class_names", "classes", "id2label", "categories", LINES)
_LONGEST = 8_000_000  # characters; 250,000 labels have half of it


@dataclass(frozen=True)
class LabelEntry:
    """One metadata entry that contains labels.

    Attributes:
        labels: one a unit.
        keys: type of the keys of a mapping from index to label; None for a list.
        write: gives the text of a list or a mapping, in the syntax of the entry.
        around: the first and last labels that the entry does not contain: its reader adds them.
    """

    labels: tuple[str, ...]
    keys: type[int | str] | None
    write: Callable[[object], str]
    around: Added = ((), ())

    def text(self, labels: Sequence[str]) -> str:
        """The entry with other labels."""
        if self.keys is None:
            return self.write(without_added(labels, self.around))
        return self.write({self.keys(i): label for i, label in enumerate(labels)})


def read_entry(text: str) -> LabelEntry | None:
    """A list of labels, or a mapping from 0, 1, 2, ... to them, in JSON or as a Python literal."""
    if len(text) > _LONGEST:
        return None
    for read, write in ((json.loads, _json), (ast.literal_eval, repr)):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        return _entry(value, write)
    return None


def labels_of(
    model: ModelProto, graph: Graph, remap: Remap | None = None
) -> dict[str, tuple[str, ...]]:
    """Output name -> labels.

    1. The first entry with as many labels as an axis of the output is long. An entry with the
       labels of a head in the remap labels this head's output only.
    2. Otherwise, for an output with several axes: the first one with fewer labels than the longest
       axis, which may contain boxes too. Entries by line may have a blank that is not a class.
    3. An output of class indices has no such axis. There, the axis that the indices point into
       counts.
    """
    entries = _entries(model)
    owners: dict[tuple[str, ...] | None, set[str]] = {}
    for head in remap.heads if remap else ():
        if head.output in graph.outputs:
            owners.setdefault(head.labels, set()).add(head.output)
    found: dict[str, tuple[str, ...]] = {}
    ranks = (node for node in graph.nodes if entries and isinstance(node.operation, TopK))
    ranked = [node.inputs[0] for node in ranks]
    for tensor in (*graph.outputs, *ranked):
        lengths = graph.shape(tensor)[1:] or graph.shape(tensor)
        allowed = [(k, e.labels) for k, e in entries if tensor in owners.get(e.labels, {tensor})]
        fitting = [labels for _, labels in allowed if len(labels) in lengths]
        if not fitting and len(lengths) > 1:
            longest = max(length or 0 for length in lengths)
            fitting = [labels for k, labels in allowed if k != LINES and len(labels) < longest]
        if fitting:
            found[tensor] = fitting[0]
    return found


def update_labels(model: ModelProto, labeled: Graph, before: Remap | None, remap: Remap) -> None:
    """Give every entry that labels a cut head the labels of the new units.

    They are those in the remap, else those of the entry. If a head has labels and no entry for
    them, `names` is added.

    Args:
        model: changed in place.
        labeled: the graph before the cut, with its labels.
        before: the remap that the model contained before.
        remap: the remap of the result.
    """
    has_entry: set[str] = set()
    for key, entry in _entries(model):
        heads = [head for head in remap.heads if _is_for_head(entry, head, labeled, before)]
        has_entry.update(head.name for head in heads)
        new = (_known_labels(head) or _cut(entry, head, before) for head in heads)
        changed = next((labels for labels in new if labels != entry.labels), None)
        if changed is not None:
            set_metadata(model, key, entry.text(changed))
    unlabeled = (head for head in remap.heads if head.name not in has_entry)
    missing = next((head for head in unlabeled if _needs_names(head, labeled)), None)
    if missing is not None and all(prop.key != NAMES for prop in model.metadata_props):
        set_metadata(model, NAMES, repr(dict(enumerate(missing.labels or ()))))


def _known_labels(head: HeadRemap) -> tuple[str, ...] | None:
    """The labels in the remap; None if there are none, or only empty ones."""
    return head.labels if head.labels and any(head.labels) else None


def _cut(entry: LabelEntry, head: HeadRemap, before: Remap | None) -> tuple[str, ...]:
    """The entry's labels of the kept units; merged units have the names of their groups."""
    names = group_names(head)
    return tuple(
        names.get(new, entry.labels[old]) for new, old in enumerate(_kept_units(head, before))
    )


def _needs_names(head: HeadRemap, labeled: Graph) -> bool:
    """Does a head have labels, and does the model return the units or their new indices?"""
    shown = head.output in labeled.outputs or not head.options["restore_ids"]
    return shown and _known_labels(head) is not None


def _is_for_head(entry: LabelEntry, head: HeadRemap, labeled: Graph, before: Remap | None) -> bool:
    """Does an entry label the units of a head?

    If no output shows the units, it does if it has as many labels as the head had units.
    """
    if head.output in labeled.labels or head.output in labeled.outputs:
        return labeled.labels.get(head.output) == entry.labels
    if head.options["restore_ids"]:  # the model returns original indices: all labels stay valid
        return False
    known = {table.name: table.new_units for table in before.heads} if before else {}
    return len(entry.labels) == known.get(head.name, head.old_units)


def _kept_units(head: HeadRemap, before: Remap | None) -> list[int]:
    """The kept units, as indices in the model before this cut."""
    originals = [unit[0] if isinstance(unit, tuple) else unit for unit in head.new_to_old]
    if before is not None and any(table.name == head.name for table in before.heads):
        return [int(i) for i in before.to_new(originals, head=head.name)]
    return originals


def _entries(model: ModelProto) -> list[tuple[str, LabelEntry]]:
    """Key and entry. Lines are there several times, with and without what their reader adds."""
    found: list[tuple[str, LabelEntry]] = []
    for prop in model.metadata_props:
        if prop.key == LINES:
            found += [(LINES, entry) for entry in _read_lines(prop.value)]
        elif prop.key in KEYS and (entry := read_entry(prop.value)) is not None:
            found.append((prop.key, entry))
    return sorted(found, key=lambda item: KEYS.index(item[0]))


def _read_lines(text: str) -> Iterator[LabelEntry]:
    if len(text) <= _LONGEST:
        lines = tuple(text.removesuffix("\n").split("\n"))
        for first, last in ADDED_BY_READERS:
            yield LabelEntry((*first, *lines, *last), None, _lines, (first, last))


def _lines(value: object) -> str:
    assert isinstance(value, list)  # noqa: S101 - narrows the type
    return "\n".join(value)


def _entry(value: object, write: Callable[[object], str]) -> LabelEntry | None:
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return LabelEntry(tuple(value), None, write)
    if not isinstance(value, Mapping) or not value:
        return None
    kind = next((k for k in (int, str) if all(type(key) is k for key in value)), None)
    if kind is None or not all(isinstance(label, str) for label in value.values()):
        return None
    wanted = [kind(i) for i in range(len(value))]
    if set(wanted) != set(value):
        return None
    return LabelEntry(tuple(value[key] for key in wanted), kind, write)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
