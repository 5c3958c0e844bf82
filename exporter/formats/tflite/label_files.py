"""Cut the label files and score calibrations in a file's archive to the kept units.

Both kinds of file have one line per unit. A file with another number of lines is not changed. Lines
are kept as bytes, so that the remaining ones do not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.errors import ModelError
from exporter.formats.tflite import archive
from exporter.formats.tflite.labels import MAX_BYTES, class_indices_of, lines_of, unit_files
from exporter.formats.tflite.metadata import SCORE_CALIBRATION, VALUE_LABELS
from exporter.formats.tflite.schema import File
from exporter.graph import Graph
from exporter.remap import Remap
from exporter.remap.head_remap import group_names, originals
from exporter.trace import trace_axis
from exporter.trace.rules import Refused


def cut_files(
    file: File, graph: Graph, outputs: Sequence[str], before: Remap | None, after: Remap
) -> None:
    """Cut the files in the archive to the units that the remap keeps.

    Args:
        file: its archive is replaced.
        graph: of the file before the cut.
        outputs: names in the graph, in the file's order.
        before, after: the remap in the file before the cut, and after it.

    Raises:
        ModelError: several outputs share a file and are cut differently; or the archive is damaged.
    """
    entries = unit_files(file, len(outputs)) if file.tail else []
    if not entries:
        return
    by_output = _kept_lines(before, after)
    by_ids = _kept_lines_of_ids(graph, by_output)
    changed: dict[str, bytes] = {}
    for entry in entries:
        content = archive.read(file.tail, entry.name, MAX_BYTES)
        if content is None:
            continue
        output = outputs[entry.output]
        kept = (by_ids if entry.type == VALUE_LABELS else by_output).get(output)
        if entry.type == SCORE_CALIBRATION:  # a post-process has one line per class index
            kept = kept or by_ids.get(class_indices_of(graph, output))
        cut = _cut(content, kept, named=entry.type != SCORE_CALIBRATION)
        if changed.setdefault(entry.name, cut) != cut:
            raise ModelError(
                f"the file {entry.name!r} in the model's archive belongs to several outputs, which "
                "this cut would leave different units"
            )
    if any(archive.read(file.tail, name, MAX_BYTES) != new for name, new in changed.items()):
        file.tail = archive.rewritten(file.tail, file.tail_start, changed)


@dataclass(frozen=True)
class _KeptLines:
    """The lines that remain of a file with one line per unit.

    Attributes:
        old_units: the number of lines before the cut.
        positions: the old line of each new unit.
        ids_restored: outputs with ids return the original ones, so that their files do not change.
        groups: new unit -> name, of merged units.
    """

    old_units: int
    positions: Sequence[int]
    ids_restored: bool
    groups: Mapping[int, str]


def _kept_lines(before: Remap | None, after: Remap) -> dict[str, _KeptLines]:
    """By the output that has the units."""
    known = {head.name: head for head in before.heads} if before is not None else {}
    result: dict[str, _KeptLines] = {}
    for head in after.heads:
        old_units, positions = head.old_units, originals(head)
        if head.name in known:
            earlier = known[head.name]
            old_units, positions = earlier.new_units, earlier.to_new(positions)
        restored = bool(head.options["restore_ids"])
        result[head.output] = _KeptLines(old_units, positions.tolist(), restored, group_names(head))
    return result


def _kept_lines_of_ids(graph: Graph, kept: Mapping[str, _KeptLines]) -> dict[str, _KeptLines]:
    """By the output that returns new unit indices."""
    return {
        output: lines
        for source, lines in kept.items()
        if not lines.ids_restored
        for output in _outputs_with_ids(graph, source)
    }


def _outputs_with_ids(graph: Graph, source: str) -> Iterator[str]:
    """The outputs that return indices of the units of a tensor."""
    for axis in range(len(graph.shape(source))):
        try:
            head = trace_axis(graph, source, axis)
        except Refused:
            continue
        yield from head.readers.id_outputs


def _cut(content: bytes, kept: _KeptLines | None, *, named: bool) -> bytes:
    """The kept lines. A merged unit has its group's name, or an empty line if not `named`."""
    lines = lines_of(content)
    if kept is None or len(lines) != kept.old_units:
        return content
    result = [lines[position] for position in kept.positions]
    for unit, name in kept.groups.items():
        result[unit] = (name.encode() if named else b"") + b"\r" * result[unit].endswith(b"\r")
    ends = content.endswith(b"\n") or not result[-1]
    return b"\n".join(result) + (b"\n" if ends else b"")
