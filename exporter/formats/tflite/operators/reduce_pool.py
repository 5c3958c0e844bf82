"""Operators that compute one value from many: reductions, pooling, ranking."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from exporter.formats.tflite.operator_view import NO_RANK, OperatorView, Translate
from exporter.graph.operations import Opaque, Operation, Pool, Reduce, TopK


def _reduce(view: OperatorView, function: str) -> Operation:
    axes, rank = view.integers(1), view.rank(0)
    if axes is None:
        return Opaque("its axes are computed while the model runs")
    if not rank:
        return NO_RANK
    reduced = tuple(sorted({axis % rank for axis in axes}))
    return Reduce(reduced, bool(view.option("keepDims", default=False)), function)


def _pool(_: OperatorView) -> Operation:
    """image [batch, h, w, channels]"""
    return Pool((1, 2))


def _arg(view: OperatorView, *, largest: bool) -> Operation:
    axis, rank = view.integers(1), view.rank(0)
    if axis is None or len(axis) != 1:
        return Opaque("its axis is computed while the model runs")
    return TopK(axis[0] % rank, keepdims=False, largest=largest) if rank else NO_RANK


def _top_k(view: OperatorView) -> Operation:
    k, rank = view.integers(1), view.rank(0)
    if k is None or len(k) != 1:
        return Opaque("the number of values that it returns is computed while the model runs")
    return TopK(rank - 1, k=k[0], slot=1, ids=1) if rank else NO_RANK


ROWS: Mapping[str, Translate] = {
    "ARG_MAX": partial(_arg, largest=True),
    "ARG_MIN": partial(_arg, largest=False),
    **dict.fromkeys(("AVERAGE_POOL_2D", "L2_POOL_2D", "MAX_POOL_2D"), _pool),
    "MEAN": partial(_reduce, function="mean"),
    "REDUCE_MAX": partial(_reduce, function="max"),
    "REDUCE_MIN": partial(_reduce, function="min"),
    "REDUCE_PROD": partial(_reduce, function="prod"),
    "SUM": partial(_reduce, function="sum"),
    "TOPK_V2": _top_k,
}
