"""MediaPipe reads the labels and unit order of a pruned file: run by `make clients`.

The files are pruned by the command line of the project's environment, which this environment only
calls. No test is skipped: a missing file is a failure.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import mediapipe
import pytest
from mediapipe.tasks.python import BaseOptions, vision

PROJECT = Path(__file__).parents[2]
ZOO = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
EXPORTER = os.environ["EXPORTER"]  # the command
MODEL = ZOO / "mobilenet_v1_025_224_uint8_metadata.tflite"
BURGER = ZOO / "images" / "burger.jpg"
KEPT = ["macaw", "plate", "cheeseburger", "hot pot", "tench"]


def classified(model: Path) -> list[tuple[str, int, float]]:
    """Label, index and score of every unit, highest score first."""
    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=str(model)), max_results=-1
    )
    with vision.ImageClassifier.create_from_options(options) as classifier:
        result = classifier.classify(mediapipe.Image.create_from_file(str(BURGER)))
    categories = result.classifications[0].categories
    return [(each.category_name, each.index, each.score) for each in categories]


def pruned(
    folder: Path, *options: str, model: Path = MODEL, keep: Sequence[str] = tuple(KEPT)
) -> Path:
    path = folder / "small.tflite"
    command = [EXPORTER, "prune", str(model), "--keep", ",".join(keep), "-o", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return path


def test_the_original_recognizes_the_cheeseburger() -> None:
    results = classified(MODEL)
    assert results[0][:2] == ("cheeseburger", 934)
    assert results[0][2] > 0.9
    assert len(results) == 1001


@pytest.mark.parametrize("order", [True, False], ids=["as given", "ascending"])
def test_the_pruned_file_recognizes_the_cheeseburger(tmp_path: Path, *, order: bool) -> None:
    results = classified(pruned(tmp_path, *(["--keep-order"] if order else [])))
    indices = {name: index for name, index, _ in classified(MODEL) if name in KEPT}
    expected = KEPT if order else sorted(KEPT, key=indices.__getitem__)
    assert results[0][0] == "cheeseburger"
    assert results[0][2] > 0.9
    assert {name: index for name, index, _ in results} == {n: i for i, n in enumerate(expected)}


@pytest.mark.parametrize(
    ("option", "message"),
    [("--gate=input", "assumed to have a single input"), ("--emit=ids", "found INT32 instead")],
)
def test_files_that_mediapipe_cannot_open(tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classified(pruned(tmp_path, option))


def test_a_gate_with_a_condition_opens(tmp_path: Path) -> None:
    best = classified(pruned(tmp_path, "--gate=top:1"))
    assert best[0][0] == "cheeseburger"
    assert [score for _, _, score in best[1:]] == [0.0] * (len(best) - 1)


def test_a_zeroed_file_keeps_all_labels(tmp_path: Path) -> None:
    results = {
        name: (index, score)
        for name, index, score in classified(pruned(tmp_path, "--mode", "zero"))
    }
    before = {name: (index, score) for name, index, score in classified(MODEL)}
    assert {n: i for n, (i, _) in results.items()} == {n: i for n, (i, _) in before.items()}
    removed = {score for name, (_, score) in results.items() if name not in KEPT}
    assert results["cheeseburger"][1] > max(removed)
    assert len(removed) == 1  # each has the logit 0


@pytest.mark.parametrize("model", ["v1_025_224_float", "v2_100_224_uint8_logits"])
def test_a_file_without_metadata_gets_it(tmp_path: Path, model: str) -> None:
    """A float file needs a normalization too, an integer one takes pixels."""
    bare = ZOO / f"mobilenet_{model}.tflite"
    options = ["--labels", str(ZOO / "labels" / "imagenet_1001.txt"), "--normalize=-1..1"]
    keep = ["macaw", "plate", "cheeseburger"]
    results = classified(pruned(tmp_path, *options, model=bare, keep=keep))
    assert results[0][0] == "cheeseburger"
    assert {name for name, _, _ in results} == set(keep)
