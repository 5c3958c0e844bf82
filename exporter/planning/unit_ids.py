"""Outputs that return unit indices: whether they are new ones or the original ones after a cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph, Shape
from exporter.graph.edits import AddOutput, Edit, Insert
from exporter.graph.operations import TopK
from exporter.modes.mask_value import quantization_at
from exporter.planning.detectors import restore_class_indices
from exporter.planning.options import CutOptions, parse_emit
from exporter.remap import HeadRemap
from exporter.remap.head_remap import members, originals
from exporter.trace.head import Head
from exporter.trace.readers import Ranking
from exporter.trace.unit_axis import UnitTensor

IDS = "ids"
"""The value of `emit`, and the name of the output that it adds."""


def id_options(head: Head, options: CutOptions) -> dict[str, Any]:
    """Entries for the options of a head's table: which outputs return new indices, and whether
    others return those of the first original.
    """
    if options.restore_ids and options.narrows:
        return {"restore_ids": True}
    restored = _restorable(head) if _restores_rankings(head, options) else ()
    known = {name for each in restored for name in (*each.outputs, *each.inexact_outputs)}
    new = tuple(name for name in head.readers.id_outputs if name not in known)
    return {"ids": new or None, "restore_ids": bool(restored) or None}


class IdEdits(NamedTuple):
    """Edits of one kind of outputs that return indices."""

    asked: Callable[[Head, CutOptions], bool]
    edits: Callable[[Graph, Head, HeadRemap, CutOptions], Iterable[Edit]]


def id_edits(graph: Graph, head: Head, table: HeadRemap, options: CutOptions) -> Iterator[Edit]:
    """The edits of ID_EDITS that the options and the head ask for."""
    for row in ID_EDITS:
        if row.asked(head, options):
            yield from row.edits(graph, head, table, options)


def check_new_ids(head: Head) -> None:
    """UsageError if no output returns indices that a cut changes."""
    if not _restorable(head):
        raise UsageError(
            f"head {head.name!r} has no output with indices that a cut changes",
            "leave out new_ids",
        )


def _restores_classes(head: Head, options: CutOptions) -> bool:
    detector = bool(head.readers.detections) or not _restorable(head)
    return options.restore_ids and options.narrows and detector


def _restores_rankings(head: Head, options: CutOptions) -> bool:
    """A model that reads new ids returns new ids, so that its answer can be its next input."""
    new = options.new_ids or options.cuts_input
    return options.narrows and not new and bool(_restorable(head))


def _restorable(head: Head) -> tuple[Ranking, ...]:
    """The rankings whose indices can be replaced by those of the first original.

    1. Not those that are only in rows next to boxes: they are class indices of a detector.
    2. Not those that the model looks up in a table of its own, which is cut with the units.
    """
    return tuple(each for each in head.readers.rankings if each.outputs and not each.tables)


def _restore_rankings(
    graph: Graph, head: Head, table: HeadRemap, _: CutOptions
) -> Iterator[Insert]:
    """Look up the index of the first original after each ranking."""
    old = originals(table)
    changed = not np.array_equal(old, np.arange(head.units))
    for ranking in _restorable(head) if changed else ():
        operation = ranking.node.operation
        assert isinstance(operation, TopK)  # noqa: S101 - narrows the type; a ranking has one
        name = ranking.node.outputs[operation.ids]
        dtype = graph.tensors[name].dtype
        yield Insert("look_up", name, (old.astype(dtype),), {"dtype": dtype})


# --- an output that is added ---------------------------------------------------------------------


def _emitted_name(graph: Graph, head: Head) -> str:
    return IDS if IDS not in graph.tensors else f"{head.output}_{IDS}"


def with_emitted_output(
    graph: Graph, head: Head, table: HeadRemap, options: CutOptions
) -> HeadRemap:
    """The table, with the output of indices that the options add, if they do.

    Raises:
        UsageError: there are fewer units than it shall return.
        ModelError: the units share their axis with other values; or the model has such an output.
    """
    if options.emit is None:
        return table
    count, units = parse_emit(options.emit), head.tensor(head.output).unit_axis.units
    if not np.array_equal(units, np.arange(len(units))):
        raise ModelError(
            f"head {head.name!r} shares its axis with other values, so that an index on it is no "
            "unit index",
            "leave out --emit; a detector's post-process returns class indices",
        )
    available = sum(1 for p in table.new_to_old if not set(members(p)).isdisjoint(table.kept))
    if count is not None and count > available:
        raise UsageError(
            f"--emit {IDS}:{count} asks for more units than the {available} that are kept",
            f"ask for at most {IDS}:{available}",
        )
    name = _emitted_name(graph, head)
    if name in graph.tensors:
        raise ModelError(f"the model already has outputs {IDS!r} and {name!r}", "leave out --emit")
    return replace(table, options={**table.options, "emit": {"output": name, "count": count}})


def _emit(graph: Graph, head: Head, table: HeadRemap, options: CutOptions) -> tuple[Edit, ...]:
    """Return the original indices of the units that rank first: int32, after all other edits.

    1. Kernels do not rank every type: values of other types are dequantized first.
    2. Units that kept their positions need no lookup.
    3. Real values that come from quantized ones are copied first: onnxruntime uses other kernels,
       with other results, for a tensor that is read twice.
    """
    count = parse_emit(options.emit or IDS)
    tensor, name = head.tensor(head.output), _emitted_name(graph, head)
    axis, shape = tensor.unit_axis.axis, list(tensor.shape)
    shape[axis] = table.new_units
    edits = [*_copy(head, tensor, tuple(shape))]
    attributes = _dequantization(tensor)
    if attributes is not None:
        edits.append(
            Insert("dequantize", tensor.name, (), attributes, shape=tuple(shape), name=name)
        )
    operation = "arg_max" if count is None else "top_ids"
    how = {"axis": axis} if count is None else {"axis": axis, "count": count}
    shape[axis : axis + 1] = [] if count is None else [count]
    source, result = (tensor.name, name) if attributes is None else (name, None)
    edits.append(Insert(operation, source, (), how, tuple(shape), result))
    old = originals(table)
    if not np.array_equal(old, np.arange(len(old))):
        edits.append(Insert("look_up", name, (old.astype(np.int32),), {"dtype": "int32"}))
    return (*edits, AddOutput(name, name))


def _copy(head: Head, tensor: UnitTensor, shape: Shape) -> Iterator[Insert]:
    if quantization_at(head, tensor.name) is not None and tensor.quantization is None:
        yield Insert("concat", tensor.name, (), {"axis": tensor.unit_axis.axis}, shape)


def _dequantization(tensor: UnitTensor) -> dict[str, object] | None:
    """The attributes of a dequantization, for values of a type that kernels do not rank."""
    known = tensor.quantization
    if tensor.dtype in {"int16", "uint16"} and known is not None and known.scale.size == 1:
        scale, zero_point = float(known.scale.item()), int(known.zero_point.item())
        return {"dtype": tensor.dtype, "scale": scale, "zero_point": zero_point}
    return None


ID_EDITS = (
    IdEdits(
        _restores_classes,
        lambda graph, head, table, _: restore_class_indices(graph, head, table),
    ),
    IdEdits(_restores_rankings, _restore_rankings),
    IdEdits(lambda _, options: options.emit is not None, _emit),
)
