"""Labels of a file's outputs, read from the label files in its archive.

TFLite's metadata says which label file belongs to which output. A label file has one line per unit;
a file with another number of lines has no labels of the units.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from exporter.formats.tflite.schema import File, integers, metadata
from exporter.graph import Graph
from exporter.graph.operations import NonMaxSuppression, TopK
from exporter.trace.rules.detections import detector_of
from exporter.trace.rules.rankings import top_k_of

MAX_BYTES = 2**26  # of a file with one line per unit


def check_archive(file: File, content: bytes, name: str) -> None:
    """Refuse a file whose archive is cut off: an edit would lose the rest of it.

    Args:
        file: unpacked.
        content: its bytes.
        name: of the file, for the error.

    Raises:
        ModelError: there is no archive, but the start of one.
    """
    if file.tail:
        return
    for entry in unit_files(file, len(integers(file.main.outputs))):
        if archive.has_start_of(content, entry.name):
            raise ModelError(f"{name} is truncated: its archive with {entry.name!r} has no end")


def labels(file: File, graph: Graph, outputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The labels that the file contains.

    Args:
        file: unpacked.
        graph: of the file.
        outputs: names in the graph, in the file's order.

    Returns:
        Output name -> one label per unit; those of the main language, if there are several.
    """
    result: dict[str, tuple[str, ...]] = {}
    if not file.tail:
        return result
    entries = [e for e in unit_files(file, len(outputs)) if e.type in {AXIS_LABELS, VALUE_LABELS}]
    for entry in sorted(entries, key=lambda entry: entry.locale != ""):
        output = outputs[entry.output]
        lines = lines_of(archive.read(file.tail, entry.name, MAX_BYTES) or b"")
        if output not in result and len(lines) in unit_counts(graph, output, entry.type):
            result[output] = tuple(
                line.decode(errors="replace").removesuffix("\r") for line in lines
            )
    return result


def unit_files(file: File, outputs: int) -> list[AssociatedFile]:
    """The associated files with one line per unit, of the first `outputs` outputs."""
    data = metadata(file.model, NAME)
    if data is None:
        return []
    types = {AXIS_LABELS, VALUE_LABELS, SCORE_CALIBRATION}
    return [e for e in associated_files(data.tobytes(), outputs) if e.type in types]


def lines_of(content: bytes) -> list[bytes]:
    """The lines as MediaPipe counts them: an empty last line does not count."""
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def unit_counts(graph: Graph, output: str, file_type: int) -> Sequence[int | None]:
    """The numbers of lines that a label file of an output may have."""
    if file_type == AXIS_LABELS:
        shape = graph.shape(output)
        return shape[1:] or shape  # the batch has no labels
    node = top_k_of(graph, output)
    if node is not None and isinstance(node.operation, TopK):
        return (graph.shape(node.inputs[0])[node.operation.axis],)
    node = detector_of(graph, output)
    if node is None or not isinstance(node.operation, NonMaxSuppression):
        return ()
    if output != node.outputs[node.operation.ids]:
        return ()
    width = graph.shape(node.inputs[node.operation.classes])[node.operation.axis]
    return () if width is None else (width - node.operation.background,)


def class_indices_of(graph: Graph, output: str) -> str:
    """The class indices that a post-process returns together with an output; "" if none."""
    node = detector_of(graph, output)
    if node is None or not isinstance(node.operation, NonMaxSuppression):
        return ""
    return node.outputs[node.operation.ids]
