"""Labels in the metadata of a file: read as data, never executed, and narrowed with the units."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto

from exporter.graph import Graph
from exporter.graph.operations import TopK
from exporter.remap import HeadRemap, Remap
from exporter.remap.head_remap import group_names

LINES = "character"  # of PaddlePaddle's exporters: a label a line
KEYS = ("names", "labels", "class_names", "classes", "id2label", "categories", LINES)
_LONGEST = 8_000_000  # characters; 250,000 labels have half of it


@dataclass(frozen=True)
class Entry:
    """One metadata entry that holds labels.

    Attributes:
        keys: what the labels stand under where the entry is a mapping; None where it is a list.
        write: gives the text of a list or a mapping, in the syntax that the entry has.
    """

    labels: tuple[str, ...]
    keys: type[int | str] | None
    write: Callable[[object], str]

    def text(self, labels: Sequence[str]) -> str:
        """The entry with other labels."""
        if self.keys is None:
            return self.write(list(labels))
        return self.write({self.keys(i): label for i, label in enumerate(labels)})


def read_entry(text: str) -> Entry | None:
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


def labels_of(model: ModelProto, graph: Graph) -> dict[str, tuple[str, ...]]:
    """Output name -> labels, for outputs with an axis as long as the first entry that fits; of
    rows of values, one with room for it.

    An output that holds ids has no such axis: there the axis counts that the ids point into.
    """
    held = _entries(model)
    entries = list(held.values())
    beside = [entry for key, entry in held.items() if key != LINES]  # a blank may be: no box
    found: dict[str, tuple[str, ...]] = {}
    for tensor in (*graph.outputs, *_ranked(graph)):
        lengths = graph.shape(tensor)[1:] or graph.shape(tensor)
        fitting = [entry.labels for entry in entries if len(entry.labels) in lengths]
        if not fitting and len(lengths) > 1:  # boxes may share the axis
            longest = max(length or 0 for length in lengths)
            fitting = [entry.labels for entry in beside if len(entry.labels) < longest]
        if fitting:
            found[tensor] = fitting[0]
    return found


def narrow_labels(model: ModelProto, labeled: Graph, before: Remap | None, remap: Remap) -> None:
    """Give every entry that labels the units of a cut head the labels that are left.

    Args:
        model: changed in place.
        labeled: the graph before the cut, with the labels that it had.
        before: the remap that the model carried before.
        remap: what it carries now.
    """
    for key, entry in _entries(model).items():
        for head in remap.heads:
            places = _places(head, before)
            fits = _label(entry, head, labeled, before)
            if fits and places != list(range(len(entry.labels))):
                names = group_names(head)
                left = [names.get(new, entry.labels[i]) for new, i in enumerate(places)]
                _set(model, key, entry.text(left))
                break


def _label(entry: Entry, head: HeadRemap, labeled: Graph, before: Remap | None) -> bool:
    """Does an entry label the units of a head? Of those that no output shows there are as many."""
    if head.output in labeled.labels or head.output in labeled.outputs:
        return labeled.labels.get(head.output) == entry.labels
    if head.options["restore_ids"]:  # readers look labels up by the numbers that are returned
        return False
    known = {table.name: table.new_units for table in before.heads} if before else {}
    return len(entry.labels) == known.get(head.name, head.old_units)


def _places(head: HeadRemap, before: Remap | None) -> list[int]:
    """Where the units that are left stood before the cut."""
    originals = [place[0] if isinstance(place, tuple) else place for place in head.new_to_old]
    if before is not None and any(table.name == head.name for table in before.heads):
        return [int(i) for i in before.to_new(originals, head=head.name)]
    return originals


def _entries(model: ModelProto) -> dict[str, Entry]:
    found = {}
    for prop in model.metadata_props:
        read = _read_lines if prop.key == LINES else read_entry
        entry = read(prop.value) if prop.key in KEYS else None
        if entry is not None:
            found[prop.key] = entry
    return dict(sorted(found.items(), key=lambda item: KEYS.index(item[0])))


def _read_lines(text: str) -> Entry | None:
    labels = tuple(text.removesuffix("\n").split("\n"))
    return Entry(labels, None, _lines) if len(text) <= _LONGEST else None


def _lines(value: object) -> str:
    assert isinstance(value, list)  # noqa: S101 - narrows the type
    return "\n".join(value)


def _entry(value: object, write: Callable[[object], str]) -> Entry | None:
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        return Entry(tuple(value), None, write)
    if not isinstance(value, Mapping) or not value:
        return None
    kind = next((k for k in (int, str) if all(type(key) is k for key in value)), None)
    if kind is None or not all(isinstance(label, str) for label in value.values()):
        return None
    wanted = [kind(i) for i in range(len(value))]
    if set(wanted) != set(value):
        return None
    return Entry(tuple(value[key] for key in wanted), kind, write)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _ranked(graph: Graph) -> list[str]:
    return [node.inputs[0] for node in graph.nodes if isinstance(node.operation, TopK)]


def _set(model: ModelProto, key: str, text: str) -> None:
    for prop in model.metadata_props:
        if prop.key == key:
            prop.value = text
