"""Mode mask in Keras: set by weights if they give the mask value, otherwise refused by name."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import exporter
from exporter.errors import ModelError, UsageError

KEPT = [0, 3]
X = np.random.default_rng(2).normal(size=(7, 6)).astype(np.float32)


def net(*layers: Any) -> Any:
    """Six features -> the layers."""
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((6,)), *layers])


def dense(activation: str | None = None, **options: Any) -> Any:
    return keras.layers.Dense(5, activation=activation, bias_initializer="normal", **options)


def output(model: Any) -> Any:
    return keras.ops.convert_to_numpy(model(X, training=False)).astype(np.float64)


@pytest.mark.parametrize(
    ("activation", "removed"), [("softmax", 0.0), ("sigmoid", 0.0), (None, -1e4)]
)
def test_weights_mask_a_head_with_a_bias(activation: str | None, removed: float) -> None:
    model = net(dense(activation))
    whole, masked = output(model), output(exporter.prune(model, keep=KEPT, mode="mask"))
    kept = whole[:, KEPT]
    if activation == "softmax":
        kept = kept / kept.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(masked[:, KEPT], kept, atol=1e-6)
    assert (masked[:, [1, 2, 4]] == removed).all()


@pytest.mark.parametrize(
    ("layers", "operation"),
    [
        pytest.param([dense("softmax", use_bias=False)], "where", id="no bias"),
        pytest.param(
            [dense(), keras.layers.ReLU(), keras.layers.Softmax()],
            "where",
            id="ReLU before softmax",
        ),
        pytest.param([dense("relu")], "where", id="activation that hides the mask value"),
    ],
)
def test_a_mask_that_weights_cannot_set_is_refused(layers: list[Any], operation: str) -> None:
    with pytest.raises(ModelError, match=f"cannot take the edit: insert {operation}") as caught:
        exporter.prune(net(*layers), keep=KEPT, mode="mask")
    assert "convert the model first" in caught.value.hint


@pytest.mark.parametrize(
    "option",
    [{"restore_width": True}, {"probabilities": "absolute"}, {"merge": {"group": [0, 3]}}],
    ids=str,
)
def test_options_that_need_a_new_operation_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"cannot take the edit: (insert|compute)"):
        exporter.prune(net(dense("softmax")), keep=KEPT, **option)


def test_contradictions_are_refused_before_the_cut() -> None:
    with pytest.raises(UsageError, match="not normalized over the units"):
        exporter.prune(net(dense("sigmoid")), keep=KEPT, probabilities="absolute")
