"""Cut a trained network to three digits, and train what is left for a short while.

    python examples/fine_tune.py [EPOCHS]      # needs TensorFlow; epochs before the cut, default 15

The small network, and one whose removed units were zeroed and stay so, are trained on for a third
of that on the samples of the digits that stay. Printed: how many of those held out are told right
among all ten units, and after each step.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

import exporter
from exporter.data import split_digits

KEPT = (1, 4, 7)


def network() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    features = keras.layers.Dense(32, "relu")(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Dense(10, "softmax", name="digit")(features))


def main(epochs: int) -> None:
    keras.utils.set_random_seed(0)
    train, held_out = split_digits()
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*train, epochs=epochs, verbose=0)

    small = exporter.prune(model, keep=KEPT)  # compiled like the model
    zeroed = exporter.prune(model, keep=KEPT, mode="zero")
    exporter.freeze_pruned(zeroed)

    def told_right(which: Any, remap: Any = None) -> float:
        """The share of the held-out samples of kept digits."""
        wanted = np.isin(held_out.labels, KEPT)
        best = np.asarray(which(held_out.images[wanted])).argmax(axis=1)
        found = best if remap is None else remap.to_original(best)
        return float(np.mean(found == held_out.labels[wanted]))

    print(f"all ten units      {told_right(model):.1%}")
    new_labels, rows = small.remap.relabel(train.labels)
    for name, each, labels in (
        ("three units", small, new_labels),
        ("seven zeroed", zeroed, train.labels[rows]),
    ):
        before = told_right(each, each.remap)
        each.fit(train.images[rows], labels, epochs=max(1, epochs // 3), verbose=0)
        print(f"{name:<18} {before:.1%}, trained on {told_right(each, each.remap):.1%}")
    kernel, bias = zeroed.get_layer("digit").get_weights()
    removed = np.setdiff1d(np.arange(10), KEPT)
    alive = np.count_nonzero(kernel[:, removed]) + np.count_nonzero(bias[removed])
    print(f"weights of zeroed units that are not 0: {alive}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
