"""Positions are gathered in blocks, and are those that NumPy takes."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from exporter.graph import Array, gathered
from exporter.graph.gathered import Gathered
from tests.builders.onnx_models import numbers

SHAPE = (5, 7, 3)
ORDERS = ([0], [6, 2, 2], [0, 1, 2, 3, 4])


def unaligned(values: Array) -> Array:
    """The values as a file has them: not at a multiple of their size, and not to be written."""
    content = b"\1" + values.tobytes()
    return np.frombuffer(content, values.dtype, offset=1).reshape(values.shape)


@pytest.mark.parametrize("block_bytes", [1, 40, 1 << 20])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int64", "bool", "bfloat16"])
def test_blocks(monkeypatch: pytest.MonkeyPatch, dtype: str, block_bytes: int) -> None:
    monkeypatch.setattr(gathered, "BLOCK_BYTES", block_bytes)
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    values = (50 * numbers(*SHAPE)).astype(kind)
    for axis, order in itertools.product((0, 1, 2, -1), ORDERS):
        positions = np.asarray(order) % SHAPE[axis]
        made = Gathered(unaligned(values), axis, positions)
        expected = np.take(values, positions, axis=axis)
        assert (made.shape, made.dtype, made.nbytes) == (expected.shape, kind, expected.nbytes)
        np.testing.assert_array_equal(made.read(), expected)
        assert b"".join(block.tobytes() for block in made.blocks()) == expected.tobytes()


def test_blocks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is at most as large as asked, or one row that is larger."""
    monkeypatch.setattr(gathered, "BLOCK_BYTES", 100)
    values = numbers(40, 30)
    for axis in (0, 1):
        blocks = [block.size for block in Gathered(values, axis, np.arange(20)).blocks()]
        assert max(blocks) <= 120
        assert len(blocks) > 10


@pytest.mark.parametrize("position", [-1, 7])
def test_a_position_that_does_not_exist(position: int) -> None:
    with pytest.raises(IndexError):
        Gathered(numbers(*SHAPE), 1, np.asarray([0, position]))
