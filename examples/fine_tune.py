"""Cut a trained network to three digits, and train the pruned network for a short time.

    python examples/fine_tune.py [EPOCHS]      # needs TensorFlow; epochs before the cut, default 15

Two pruned networks are trained for a third of the epochs on the images of the kept digits: one with
three units, and one with ten units of which seven are zeroed and stay zero. The script prints the
accuracy on held-out images of the kept digits, for the original and before and after the training.
"""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np

import exporter
from exporter.data.digits import split_digits

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

    def accuracy(network: Any, remap: Any = None) -> float:
        """On the held-out images of the kept digits."""
        kept = np.isin(held_out.labels, KEPT)
        best = np.asarray(network(held_out.images[kept])).argmax(axis=1)
        digits = best if remap is None else remap.to_original(best)
        return float(np.mean(digits == held_out.labels[kept]))

    print(f"all ten units      {accuracy(model):.1%}")
    new_labels, rows = small.remap.relabel(train.labels)
    for name, each, labels in (
        ("three units", small, new_labels),
        ("seven zeroed", zeroed, train.labels[rows]),
    ):
        before = accuracy(each, each.remap)
        each.fit(train.images[rows], labels, epochs=max(1, epochs // 3), verbose=0)
        print(f"{name:<18} {before:.1%}, after training {accuracy(each, each.remap):.1%}")
    kernel, bias = zeroed.get_layer("digit").get_weights()
    removed = np.setdiff1d(np.arange(10), KEPT)
    nonzero = np.count_nonzero(kernel[:, removed]) + np.count_nonzero(bias[removed])
    print(f"weights of zeroed units that are not 0: {nonzero}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
