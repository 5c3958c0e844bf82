"""The demo's network learns the digits, and the same seed gives the same network."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exporter.data import split_digits

TRAIN = """
import sys
from pathlib import Path
from exporter.conversion.digits_network import train
print("accuracy", train(Path(sys.argv[1]), int(sys.argv[2])))
"""


def trained(path: Path, seed: int) -> float:
    """Train in a process of its own, as the demo does; the accuracy that it reports."""
    command = [sys.executable, "-c", TRAIN, str(path), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def weights(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    path = tmp_path_factory.mktemp("digits") / "digits.keras"
    return path, trained(path, 0)


def test_accuracy_is_that_of_the_saved_network(network: tuple[Path, float]) -> None:
    import keras  # noqa: PLC0415 - heavy: only this test pays for it

    path, accuracy = network
    model = keras.models.load_model(path)
    _, held_out = split_digits()
    correct = np.asarray(model(held_out.images)).argmax(axis=1) == held_out.labels
    assert accuracy == pytest.approx(correct.mean())
    assert accuracy >= 0.97
    assert (model.input.name, model.output_names) == ("image", ["digit"])
    assert not model.compiled


def test_same_seed_same_weights(network: tuple[Path, float], tmp_path: Path) -> None:
    again = tmp_path / "again.keras"
    assert trained(again, 0) == network[1]
    assert weights(again) == weights(network[0])
