"""Lengths of open dimensions: given, computed from names, or the default of a known name."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.graph import Shape, Tensor
from exporter.graph.lengths import Lengths, input_shapes


def tensor(name: str, *dims: int | str | None, dtype: str = "int64") -> Tensor:
    """An input; a text names an open dimension."""
    shape = tuple(n if isinstance(n, int) else None for n in dims)
    symbols = tuple(n if isinstance(n, str) else "" for n in dims)
    return Tensor(name, shape, dtype, symbols=symbols if any(symbols) else ())


CACHE = tensor("past", "batch_size", 4, "past_sequence_length", 8, dtype="float32")
IDS = tensor("ids", "batch_size", "sequence_length")

CASES: list[Any] = [
    pytest.param(
        [tensor("token_ids", None, None), tensor("padding_mask", None, None, dtype="int32")],
        Lengths(),
        {"token_ids": (1, 8), "padding_mask": (1, 8)},
        id="inputs of a tokenizer, unnamed",
    ),
    pytest.param(
        [tensor("token_ids", None, None, dtype="float32"), tensor("mask", None, None, None)],
        Lengths(),
        {"token_ids": (1, None), "mask": (1, None, None)},
        id="no inputs of a tokenizer",
    ),
    pytest.param(
        [tensor("x", "n", "num_channels", 8, 8, dtype="float32")],
        Lengths(),
        {"x": (1, 3, 8, 8)},
        id="channels",
    ),
    pytest.param([tensor("x", None, 3)], Lengths(), {"x": (1, 3)}, id="an unnamed batch"),
    pytest.param([tensor("x", None, None)], Lengths(), {"x": (1, None)}, id="unnamed"),
    pytest.param([Tensor("x", None, "int64")], Lengths(), {"x": None}, id="an unknown rank"),
    pytest.param([tensor("x")], Lengths(), {"x": ()}, id="a scalar"),
    pytest.param([tensor("x", "what", 3)], Lengths(), {"x": (1, 3)}, id="any first dimension"),
    pytest.param([tensor("x", "a", "odd")], Lengths(), {"x": (1, None)}, id="an unknown name"),
    pytest.param([IDS], Lengths(), {"ids": (1, 8)}, id="a sequence"),
    pytest.param([IDS, CACHE], Lengths(), {"ids": (1, 8), "past": (1, 4, 4, 8)}, id="a cache"),
    pytest.param(
        [IDS, CACHE, tensor("mask", "batch_size", "past_sequence_length + sequence_length")],
        Lengths(dims={"past_sequence_length": 0}),
        {"ids": (1, 8), "past": (1, 4, 0, 8), "mask": (1, 8)},
        id="a sum",
    ),
    pytest.param(
        [IDS, CACHE, tensor("mask", "batch_size", "total_sequence_length")],
        Lengths(dims={"sequence_length": 2}),
        {"ids": (1, 2), "past": (1, 4, 4, 8), "mask": (1, 6)},
        id="a total",
    ),
    pytest.param(
        [tensor("mask", "batch", "kv_seq_len")], Lengths(), {"mask": (1, 12)}, id="a total alone"
    ),
    pytest.param(
        [IDS, tensor("other", "batch_size", "sequence_length")],
        Lengths({"ids": (2, 5)}),
        {"ids": (2, 5), "other": (2, 5)},
        id="a given shape names its dimensions",
    ),
    pytest.param(
        [tensor("x", "n", "2*seq_len - 1", "seq_len//2")], Lengths(), {"x": (1, 15, 4)}, id="terms"
    ),
    pytest.param(
        [tensor("x", "n", "f(seq)", "seq**2", "seq*odd")],
        Lengths(),
        {"x": (1, None, None, None)},
        id="no term",
    ),
    pytest.param(
        [tensor("x", "batch", 3, "height", "width", dtype="float32")],
        Lengths(),
        {"x": (1, 3, 64, 64)},
        id="an image",
    ),
    pytest.param(
        [tensor("x", "batch_size", "sequence_length", dtype="float32")],
        Lengths(),
        {"x": (1, 16_000)},
        id="sound",
    ),
    pytest.param(
        [tensor("x", "N", "T", 80, dtype="float32")], Lengths(), {"x": (1, 8, 80)}, id="frames"
    ),
    pytest.param(
        [tensor("x", "tokens"), tensor("y", "batch", "tokens")],
        Lengths(),
        {"x": (8,), "y": (1, 8)},
        id="a sequence that leads",
    ),
]


@pytest.mark.parametrize(("inputs", "lengths", "expected"), CASES)
def test_lengths(inputs: list[Tensor], lengths: Lengths, expected: dict[str, Shape | None]) -> None:
    assert input_shapes(inputs, lengths) == expected
