"""Ids of units that a model returns: what they say after a cut, and those that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from exporter.errors import ModelError, UsageError
from exporter.graph import Graph, Shape
from exporter.graph.edits import AddOutput, Edit, Insert
from exporter.graph.operations import TopK
from exporter.modes.mask_value import codes_of
from exporter.planning.detectors import restored_ids
from exporter.planning.options import CutOptions, ranks_asked
from exporter.remap import HeadRemap
from exporter.remap.head_remap import members, originals
from exporter.trace.head import Head
from exporter.trace.readers import Ranking
from exporter.trace.unit_axis import UnitTensor

IDS = "ids"
"""What is asked for, and the name of the output."""


def ids_told(head: Head, choice: CutOptions) -> dict[str, Any]:
    """Which outputs hold new ids, and whether others hold those of the first original."""
    if choice.restore_ids and choice.narrows:
        return {"restore_ids": True}
    restored = restorable(head) if _restores_ranks(head, choice) else ()
    known = {name for each in restored for name in (*each.outputs, *each.inexact_outputs)}
    new = tuple(name for name in head.readers.id_outputs if name not in known)
    return {"ids": new or None, "restore_ids": bool(restored) or None}


def with_emitted(graph: Graph, head: Head, table: HeadRemap, choice: CutOptions) -> HeadRemap:
    """The table with the output that was asked for (raises as `check_emitted` does)."""
    if choice.emit is None:
        return table
    count = ranks_asked(choice.emit)
    check_emitted(graph, head, table, count)
    emit = {"output": emitted_name(graph, head), "count": count}
    return replace(table, options={**table.options, "emit": emit})


def id_edits(graph: Graph, head: Head, table: HeadRemap, choice: CutOptions) -> Iterator[Edit]:
    """What brings ids of units back to the first original's, and what returns some besides."""
    if choice.new_ids and not restorable(head):
        raise UsageError(
            f"head {head.name!r} has no output with ids that a cut changes", "leave out new_ids"
        )
    if choice.restore_ids and choice.narrows and (head.readers.detections or not restorable(head)):
        yield from restored_ids(graph, head, table)
    if _restores_ranks(head, choice):
        yield from restored_ranks(graph, head, table)
    if choice.emit is not None:
        yield from emitted_ids(graph, head, table, ranks_asked(choice.emit))


def _restores_ranks(head: Head, choice: CutOptions) -> bool:
    return choice.narrows and not choice.new_ids and bool(restorable(head))


def restorable(head: Head) -> tuple[Ranking, ...]:
    """The rankings whose ids a cut changes, and that can go on to speak the first original's.

    1. Ids that only stand in rows beside boxes are a detector's class numbers, and not meant.
    2. A table of the model's own, which is cut with the units, must go on to be read with new ids.
    """
    return tuple(each for each in head.readers.rankings if each.outputs and not each.tables)


def restored_ranks(graph: Graph, head: Head, table: HeadRemap) -> Iterator[Insert]:
    """Edits behind which the ids of whatever ranks the units are those of the first original."""
    old = originals(table)
    changed = not np.array_equal(old, np.arange(head.units))
    for ranking in restorable(head) if changed else ():
        operation = ranking.node.operation
        assert isinstance(operation, TopK)  # noqa: S101 - narrows the type; a ranking has one
        name = ranking.node.outputs[operation.ids]
        dtype = graph.tensors[name].dtype
        yield Insert("look_up", name, (old.astype(dtype),), {"dtype": dtype})


def emitted_name(graph: Graph, head: Head) -> str:
    """The name of the output with ids: one that the model does not have yet."""
    return IDS if IDS not in graph.tensors else f"{head.output}_{IDS}"


def check_emitted(graph: Graph, head: Head, table: HeadRemap, count: int | None) -> None:
    """Refuse ids that would not be those of units.

    Raises:
        UsageError: there are not as many units.
        ModelError: the units do not stand alone on their axis; or the file has such an output.
    """
    units = head.tensor(head.output).unit_axis.units
    if not np.array_equal(units, np.arange(len(units))):
        raise ModelError(
            f"head {head.name!r} shares its axis with other values, and has no ids of its own",
            "leave out --emit; a detector's post-process returns class numbers",
        )
    answering = sum(1 for p in table.new_to_old if not set(members(p)).isdisjoint(table.kept))
    if count is not None and count > answering:
        raise UsageError(
            f"--emit {IDS}:{count} asks for more units than the {answering} that are left",
            f"ask for at most {IDS}:{answering}",
        )
    name = emitted_name(graph, head)
    if name in graph.tensors:
        raise ModelError(f"the model already has outputs {IDS!r} and {name!r}", "leave out --emit")


def emitted_ids(graph: Graph, head: Head, table: HeadRemap, count: int | None) -> tuple[Edit, ...]:
    """Edits that return ids besides: int32, the first original's, behind all that was edited.

    1. Kernels do not rank every type: what they do not take is made real first.
    2. Units that kept their places have kept their ids.
    3. Values that were codes are moved first, though nowhere else: onnxruntime computes what is
       read twice by other kernels, whose codes are others.
    """
    tensor, name = head.tensor(head.output), emitted_name(graph, head)
    axis, shape = tensor.unit_axis.axis, list(tensor.shape)
    shape[axis] = table.new_units
    edits = [*_moved(head, tensor, tuple(shape))]
    real = _real(tensor)
    if real is not None:
        edits.append(Insert(*real, shape=tuple(shape), name=name))
    asked = "arg_max" if count is None else "top_ids"
    how = {"axis": axis} if count is None else {"axis": axis, "count": count}
    shape[axis : axis + 1] = [] if count is None else [count]
    end = (tensor.name, name) if real is None else (name, None)
    edits.append(Insert(asked, end[0], (), how, tuple(shape), end[1]))
    old = originals(table)
    if not np.array_equal(old, np.arange(len(old))):
        edits.append(Insert("look_up", name, (old.astype(np.int32),), {"dtype": "int32"}))
    return (*edits, AddOutput(name, name))


def _moved(head: Head, tensor: UnitTensor, shape: Shape) -> Iterator[Insert]:
    if codes_of(head, tensor.name) is not None and tensor.quantization is None:
        yield Insert("concat", tensor.name, (), {"axis": tensor.unit_axis.axis}, shape)


def _real(tensor: UnitTensor) -> tuple[str, str, tuple[()], dict[str, object]] | None:
    """An operation that makes values of a type that can be ranked, where they are none."""
    known = tensor.quantization
    if tensor.dtype in {"int16", "uint16"} and known is not None and known.scale.size == 1:
        scale, zero_point = float(known.scale.item()), int(known.zero_point.item())
        codes = {"dtype": tensor.dtype, "scale": scale, "zero_point": zero_point}
        return "dequantize", tensor.name, (), codes
    return None
