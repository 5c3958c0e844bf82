"""Counts of multiply-adds, compared with arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.graph import Graph, Shape
from exporter.graph.multiply_adds import multiply_adds
from exporter.graph.operations import Elementwise, Linear, Opaque, Reshape
from exporter.graph.products import OUTPUT, Axis, Product, einsum
from tests.builders.graphs import Builder

DENSE = Linear(1, 1, 1)


def dense(x: Shape, y: Shape) -> Graph:
    builder = Builder()
    builder.feed("x", *x)
    last = len(y) - 1
    builder.node(Linear(1, 1, last), ["x", builder.constant("k", 6, 5)], y, "y")
    return builder.graph("y")


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        pytest.param((None, 6), (None, 5), 6 * 5, id="open batch"),
        pytest.param((4, 6), (4, 5), 6 * 5, id="a batch of 4 is four samples"),
        pytest.param((4, 7, 6), (4, 7, 5), 7 * 6 * 5, id="seven positions"),
        pytest.param((7, None, 6), (7, None, 5), None, id="the open axis is not the first"),
        pytest.param((None, None, 6), (None, None, 5), None, id="open length"),
        pytest.param((1, None, 6), (1, None, 5), None, id="open length, fixed batch"),
    ],
)
def test_dense(x: Shape, y: Shape, expected: int | None) -> None:
    assert multiply_adds(dense(x, y)) == expected


def test_nodes_that_multiply_nothing_count_as_0() -> None:
    builder = Builder()
    builder.node(Elementwise(function="relu"), [builder.feed("x", None, 6)], (None, 6), "y")
    assert multiply_adds(builder.graph("y")) == 0


@pytest.mark.parametrize(("shape", "expected"), [((8, 8), None), ((1, 8), 0)])
def test_unknown_operation(shape: tuple[int, ...], expected: int | None) -> None:
    """It may multiply a matrix; a vector is at most one multiply-add for each value."""
    builder = Builder()
    builder.node(
        Opaque(), [builder.feed("x", None, 8), builder.constant("m", *shape)], (None, 8), "y"
    )
    assert multiply_adds(builder.graph("y")) == expected


def heads_on_the_batch_axis(*, stated: bool = True) -> Graph:
    """x [batch, 10, 32] -> [batch * 8, 10, 4] -> scores of each head [batch * 8, 10, 10]."""
    builder = Builder()
    builder.feed("x", None, 10, 32)
    builder.node(Reshape((-1, 10, 4)), ["x"], (None, 10, 4), "split")
    scores: Product = (Axis(OUTPUT, 0), Axis(OUTPUT, 1), Axis(OUTPUT, 2), Axis(0, -1))
    builder.node(Opaque(), ["split", "split"], (None, 10, 10), "scores")
    builder.node(Elementwise(function="relu"), ["scores"], (None, 10, 10), "y")
    graph = builder.graph("y")
    nodes = (
        replace(node, products=(scores,) if stated else None) if node.name == "scores" else node
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def test_heads_on_the_batch_axis_are_counted() -> None:
    assert multiply_adds(heads_on_the_batch_axis()) == 8 * 10 * 10 * 4


def test_a_product_that_the_format_does_not_know_is_unknown() -> None:
    assert multiply_adds(heads_on_the_batch_axis(stated=False)) is None


def test_some_nodes() -> None:
    graph = heads_on_the_batch_axis()
    assert multiply_adds(graph, [graph.producers["y"][0]]) == 0
    assert multiply_adds(graph, []) == 0


def test_an_open_axis_that_no_input_has_is_unknown() -> None:
    """For example the number of non-zero values."""
    builder = Builder()
    builder.feed("x", 1, 6)
    builder.node(Elementwise(), ["x"], (None, 6), "found")
    builder.node(DENSE, ["found", builder.constant("k", 6, 5)], (None, 5), "y")
    assert multiply_adds(builder.graph("y")) is None


def test_a_reshape_that_does_not_divide_is_unknown() -> None:
    builder = Builder()
    builder.feed("x", None, 10)
    builder.node(Reshape((-1, 4)), ["x"], (None, 4), "split")
    builder.node(DENSE, ["split", builder.constant("k", 4, 5)], (None, 5), "y")
    assert multiply_adds(builder.graph("y")) is None


@pytest.mark.parametrize(
    ("z", "k"), [(None, (6, 5)), ((None, 5), ())], ids=["no output shape", "no kernel shape"]
)
def test_unknown_rank(z: Shape | None, k: tuple[int, ...]) -> None:
    builder = Builder()
    builder.node(DENSE, [builder.feed("x", None, 6), builder.constant("k", *k)], z, "y")
    assert multiply_adds(builder.graph("y")) is None


def test_axis_that_does_not_exist_is_unknown() -> None:
    builder = Builder()
    builder.node(Opaque(), [builder.feed("x", None, 6)], (None, 6), "y")
    graph = builder.graph("y")
    damaged = replace(graph.nodes[0], products=((Axis(0, 2),),))
    assert multiply_adds(replace(graph, nodes=(damaged,))) is None


@pytest.mark.parametrize(
    ("equation", "rank", "summed"),
    [
        ("bhqd,bhkd->bhqk", 4, [Axis(0, 3)]),
        ("ij, jk -> ik", 2, [Axis(0, 1)]),
        ("i,ij->", 0, [Axis(0, 0), Axis(1, 1)]),
        ("...qd,...kd->...qk", 4, [Axis(0, -1)]),
        ("...qd,...kd->qk", 2, None),
        ("ij,jk", 2, None),
    ],
)
def test_einsum(equation: str, rank: int, summed: list[Axis] | None) -> None:
    product = einsum(equation, rank)
    if summed is None:
        assert product is None
    else:
        assert product is not None
        assert product[:rank] == tuple(Axis(OUTPUT, axis) for axis in range(rank))
        assert set(product[rank:]) == set(summed)
