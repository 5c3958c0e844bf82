"""Operators that compute one value from many: reductions, pooling, ArgMax, TopK."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.formats.check_operation import UntranslatableError
from exporter.formats.onnx.node_view import NodeView, Translate
from exporter.graph.operations import Operation, Pool, Reduce, TopK


def _reduce(function: str) -> Translate:
    """The axes are an attribute before opset 18 (ReduceSum: 13), an input since; none means all."""

    def translate(node: NodeView) -> Operation:
        rank = len(node.known_shape())
        axes = node.attributes.get("axes", ())
        if node.has(1):
            axes = node.known_integers(1, "its axes are")
        if not axes and not node.attributes.get("noop_with_empty_axes", 0):
            axes = range(rank)
        reduced = tuple(sorted(axis % rank for axis in axes))
        return Reduce(reduced, bool(node.attributes.get("keepdims", 1)), function)

    return translate


def global_pool(function: str) -> Translate:
    """Over all axes but the batch and the channels."""
    return lambda node: Reduce(_spatial_axes(node), keepdims=True, function=function)


def pool(node: NodeView) -> Operation:
    if node.is_read(1):
        raise UntranslatableError("the indices of its maxima are read")
    return Pool(_spatial_axes(node))


def _spatial_axes(node: NodeView) -> tuple[int, ...]:
    rank = len(node.known_shape())
    channels_last = node.attributes.get("channels_last", 0)
    return tuple(range(1, rank - 1) if channels_last else range(2, rank))


def _arg(*, largest: bool) -> Translate:
    return lambda node: TopK(
        node.axis(default=0),
        keepdims=bool(node.attributes.get("keepdims", 1)),
        largest=largest,
        last=bool(node.attributes.get("select_last_index", 0)),
    )


def _top_k(node: NodeView) -> Operation:
    """k is an attribute before opset 10, an input since."""
    axis, stated = node.axis(default=-1), node.attributes.get("k")
    counts = node.integers(1) if stated is None else (stated,)
    if counts is None or len(counts) != 1:
        raise UntranslatableError(
            "the number of values it returns is computed while the model runs"
        )
    if not node.attributes.get("sorted", 1):
        raise UntranslatableError("it returns values in no stated order")
    return TopK(
        axis,
        k=counts[0],
        slot=1 if stated is None else None,
        attribute=None if stated is None else "k",
        ids=1,
        largest=bool(node.attributes.get("largest", 1)),
    )


ROWS: Mapping[str, Translate] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "AveragePool": pool,
    "GlobalAveragePool": global_pool("mean"),
    "GlobalMaxPool": global_pool("max"),
    "MaxPool": pool,
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
