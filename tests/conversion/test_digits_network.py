"""The demo's network learns the digits, and the same seed gives the same weights."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from exporter.conversion.process import Child
from exporter.data.digits import split_digits


def weights(path: Path) -> dict[str, bytes]:
    """Every dataset of the file; its attributes name the layers, which each process numbers."""
    found = {}

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()].tobytes()

    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
        h5py.File(member).visititems(add)
    assert len(found) >= 6
    return found


def test_reported_accuracy_matches_the_saved_network(digits_network: tuple[Path, float]) -> None:
    import keras  # noqa: PLC0415 - heavy: only this test pays for it

    path, accuracy = digits_network
    model = keras.models.load_model(path)
    _, held_out = split_digits()
    correct = np.asarray(model(held_out.images)).argmax(axis=1) == held_out.labels
    assert accuracy == pytest.approx(correct.mean())
    assert accuracy >= 0.97
    assert (model.input.name, model.output_names) == ("image", ["digit"])
    assert not model.compiled


def test_same_seed_same_weights(
    digits_network: tuple[Path, float], other_child: Child, tmp_path: Path
) -> None:
    """In two processes, which have done other work before."""
    again = tmp_path / "again.keras"
    answer = other_child.request("train", "training", what="digits", path=str(again), seed=0)
    assert answer["score"] == digits_network[1]
    assert weights(again) == weights(digits_network[0])
