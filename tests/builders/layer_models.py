"""Keras models that contain the layers of this package."""

from __future__ import annotations

from typing import Any

import keras

UNITS = 5
LABELS = ("ant", "bee", "cat", "dog", "eel")


def model_with(*layers_after: Any, activation: str | None = None) -> Any:
    """Features -> Dense(5) -> the layers; seeded."""
    keras.utils.set_random_seed(4)
    given = keras.Input((3,), name="features")
    made = keras.layers.Dense(UNITS, activation=activation, name="units")(given)
    for layer in layers_after:
        made = layer(made)
    return keras.Model(given, made)
