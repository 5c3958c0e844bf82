"""Operators that compute one value from many: reductions, pooling, ranking."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.tflite.operator_view import OperatorView, Translate
from exporter.graph.operations import Operation, Pool, Reduce, TopK


def _reduce(view: OperatorView, function: str) -> Operation:
    axes, rank = view.known_integers(1, "its axes are"), view.known_rank(0)
    reduced = tuple(sorted({axis % rank for axis in axes}))
    return Reduce(reduced, bool(view.option("keepDims", default=False)), function)


def _pool(_: OperatorView) -> Operation:
    """image [batch, h, w, channels]"""
    return Pool((1, 2))


def _arg(view: OperatorView, *, largest: bool) -> Operation:
    axis = _single(view, "its axis is")
    return TopK(axis % view.known_rank(0), keepdims=False, largest=largest)


def _top_k(view: OperatorView) -> Operation:
    k = _single(view, "the number of values that it returns is")
    return TopK(view.known_rank(0) - 1, k=k, slot=1, ids=1)


def _single(view: OperatorView, subject: str) -> int:
    """The second input, if it is one constant integer."""
    values = view.integers(1)
    if values is None or len(values) != 1:
        raise UntranslatableError(f"{subject} computed while the model runs")
    return values[0]


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
