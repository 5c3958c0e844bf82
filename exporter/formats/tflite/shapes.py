"""Shape arithmetic: what a file computes of shapes while it runs, as far as it is known before.

Converters write a reshape that leaves the batch open as SHAPE, STRIDED_SLICE, PACK, RESHAPE. What
these compute is followed here, entry by entry, with None for an entry that only the run can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from exporter.formats.tflite.call import Call, Entries, Values
from exporter.graph import Tensor


def evaluate(calls: Iterable[Call]) -> Values:
    """What the shape arithmetic among the calls computes, in their order."""
    values: dict[str, Entries] = {}
    for call in calls:
        row = EVALUATED.get(call.operator)
        result = row(call, values) if row is not None and call.outputs else None
        if result is not None:
            values[call.outputs[0].name] = result
    return values


def entries(tensor: Tensor | None, values: Values) -> Entries | None:
    """The entries of an integer vector or scalar, constant or computed; None if not known."""
    if tensor is None:
        return None
    if tensor.read is None:
        return values.get(tensor.name)
    if not tensor.dtype.startswith("int") or tensor.shape is None or len(tensor.shape) > 1:
        return None
    return tuple(int(n) for n in np.atleast_1d(tensor.read()))


def _shape(call: Call, _: Values) -> Entries | None:
    source = call.input(0)
    return None if source is None else source.shape


def _strided_slice(call: Call, values: Values) -> Entries | None:
    given = entries(call.input(0), values)
    bounds = [call.constant(slot) for slot in (1, 2, 3)]
    if given is None or any(bound is None or bound.size != 1 for bound in bounds):
        return None
    begin, end, step = (int(bound.item()) for bound in bounds if bound is not None)
    if call.option("ellipsisMask") or call.option("newAxisMask") or step == 0:
        return None
    if call.option("shrinkAxisMask"):
        return (given[begin],) if -len(given) <= begin < len(given) else None
    first = None if call.option("beginMask") else begin
    return given[slice(first, None if call.option("endMask") else end, step)]


def _joined(call: Call, values: Values) -> Entries | None:
    parts = [entries(tensor, values) for tensor in call.inputs]
    if call.rank() != 1 or any(part is None for part in parts):
        return None
    return tuple(entry for part in parts if part is not None for entry in part)


def _gather(call: Call, values: Values) -> Entries | None:
    given = entries(call.input(0), values)
    chosen = entries(call.input(1), {})
    if given is None or chosen is None or any(not 0 <= (i or 0) < len(given) for i in chosen):
        return None
    return tuple(given[i or 0] for i in chosen)


EVALUATED: Mapping[str, Callable[[Call, Values], Entries | None]] = {
    "SHAPE": _shape,
    "STRIDED_SLICE": _strided_slice,
    "PACK": _joined,
    "CONCATENATION": _joined,
    "GATHER": _gather,
}
