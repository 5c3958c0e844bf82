"""Unit axes after a reshape: refused cases, expected results, and a brute-force comparison."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.graph import Shape
from exporter.graph.operations import Operation
from exporter.trace.rules import RULES
from exporter.trace.rules.reshape import move_from_front, move_unit_axis
from exporter.trace.unit_axis import UnitAxis


def unit_axis(axis: int, *units: int) -> UnitAxis:
    return UnitAxis(axis, np.array(units))


@pytest.mark.parametrize(
    ("axis", "units", "source", "goal"),
    [
        pytest.param(1, range(6), (None, 6), (None, 2, 3), id="split over two axes"),
        pytest.param(1, range(4), (None, 4), (None, None), id="unknown goal"),
        pytest.param(1, range(4), (2, 4, None), (8, None), id="unknown after the axis"),
        pytest.param(0, range(4), (4, 3), (3, 4), id="scrambled"),
        pytest.param(1, range(3), (2, 3), (None,), id="merged into an unknown axis"),
        pytest.param(1, range(3), (2, 3), (5,), id="sizes disagree"),
        pytest.param(0, range(3), (3,), (), id="no goal axis"),
        pytest.param(1, (0,), (None, 1), (None,), id="a single unit is on no axis of the goal"),
        pytest.param(0, (5, 5), (2,), (1, 1, 2, 1), id="equal units are on no axis"),
    ],
)
def test_units_on_no_single_axis(
    axis: int, units: tuple[int, ...], source: Shape, goal: Shape
) -> None:
    assert move_unit_axis(unit_axis(axis, *units), source, goal) is None


@pytest.mark.parametrize(
    ("axis", "units", "source", "goal", "expected_axis", "expected"),
    [
        pytest.param(1, (0, 1, 2), (None, 3), (None, 3), 1, (0, 1, 2), id="nothing moves"),
        pytest.param(
            3, (0, 1), (None, 1, 1, 2), (None, 2), 1, (0, 1), id="squeezed, channels last"
        ),
        pytest.param(
            1, (0, 1), (None, 2, 1, 1), (None, 2), 1, (0, 1), id="squeezed, channels first"
        ),
        pytest.param(1, (0, 1), (None, 2), (None, 1, 2, 1), 2, (0, 1), id="unsqueezed"),
        pytest.param(2, (0, 1), (None, 3, 2), (None, 2), 1, (0, 1), id="rows join the batch"),
        pytest.param(1, (0, 1), (6, 2), (2, 3, 2), 2, (0, 1), id="the batch is split"),
        pytest.param(
            2, (0, 1, 2), (1, 2, 3), (1, 6), 1, (0, 1, 2, 0, 1, 2), id="anchors before units merge"
        ),
        pytest.param(
            1, (0, 1, 2), (1, 3, 2), (1, 6), 1, (0, 0, 1, 1, 2, 2), id="anchors after units merge"
        ),
        pytest.param(
            1, (0, 1, 2, 0, 1, 2), (1, 6), (1, 2, 3), 2, (0, 1, 2), id="anchors before units split"
        ),
        pytest.param(1, (0, 0, 1, 1), (1, 4), (1, 2, 2), 1, (0, 1), id="anchors after units split"),
        pytest.param(
            1, (-1, 0, 1), (2, 3), (2, 3, 1), 1, (-1, 0, 1), id="positions without a unit"
        ),
    ],
)
def test_units_move_with_their_positions(  # noqa: PLR0917 - one argument a column of the table
    axis: int,
    units: tuple[int, ...],
    source: Shape,
    goal: Shape,
    expected_axis: int,
    expected: tuple[int, ...],
) -> None:
    moved = move_unit_axis(unit_axis(axis, *units), source, goal)
    assert moved is not None
    assert (moved.axis, moved.units.tolist()) == (expected_axis, list(expected))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Two factorizations of one size, and an axis of the first that is wider than 1."""
    primes = draw(st.lists(st.sampled_from([2, 3]), min_size=1, max_size=5))

    def shape() -> tuple[int, ...]:
        cuts = draw(st.lists(st.booleans(), min_size=len(primes), max_size=len(primes)))
        result = [1]
        for prime, cut in zip(primes, cuts, strict=True):
            if cut:
                result.append(1)
            result[-1] *= prime
        return tuple(result)

    source, goal = shape(), shape()
    axis = draw(st.sampled_from([i for i, n in enumerate(source) if n > 1]))
    return source, goal, axis


@given(reshapes())
def test_moved_units_are_the_units_of_the_values(
    case: tuple[tuple[int, ...], tuple[int, ...], int],
) -> None:
    """Brute force: give every value its unit, reshape, and compare along each axis."""
    source, goal, axis = case
    marks = np.broadcast_to(
        np.arange(source[axis]).reshape([-1] + [1] * (len(source) - axis - 1)), source
    )
    values = marks.reshape(goal)
    fitting = []
    for candidate in range(len(goal)):
        moved_to_front = np.moveaxis(values, candidate, 0).reshape(goal[candidate], -1)
        if (moved_to_front == moved_to_front[:, :1]).all() and goal[candidate] > 1:
            fitting.append((candidate, moved_to_front[:, 0].tolist()))
    moved = move_unit_axis(UnitAxis(axis, np.arange(source[axis])), source, goal)
    if moved is None:
        assert fitting == []
    else:
        assert fitting == [(moved.axis, moved.units.tolist())]


def test_every_rule_belongs_to_a_neutral_operation() -> None:
    assert set(RULES) <= set(Operation.__args__)


@pytest.mark.parametrize(
    ("source", "goal"),
    [
        pytest.param((1, 6, None), (), id="no axes"),
        pytest.param((2, 6, None), (1, 6, None), id="another batch"),
        pytest.param((None, 6, None), (None, None), id="merged with an unknown axis"),
        pytest.param((None, None, 6), (None, None, 6), id="after an unknown axis"),
        pytest.param((None, 6, None), (None, 2, 3, None), id="split over two axes"),
    ],
)
def test_units_that_cannot_be_moved_from_the_front(source: Shape, goal: Shape) -> None:
    axis = source.index(6)
    assert move_from_front(UnitAxis(axis, np.arange(6)), source, goal) is None


@pytest.mark.parametrize(
    ("axis", "source", "goal", "expected"),
    [
        pytest.param(1, (None, 6, None, None), (1, 6, None), 1, id="maps become lines"),
        pytest.param(1, (None, 6, None), (None, 1, 6, None), 2, id="a new axis of length 1"),
        pytest.param(2, (None, 4, 6, None), (None, 2, 2, 6, None), 3, id="after another block"),
    ],
)
def test_units_are_moved_from_the_front(
    axis: int, source: Shape, goal: Shape, expected: int
) -> None:
    moved = move_from_front(UnitAxis(axis, np.arange(6)), source, goal)
    assert moved is not None
    assert moved.axis == expected
    np.testing.assert_array_equal(moved.units, np.arange(6))
