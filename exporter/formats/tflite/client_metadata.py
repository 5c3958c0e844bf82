"""Add the metadata that MediaPipe needs to a cut file: names of units, and what inputs expect.

1. Each output with units, or with their new indices, gets a label file in the archive.
2. Each float input for images gets a normalization: MediaPipe opens no float file without one.
3. If there is no metadata, the outputs of a detector get the names by which MediaPipe finds them.

Entries that the file has are kept; only label files get the labels in the remap. A file does not
change if the remap has no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from exporter.formats.tflite import archive
from exporter.formats.tflite.labels import MAX_BYTES, lines_of, unit_counts, unit_files
from exporter.formats.tflite.metadata import (
    AXIS_LABELS,
    NAME,
    NORMALIZATION,
    UNKNOWN_PIXELS,
    VALUE_LABELS,
)
from exporter.formats.tflite.metadata_tree import NewerSchemaError, Tree, read_tree, write_tree
from exporter.formats.tflite.schema import File, metadata, set_metadata
from exporter.graph import Graph
from exporter.graph.edits import Plan
from exporter.graph.normalization import PIXELS, Normalization
from exporter.graph.operations import NonMaxSuppression
from exporter.remap import Remap

Labels = Mapping[tuple[int, int], Sequence[str]]  # (output, AssociatedFileType) -> the lines

_PARSER_VERSION = "1.0.0"  # the oldest that reads what is written here
_FEATURES, _IMAGE, _BOXES = 1, 2, 3  # types of ContentProperties
_RGB, _GRAYSCALE = 1, 2
_COLOR_SPACES = {1: _GRAYSCALE, 3: _RGB}  # by the number of channels
_TOP_LEFT_BOTTOM_RIGHT = [1, 0, 3, 2]  # where a box has left, top, right, bottom
_BOUNDARIES = 1  # BoundingBoxType: a box is its four sides


def add_metadata(
    file: File, graph: Graph, inputs: Sequence[str], outputs: Sequence[str], plan: Plan
) -> None:
    """Add what is missing, if the remap of the plan has labels.

    Args:
        file: already cut.
        graph: of the file before the cut.
        inputs, outputs: names in the cut file's order.
        plan: that was applied.

    Raises:
        ModelError: the archive or the metadata is damaged.
    """
    labels = _labels(graph, outputs, plan.remap) if plan.remap else {}
    data = metadata(file.model, NAME)
    if not labels:
        return
    missing = _replace_labels(file, labels, len(outputs))
    try:
        tree = _new_tree(graph, outputs) if data is None else read_tree(data.tobytes())
    except NewerSchemaError:
        return
    before = write_tree(tree)
    subgraph = tree.setdefault("subgraph_metadata", [{}])[0]
    if missing:
        _add_label_files(file, _tensors(subgraph, "output", outputs), missing)
        _tensors(subgraph, "input", inputs)
    for name, known in plan.images.items():
        if missing or known is not None:
            tensor = _tensors(subgraph, "input", inputs)[inputs.index(name)]
            _describe_image(tensor, graph.shape(name)[-1] or 0, known)
    after = write_tree(tree)
    if after != before:
        set_metadata(file.model, NAME, after)


# --- labels --------------------------------------------------------------------------------------


def _labels(graph: Graph, outputs: Sequence[str], remap: Remap) -> Labels:
    """The labels of each output that returns units or their new indices, and nothing else."""
    found = {}
    for head in remap.heads:
        if head.labels is None or not any(head.labels):
            continue
        if head.output in outputs and head.part is None:
            found[outputs.index(head.output), AXIS_LABELS] = head.labels
        for name in head.options["ids"] or ():
            if name in outputs and unit_counts(graph, name, VALUE_LABELS):
                found[outputs.index(name), VALUE_LABELS] = head.labels
    return found


def _replace_labels(file: File, labels: Labels, outputs: int) -> Labels:
    """Write other labels into label files that the metadata names; the labels without such a file.

    Of files in several languages, only the main one is changed.
    """
    entries = sorted(unit_files(file, outputs), key=lambda entry: entry.locale != "")
    changed: dict[str, bytes] = {}
    missing = dict(labels)
    for entry in entries:
        wanted = missing.pop((entry.output, entry.type), None)
        if wanted is None:
            continue
        content = archive.read(file.tail, entry.name, MAX_BYTES) if file.tail else None
        lines = [line.decode(errors="replace") for line in lines_of(content or b"")]
        if [line.removesuffix("\r") for line in lines] != list(wanted):
            changed[entry.name] = _text(wanted)
    _write(file, changed)
    return missing


def _add_label_files(file: File, tensors: Sequence[Tree], missing: Labels) -> None:
    """Add files with labels to the archive and to the metadata; equal labels share a file."""
    added: dict[Sequence[str], str] = {}
    taken = archive.names(file.tail) if file.tail else ()
    free = (name for name in _file_names() if name not in taken)
    for (output, kind), labels in missing.items():
        name = added[labels] if labels in added else added.setdefault(labels, next(free))
        files = tensors[output].setdefault("associated_files", [])
        files.append({"name": name, "description": "One label per line.", "type": kind})
    _write(file, {name: _text(labels) for labels, name in added.items()})


def _file_names() -> Iterator[str]:
    yield "labels.txt"
    yield from (f"labels-{number}.txt" for number in count(2))


def _text(labels: Sequence[str]) -> bytes:
    return "".join(f"{label}\n" for label in labels).encode()


def _write(file: File, changed: Mapping[str, bytes]) -> None:
    if changed:
        file.tail = archive.rewritten(file.tail, file.tail_start, changed)


# --- tensors -------------------------------------------------------------------------------------


def _new_tree(graph: Graph, outputs: Sequence[str]) -> Tree:
    tensors = [{"name": name, **_content(_FEATURES)} for name in outputs]
    for name, tensor in _detections(graph).items():
        if name in outputs:
            tensors[outputs.index(name)] = tensor
    subgraph = {"output_tensor_metadata": tensors}
    return {"subgraph_metadata": [subgraph], "min_parser_version": _PARSER_VERSION}


def _tensors(subgraph: Tree, end: str, names: Sequence[str]) -> list[Tree]:
    """The metadata of every input or output; MediaPipe needs an entry for each."""
    tensors: list[Tree] = subgraph.setdefault(f"{end}_tensor_metadata", [])
    tensors += [{"name": name} for name in names[len(tensors) :]]
    return tensors


def _content(kind: int, **properties: object) -> Tree:
    return {"content": {"content_properties_type": kind, "content_properties": properties}}


def _detections(graph: Graph) -> dict[str, Tree]:
    """Output of a post-process -> its metadata."""
    boxes = {"index": _TOP_LEFT_BOTTOM_RIGHT, "type": _BOUNDARIES}
    found: dict[str, Tree] = {}
    for node in graph.nodes:
        operation = node.operation
        rows = operation.rows if isinstance(operation, NonMaxSuppression) else None
        if rows is not None:
            outputs = [
                node.outputs[i] for i in (rows.boxes, rows.classes, rows.scores, rows.number)
            ]
            contents = [_content(_BOXES, **boxes), *[_content(_FEATURES)] * 3]
            for output, name, content in zip(outputs, _DETECTIONS, contents, strict=True):
                found[output] = {"name": name, **content}
    return found


_DETECTIONS = ("location", "category", "score", "number of detections")


def _describe_image(tensor: Tree, channels: int, known: Normalization | None) -> None:
    """State how pixels become values, if nothing states it."""
    units = tensor.setdefault("process_units", [])
    if any(unit.get("options_type") == NORMALIZATION for unit in units):
        return
    if known is None:
        tensor.setdefault("description", UNKNOWN_PIXELS)
    stated = PIXELS if known is None else known
    options = {"mean": list(stated.mean), "std": list(stated.std)}
    units.append({"options_type": NORMALIZATION, "options": options})
    if "content" not in tensor:
        tensor |= _content(_IMAGE, color_space=_COLOR_SPACES.get(channels, 0))
