"""Multiply-adds of Keras layers and operations, compared with arithmetic by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from exporter.formats.keras.draw import draw
from exporter.graph.multiply_adds import multiply_adds

CASES: list[tuple[str, Callable[..., Any], tuple[tuple[int, ...], ...], int | None]] = [
    (
        "scores and values by operations",
        lambda q, k: keras.ops.matmul(keras.ops.matmul(q, keras.ops.transpose(k, (0, 2, 1))), k),
        ((7, 4), (9, 4)),
        2 * 7 * 9 * 4,
    ),
    (
        "einsum",
        lambda q, k: keras.ops.einsum("bqd,bkd->bqk", q, k),
        ((7, 4), (9, 4)),
        7 * 9 * 4,
    ),
    ("einsum without a result", lambda q: keras.ops.einsum("bij", q), ((7, 4),), None),
    ("einsum of three", lambda q: keras.ops.einsum("bi,bi,bj->bj", q, q, q), ((7,),), None),
    ("attention", lambda q, v: keras.layers.Attention()([q, v]), ((7, 4), (9, 4)), 2 * 7 * 9 * 4),
    ("dot", lambda q, k: keras.layers.Dot(axes=2)([q, k]), ((7, 4), (9, 4)), 7 * 9 * 4),
    ("dot of vectors", lambda q, k: keras.layers.Dot(axes=(1, 1))([q, k]), ((4,), (4,)), 4),
    (
        "three projections, scores, values, projection",
        keras.layers.MultiHeadAttention(2, 8, value_dim=5),
        ((7, 12), (9, 11)),
        7 * 12 * 16 + 9 * 11 * 16 + 9 * 11 * 10 + 7 * 9 * 16 + 7 * 9 * 10 + 7 * 10 * 12,
    ),
    (
        "keys apart from values",
        keras.layers.MultiHeadAttention(2, 8),
        ((7, 12), (9, 11), (9, 10)),
        7 * 12 * 16 + 9 * 10 * 16 + 9 * 11 * 16 + 2 * 7 * 9 * 16 + 7 * 16 * 12,
    ),
    (
        "4 heads of queries share 2 of keys and values",
        lambda q: keras.layers.GroupQueryAttention(3, 4, 2)(q, q),
        ((7, 12),),
        7 * 12 * 12 + 2 * 7 * 12 * 6 + 2 * 7 * 7 * 12 + 7 * 12 * 12,
    ),
    (
        "attention over the rows of an image",
        lambda q: keras.layers.MultiHeadAttention(2, 8, attention_axes=(1,))(q, q),
        ((7, 6, 12),),
        None,
    ),
    (
        "transposed convolution",
        keras.layers.Conv2DTranspose(16, 2, strides=2),
        ((8, 8, 3),),
        8 * 8 * 3 * 16 * 2 * 2,
    ),
    (
        "depthwise convolution",
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
        ((8, 8, 3),),
        6 * 6 * 6 * 3 * 3,
    ),
    (
        "separable convolution",
        keras.layers.SeparableConv2D(5, 3, depth_multiplier=2),
        ((8, 8, 3),),
        6 * 6 * (6 * 3 * 3 + 6 * 5),
    ),
    ("matmul with an array", lambda x: x @ keras.ops.ones((4, 5)), ((7, 4),), None),
    ("dense", keras.layers.Dense(5), ((4,),), 4 * 5),
]


@pytest.mark.parametrize(
    ("build", "shapes", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_products(
    build: Callable[..., Any], shapes: tuple[tuple[int, ...], ...], expected: int | None
) -> None:
    inputs = [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, build(*inputs))
    assert multiply_adds(draw(model).graph) == expected
