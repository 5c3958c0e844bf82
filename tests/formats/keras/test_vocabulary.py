"""Embeddings of Keras models that are cut with their head."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from exporter import prune
from exporter.errors import ModelError

UNITS, KEPT = 20, [0, 1, 3, 7, 8]


def reversible(*, tied: bool, **options: Any) -> Any:
    ids = keras.Input((4,), dtype="int32", name="ids")
    tokens = layers.ReversibleEmbedding(UNITS, 6, tie_weights=tied, **options)
    hidden = layers.Dense(6, activation="relu")(tokens(ids))
    return keras.Model(ids, tokens(hidden, reverse=True))


def separate(*, mask_zero: bool) -> Any:
    ids = keras.Input((4,), dtype="int32", name="ids")
    hidden = layers.Embedding(UNITS, 6, mask_zero=mask_zero)(ids)
    return keras.Model(ids, layers.Dense(UNITS)(hidden))


@pytest.mark.parametrize(
    "make",
    [
        lambda: reversible(tied=True),
        lambda: reversible(tied=False),
        lambda: separate(mask_zero=False),
        lambda: separate(mask_zero=True),
    ],
    ids=["tied", "untied", "separate", "masked"],
)
def test_kept_logits_are_equal(make: Any) -> None:
    model = make()
    small = prune(model, keep=KEPT, vocabulary="both")
    new = np.array([[0, 2, 4, 1]])
    expected = np.asarray(model(np.array(KEPT)[new]))[..., KEPT]
    assert np.array_equal(np.asarray(small(new)), expected)


def test_limited_logits_are_refused() -> None:
    with pytest.raises(ModelError, match="logit_soft_cap"):
        prune(reversible(tied=True, logit_soft_cap=5.0), keep=KEPT, vocabulary="both")
