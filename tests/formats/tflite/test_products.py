"""Multiply-adds of TFLite operators, compared with arithmetic by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from exporter.formats.tflite import from_bytes
from exporter.graph.multiply_adds import multiply_adds
from tests.builders.tflite_builder import Builder


def _scores(builder: Builder) -> None:
    """Scores of 2 heads: 7 queries, 9 keys, 4 features; the right side is transposed."""
    q, k = builder.feed("q", 1, 2, 7, 4), builder.feed("k", 1, 2, 9, 4)
    builder.op("BATCH_MATMUL", [q, k], (1, 2, 7, 9), "y", "BatchMatMulOptions", adjY=True)


def _left_transposed(builder: Builder) -> None:
    q, k = builder.feed("q", 1, 4, 7), builder.feed("k", 1, 4, 9)
    builder.op("BATCH_MATMUL", [q, k], (1, 7, 9), "y", "BatchMatMulOptions", adjX=True)


def _matrix_for_each_head(builder: Builder) -> None:
    q, k = builder.feed("q", 1, 2, 7, 4), builder.normal("k", 1, 2, 4, 9)
    builder.op("BATCH_MATMUL", [q, k], (1, 2, 7, 9), "y", "BatchMatMulOptions")


def _transposed_convolution(builder: Builder) -> None:
    """8 x 8 positions; the kernel is [16, 2, 2, 3]."""
    shape = builder.constant("shape", np.array([1, 16, 16, 16], np.int32))
    x, kernel = builder.feed("x", 1, 8, 8, 3), builder.normal("k", 16, 2, 2, 3)
    builder.op("TRANSPOSE_CONV", [shape, kernel, x], (1, 16, 16, 16), "y", "TransposeConvOptions")


def _convolution_with_computed_kernel(builder: Builder) -> None:
    x, kernel = builder.feed("x", 1, 8, 8, 3), builder.feed("k", 5, 3, 3, 3)
    builder.op("CONV_2D", [x, kernel], (1, 6, 6, 5), "y", "Conv2DOptions")


def _depthwise(builder: Builder) -> None:
    x, kernel = builder.feed("x", 1, 8, 8, 3), builder.normal("k", 1, 3, 3, 6)
    builder.op(
        "DEPTHWISE_CONV_2D",
        [x, kernel],
        (1, 6, 6, 6),
        "y",
        "DepthwiseConv2DOptions",
        depthMultiplier=2,
    )


def _computed_dense(builder: Builder) -> None:
    x, kernel = builder.feed("x", 1, 8), builder.feed("k", 5, 8)
    builder.op("FULLY_CONNECTED", [x, kernel], (1, 5), "y", "FullyConnectedOptions")


def _loop(builder: Builder) -> None:
    builder.op("WHILE", [builder.feed("x", 1, 8)], (1, 8), "y", "WhileOptions")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (_scores, 2 * 7 * 9 * 4),
        (_left_transposed, 7 * 9 * 4),
        (_matrix_for_each_head, 2 * 7 * 9 * 4),
        (_transposed_convolution, 8 * 8 * 16 * 2 * 2 * 3),
        (_convolution_with_computed_kernel, 6 * 6 * 5 * 3 * 3 * 3),
        (_depthwise, 6 * 6 * 6 * 3 * 3),
        (_computed_dense, 8 * 5),
        (_loop, None),
    ],
)
def test_products(build: Callable[[Builder], None], expected: int | None) -> None:
    builder = Builder()
    build(builder)
    assert multiply_adds(from_bytes(builder.content("y"), "net.tflite").graph()) == expected


def test_unknown_rank() -> None:
    builder = Builder()
    _left_transposed(builder)
    for name in ("q", "k", "y"):
        builder.at(name).shape, builder.at(name).hasRank = np.array([], np.int32), False
    assert multiply_adds(from_bytes(builder.content("y"), "net.tflite").graph()) is None
