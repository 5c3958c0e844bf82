"""Shape arithmetic: evaluate the operators that compute shapes, as far as shapes are known.

Converters write a reshape that leaves the batch open as SHAPE, STRIDED_SLICE, PACK, RESHAPE. Each
entry of a shape vector is evaluated by itself; None is an entry that is not known before the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from exporter.formats.tflite.operator_view import Entries, KnownShapes, OperatorView
from exporter.graph import Tensor


def evaluate(views: Iterable[OperatorView]) -> KnownShapes:
    """The results of shape arithmetic. Args: views: in running order."""
    known: dict[str, Entries] = {}
    for view in views:
        row = EVALUATED.get(view.operator)
        result = row(view, known) if row is not None and view.outputs else None
        if result is not None:
            known[view.outputs[0].name] = result
    return known


def entries(tensor: Tensor | None, values: KnownShapes) -> Entries | None:
    """The entries of a constant or computed integer vector or scalar; None if not known."""
    if tensor is None:
        return None
    if tensor.read is None:
        return values.get(tensor.name)
    if not tensor.dtype.startswith("int") or tensor.shape is None or len(tensor.shape) > 1:
        return None
    return tuple(int(n) for n in np.atleast_1d(tensor.read()))


def _shape(view: OperatorView, _: KnownShapes) -> Entries | None:
    source = view.input(0)
    return None if source is None else source.shape


def _strided_slice(view: OperatorView, values: KnownShapes) -> Entries | None:
    given = entries(view.input(0), values)
    bounds = [view.constant(slot) for slot in (1, 2, 3)]
    if given is None or any(bound is None or bound.size != 1 for bound in bounds):
        return None
    begin, end, step = (int(bound.item()) for bound in bounds if bound is not None)
    if view.option("ellipsisMask") or view.option("newAxisMask") or step == 0:
        return None
    if view.option("shrinkAxisMask"):
        return (given[begin],) if -len(given) <= begin < len(given) else None
    first = None if view.option("beginMask") else begin
    return given[slice(first, None if view.option("endMask") else end, step)]


def _joined(view: OperatorView, values: KnownShapes) -> Entries | None:
    parts = [entries(tensor, values) for tensor in view.inputs]
    if view.rank() != 1 or any(part is None for part in parts):
        return None
    return tuple(entry for part in parts if part is not None for entry in part)


def _gather(view: OperatorView, values: KnownShapes) -> Entries | None:
    given = entries(view.input(0), values)
    chosen = entries(view.input(1), {})
    if given is None or chosen is None or any(not 0 <= (i or 0) < len(given) for i in chosen):
        return None
    return tuple(given[i or 0] for i in chosen)


EVALUATED: Mapping[str, Callable[[OperatorView, KnownShapes], Entries | None]] = {
    "SHAPE": _shape,
    "STRIDED_SLICE": _strided_slice,
    "PACK": _joined,
    "CONCATENATION": _joined,
    "GATHER": _gather,
}
