"""`exporter select` as a command: the table, the file, and how `--keep @FILE` uses it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders.commands import exporter
from tests.builders.onnx_models import node, numbers, proto
from tests.builders.shelf import FEATURES, LABELS

LABELED = "--labels labels.txt"


@pytest.fixture(scope="module")
def work(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("select")
    for name in ("net.onnx", "net.tflite", "labels.txt"):
        (folder / name).write_bytes((shelf / name).read_bytes())
    random = np.random.default_rng(2)
    features = random.normal(size=(40, FEATURES)).astype(np.float32)
    np.savez(folder / "data.npz", x=features, labels=random.choice(LABELS, 40))
    return folder


@pytest.mark.parametrize("model", ["net.onnx", "net.tflite"])
def test_a_selection_is_written_and_used(work: Path, model: str) -> None:
    data = "data.npz"
    if model == "net.tflite":  # its input has another name; the only array may have any
        data = "plain.npz"
        with np.load(work / "data.npz") as arrays:
            np.savez(work / data, features=arrays["x"], labels=arrays["labels"])
    command = f"select {model} --data {data} {LABELED} --top 3 -o {model}.json"
    done = exporter(command, work)
    assert done.code == 0, done.err
    assert f"3 of 7 units kept, by 40 samples of {data}" in done.out
    assert "rank 1 of 7 by count" in done.out
    kept = json.loads((work / f"{model}.json").read_text())["kept"]
    pruned = exporter(f"prune {model} -o small.{model} --keep @{model}.json --samples 2", work)
    assert pruned.code == 0, pruned.err
    remap = json.loads((work / f"small.{model}.remap.json").read_text())
    assert remap["heads"][0]["kept"] == kept


def test_json(work: Path) -> None:
    done = exporter(
        f"select net.onnx --data data.npz {LABELED} --min-recall 0.01 -o a.json --json "
        "--suggest-merge 0.05",
        work,
    )
    record = json.loads(done.out)
    assert (record["schema"], record["ok"]) == ("exporter/selection/1", True)
    assert all(len(group) > 1 for group in record["merge"])


def test_explain(work: Path) -> None:
    done = exporter(f"select net.onnx --data data.npz {LABELED} --top 2 -o b.json --explain", work)
    assert "are predicted as" in done.out


def test_a_missing_folder_is_reported_before_the_model_runs(work: Path) -> None:
    done = exporter("select net.onnx --data data.npz --top 2 -o no/old.json", work)
    assert done.code == 6
    assert "error: there is no folder no" in done.err
    assert "running" not in done.err


def test_no_groups_to_merge(work: Path) -> None:
    (work / "log.txt").write_text("1\n")
    for data, fact in (
        (f"--data data.npz {LABELED}", "no units are confused that often"),
        ("--counts log.txt", "the data has no labels"),
    ):
        command = f"select net.onnx {data} --top 2 -o c.json --force --suggest-merge 1"
        assert f"no groups to merge: {fact}" in exporter(command, work).out


def test_labels_cannot_control_the_terminal(work: Path) -> None:
    (work / "log.txt").write_text("1\n")
    (work / "odd.txt").write_text("\n".join(["\x1b[31mred", *"bcdefg"]))
    done = exporter(
        "select net.onnx --counts log.txt --labels odd.txt --top 2 -o d.json --force", work
    )
    assert done.code == 0, done.err
    assert "\\x1b[31mred" in done.out
    assert "\x1b" not in done.out


def test_an_existing_file_is_not_replaced(work: Path) -> None:
    (work / "old.json").write_text("mine")
    done = exporter("select net.onnx --data data.npz --top 2 -o old.json", work)
    assert (done.code, (work / "old.json").read_text()) == (6, "mine")


REFUSED = {
    "no criterion": ("--data data.npz", "error: no criterion is given"),
    "no data": ("--top 2", "error: there is no data to choose by"),
    "nothing passes": (f"--data data.npz {LABELED} --min-f1 1", "error: no unit passes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(work: Path, name: str) -> None:
    arguments, error = REFUSED[name]
    done = exporter(f"select net.onnx {arguments} -o none.json", work)
    assert done.code == 2
    assert error in done.err
    assert not (work / "none.json").exists()


def test_a_folder_of_images_is_data_for_every_command(tmp_path: Path) -> None:
    """Selected, pruned, compared and quantized on images, without a line of Python."""
    kernel = numbers(2 * 3 * 3, 4, seed=1)
    nodes = [
        node("Mul", ["x", "scale"], ["unit"], "rescale"),
        node("Flatten", ["unit"], ["flat"], "flatten"),
        node("MatMul", ["flat", "kernel"], ["scores"], "head"),
    ]
    constants = {"kernel": kernel, "scale": np.array(1 / 255, np.float32)}
    model = proto(nodes, constants, x=("batch", 2, 3, 3), outputs={"scores": ("batch", 4)})
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    random = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "images" / str(i % 4)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (2, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    done = exporter("select net.onnx --data images --min-count 1 -o s.json --json", tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out)["data"] == {"source": "images", "samples": 12}
    for command in (
        "prune net.onnx -o small.onnx --keep @s.json --data images --json",
        "verify net.onnx small.onnx --data images --samples 5 --json",
        "bench net.onnx small.onnx --data images --samples 3 --bench-seconds 0 --json",
        "quantize net.onnx -o int8.onnx --precision int8 --data images --no-bench --json",
    ):
        done = exporter(command, tmp_path)
        assert done.code == 0, done.err
