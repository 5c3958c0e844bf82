"""What makes one value of many: reductions, pooling, ranks."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.onnx.call import Call, Row
from exporter.graph.operations import Opaque, Operation, Pool, Reduce, TopK

_UNKNOWN_RANK = Opaque("the rank of its input is not known")


def _reduce(function: str) -> Row:
    """The axes are an attribute before opset 18 (ReduceSum 13), an input since; none are all."""

    def row(call: Call) -> Operation:
        shape = call.shape(0)
        axes = call.integers(1) if call.has(1) else call.attributes.get("axes", ())
        if shape is None:
            return _UNKNOWN_RANK
        if axes is None:
            return Opaque("its axes are computed while the model runs")
        if not axes and not call.attributes.get("noop_with_empty_axes", 0):
            axes = range(len(shape))
        chosen = tuple(sorted(axis % len(shape) for axis in axes))
        return Reduce(chosen, bool(call.attributes.get("keepdims", 1)), function)

    return row


def _global(function: str) -> Row:
    """Behind the batch and the channels."""

    def row(call: Call) -> Operation:
        shape = call.shape(0)
        if shape is None:
            return _UNKNOWN_RANK
        return Reduce(tuple(range(2, len(shape))), keepdims=True, function=function)

    return row


def _pool(call: Call) -> Operation:
    shape = call.shape(0)
    if shape is None:
        return _UNKNOWN_RANK
    if call.is_read(1):
        return Opaque("the places of its maxima are read")
    return Pool(tuple(range(2, len(shape))))


def _arg(*, largest: bool) -> Row:
    def row(call: Call) -> Operation:
        shape = call.shape(0)
        if shape is None:
            return _UNKNOWN_RANK
        return TopK(
            call.attributes.get("axis", 0) % len(shape),
            keepdims=bool(call.attributes.get("keepdims", 1)),
            largest=largest,
            last=bool(call.attributes.get("select_last_index", 0)),
        )

    return row


def _top_k(call: Call) -> Operation:
    """How many is an attribute before opset 10, an input since."""
    shape = call.shape(0)
    stated = call.attributes.get("k")
    given = call.integers(1) if stated is None else (stated,)
    if shape is None:
        return _UNKNOWN_RANK
    if given is None or len(given) != 1:
        return Opaque("how many it returns is computed while the model runs")
    if not call.attributes.get("sorted", 1):
        return Opaque("it returns them in no stated order")
    return TopK(
        call.attributes.get("axis", -1) % len(shape),
        k=given[0],
        slot=1 if stated is None else None,
        attribute=None if stated is None else "k",
        ids=1,
        largest=bool(call.attributes.get("largest", 1)),
    )


ROWS: Mapping[str, Row] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "AveragePool": _pool,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("max"),
    "MaxPool": _pool,
    "ReduceL1": _reduce("l1"),
    "ReduceL2": _reduce("l2"),
    "ReduceLogSumExp": _reduce("log_sum_exp"),
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("mean"),
    "ReduceMin": _reduce("min"),
    "ReduceProd": _reduce("prod"),
    "ReduceSum": _reduce("sum"),
    "ReduceSumSquare": _reduce("sum_square"),
    "TopK": _top_k,
}
