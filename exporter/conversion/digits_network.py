"""The demo's network: small and convolutional; trained on the digits in seconds.

It is trained in the child process, like every conversion runs there.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras

from exporter.data.digits import Digits, split_digits

EPOCHS = 20
BATCH = 32
INITIAL_RATE = 0.003


def train(path: Path, seed: int = 0) -> float:
    """Train the network and save it.

    Args:
        path: the `.keras` file to write; an existing one is replaced.
        seed: of the initial weights and the order of the images; the same seed gives the same
            weights on the same machine.

    Returns:
        Top-1 accuracy on the held-out images (`exporter.data.split_digits`), 0 to 1.
    """
    keras.utils.set_random_seed(seed)
    train_part, held_out = split_digits()
    model = network()
    steps = EPOCHS * math.ceil(len(train_part.labels) / BATCH)
    rate = keras.optimizers.schedules.CosineDecay(INITIAL_RATE, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(*train_part, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    trained = keras.Model(model.input, model.output, name=model.name)  # without optimizer
    trained.save(path)
    return _accuracy(trained, held_out)


def network() -> keras.Model:
    """Input `image` (batch, 8, 8, 1) float32 in 0..1, output `digit` (batch, 10) probabilities."""
    image = keras.Input((8, 8, 1), name="image")
    values = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    values = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(values)
    values = keras.layers.MaxPooling2D()(values)
    values = keras.layers.Flatten()(values)
    values = keras.layers.Dropout(0.25)(values)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(values)
    return keras.Model(image, digit, name="digits")


def _accuracy(model: Any, digits: Digits) -> float:
    predicted = model.predict(digits.images, verbose=0).argmax(axis=-1)
    return float((predicted == digits.labels).mean())
