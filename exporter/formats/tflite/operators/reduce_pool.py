"""What makes one value of many: reductions, pooling, ranks."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.tflite.call import NO_RANK, Call, Row
from exporter.graph.operations import Opaque, Operation, Pool, Reduce, TopK


def _reduce(function: str) -> Row:
    def row(call: Call) -> Operation:
        axes, rank = call.integers(1), call.rank(0)
        if axes is None:
            return Opaque("its axes are computed while the model runs")
        if not rank:
            return NO_RANK
        chosen = tuple(sorted({axis % rank for axis in axes}))
        return Reduce(chosen, bool(call.option("keepDims", default=False)), function)

    return row


def _pool(_: Call) -> Operation:
    """image [batch, h, w, channels]"""
    return Pool((1, 2))


def _arg(*, largest: bool) -> Row:
    def row(call: Call) -> Operation:
        axis, rank = call.integers(1), call.rank(0)
        if axis is None or len(axis) != 1:
            return Opaque("its axis is computed while the model runs")
        return TopK(axis[0] % rank, keepdims=False, largest=largest) if rank else NO_RANK

    return row


def _top_k(call: Call) -> Operation:
    k, rank = call.integers(1), call.rank(0)
    if k is None or len(k) != 1:
        return Opaque("how many it returns is computed while the model runs")
    return TopK(rank - 1, k=k[0], slot=1, ids=1) if rank else NO_RANK


ROWS: Mapping[str, Row] = {
    "ARG_MAX": _arg(largest=True),
    "ARG_MIN": _arg(largest=False),
    "AVERAGE_POOL_2D": _pool,
    "L2_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _reduce("mean"),
    "REDUCE_MAX": _reduce("max"),
    "REDUCE_MIN": _reduce("min"),
    "REDUCE_PROD": _reduce("prod"),
    "SUM": _reduce("sum"),
    "TOPK_V2": _top_k,
}
