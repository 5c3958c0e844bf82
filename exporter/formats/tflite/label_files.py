"""The label files and score calibrations behind a model: read for the graph, narrowed with a cut.

Which file speaks of which output stands in TFLite's own metadata. Both kinds of file have one line
a unit, and readers count them: a file with another number of lines is none of the units', and stays
as it is. Lines are handled as bytes, so that what is left reads as it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.metadata import (
    AXIS_LABELS,
    NAME,
    SCORE_CALIBRATION,
    VALUE_LABELS,
    AssociatedFile,
    associated_files,
)
from exporter.formats.tflite.schema import File, metadata
from exporter.graph import Graph
from exporter.graph.operations import NonMaxSuppression, TopK
from exporter.remap import Remap
from exporter.remap.head_remap import group_names, members
from exporter.trace import trace_axis
from exporter.trace.rules import Refused
from exporter.trace.rules.detectors import detector_of
from exporter.trace.rules.ranking import top_k_of

_LARGEST = 2**26  # bytes of a file with one line a unit

Names = Sequence[str]  # of the outputs in the graph, in the file's order


def check_whole(file: File, content: bytes, name: str) -> None:
    """Refuse a file whose archive lost its end: what is left of it would be lost without a word.

    Args:
        file: taken apart.
        content: what it was taken from.
        name: what messages call it.

    Raises:
        ModelError: there is no archive, but the beginning of one.
    """
    outputs = () if file.main.outputs is None else file.main.outputs
    for entry in () if file.tail else _entries(file, [""] * len(outputs)):
        if archive.holds_start(content, entry.name):
            raise ModelError(f"{name} is truncated: its archive with {entry.name!r} has no end")


def labels(file: File, graph: Graph, outputs: Names) -> dict[str, tuple[str, ...]]:
    """Output name -> one label a unit, as far as the file carries them; its main language first."""
    result: dict[str, tuple[str, ...]] = {}
    if not file.tail:
        return result
    entries = [e for e in _entries(file, outputs) if e.type in {AXIS_LABELS, VALUE_LABELS}]
    for entry in sorted(entries, key=lambda entry: entry.locale != ""):
        output = outputs[entry.output]
        lines = _lines(archive.read(file.tail, entry.name, _LARGEST) or b"")
        if output not in result and len(lines) in _widths(graph, output, entry.type):
            result[output] = tuple(
                line.decode(errors="replace").removesuffix("\r") for line in lines
            )
    return result


def follow(file: File, graph: Graph, outputs: Names, remaps: tuple[Remap | None, Remap]) -> None:
    """Narrow the files in the archive as the units were narrowed.

    Args:
        file: its archive is replaced.
        graph: of the file before the cut.
        outputs: see `Names`.
        remaps: that of the file before the cut, and that of the result.

    Raises:
        ModelError: a file serves several outputs that are not cut alike; or the archive is damaged.
    """
    changed: dict[str, bytes] = {}
    entries = _entries(file, outputs) if file.tail else []
    orders = _orders(remaps)
    ids = _ids(graph, orders) if entries else {}
    for entry in entries:
        content = archive.read(file.tail, entry.name, _LARGEST)
        if content is None:
            continue
        output = outputs[entry.output]
        order = ids.get(output) if entry.type == VALUE_LABELS else orders.get(output)
        if entry.type == SCORE_CALIBRATION:  # of a post-process it speaks of the class numbers
            order = order or ids.get(_numbers(graph, output))
        narrow = _narrowed(content, order, named=entry.type != SCORE_CALIBRATION)
        if changed.setdefault(entry.name, narrow) != narrow:
            raise ModelError(
                f"the file {entry.name!r} in the model's archive serves several outputs, which "
                "this cut would leave different units"
            )
    if any(archive.read(file.tail, name, _LARGEST) != new for name, new in changed.items()):
        file.tail = archive.rewritten(file.tail, file.tail_start, changed)


@dataclass(frozen=True)
class _Order:
    """Which of the old units stand where, for one output."""

    old_units: int
    places: Sequence[int]
    restored: bool  # ids are still the original's
    groups: Mapping[int, str]  # place -> name, of merged units


def _entries(file: File, outputs: Names) -> list[AssociatedFile]:
    data = metadata(file.model, NAME)
    if data is None:
        return []
    kinds = {AXIS_LABELS, VALUE_LABELS, SCORE_CALIBRATION}
    return [e for e in associated_files(data.tobytes(), len(outputs)) if e.type in kinds]


def _lines(content: bytes) -> list[bytes]:
    """As MediaPipe counts them: one empty line at the end is none."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _narrowed(content: bytes, order: _Order | None, *, named: bool) -> bytes:
    """The lines of the units that are left; a group has its name, or no calibration of its own."""
    lines = _lines(content)
    if order is None or len(lines) != order.old_units:
        return content
    left = [lines[place] for place in order.places]
    for place, name in order.groups.items():
        left[place] = (name.encode() if named else b"") + b"\r" * left[place].endswith(b"\r")
    ends = content.endswith(b"\n") or not left[-1]
    return b"\n".join(left) + (b"\n" if ends else b"")


def _widths(graph: Graph, output: str, kind: int) -> Sequence[int | None]:
    """How many lines a file of labels may have."""
    if kind == AXIS_LABELS:
        shape = graph.shape(output)
        return shape[1:] or shape  # the batch has no labels
    node = top_k_of(graph, output)
    if node is not None and isinstance(node.operation, TopK):
        return (graph.shape(node.inputs[0])[node.operation.axis],)
    node = detector_of(graph, output)
    if (
        node is None
        or not isinstance(node.operation, NonMaxSuppression)
        or output != _numbers(graph, output)
    ):
        return ()
    width = graph.shape(node.inputs[node.operation.classes])[node.operation.axis]
    return () if width is None else (width - node.operation.background,)


def _numbers(graph: Graph, output: str) -> str:
    """The class numbers that a post-process returns beside an output; "" where there are none."""
    node = detector_of(graph, output)
    if node is None or not isinstance(node.operation, NonMaxSuppression):
        return ""
    return node.outputs[node.operation.ids]


def _orders(remaps: tuple[Remap | None, Remap]) -> dict[str, _Order]:
    """By the output that shows the units."""
    before, after = remaps
    known = {table.name: table for table in before.heads} if before is not None else {}
    result: dict[str, _Order] = {}
    for table in after.heads:
        lowest = [min(members(place)) for place in table.new_to_old]
        restored = bool(table.options["restore_ids"])
        groups = group_names(table)
        result[table.output] = _Order(table.old_units, lowest, restored, groups)
        if table.name in known:
            earlier = known[table.name]
            result[table.output] = _Order(
                earlier.new_units, earlier.to_new(lowest).tolist(), restored, groups
            )
    return result


def _ids(graph: Graph, orders: Mapping[str, _Order]) -> dict[str, _Order]:
    """By the output that shows ids of the units."""
    return {
        output: order
        for shown, order in orders.items()
        if not order.restored
        for output in _ranked(graph, shown)
    }


def _ranked(graph: Graph, shown: str) -> Iterator[str]:
    """The outputs with ids of the units that an output, or an inner tensor, shows."""
    for axis in range(len(graph.shape(shown))):
        try:
            head = trace_axis(graph, shown, axis)
        except Refused:
            continue
        yield from head.readers.id_outputs
