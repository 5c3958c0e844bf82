"""The code in examples/device reads the remap of a pruned file: run by `make clients`.

JavaScript runs the file itself, with onnxruntime-web under Node; C++ is compiled and gets scores.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).parents[2]
ZOO = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
EXPORTER = os.environ["EXPORTER"]  # the command
PACKAGES = Path(os.environ["WEB_PACKAGES"])  # a node_modules with onnxruntime-web
EXAMPLES = PROJECT / "examples" / "device"

CLASSIFY = """
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";
import { bestUnit, parseRemap } from "./remap.mjs";

const session = await ort.InferenceSession.create(readFileSync("small.onnx"));
const head = parseRemap(readFileSync("small.onnx.remap.json", "utf-8"));
const values = new Float32Array(readFileSync("picture.bin").buffer);
const picture = new ort.Tensor("float32", values, [1, 224, 224, 3]);
const results = await session.run({ [session.inputNames[0]]: picture });
console.log(JSON.stringify(bestUnit(head, results[head.output].data)));
"""
BEST = """
#include "remap.hpp"
#include <fstream>
#include <iostream>

int main() {
  std::ifstream file("small.onnx.remap.json");
  const Remap head = Remap::parse(file);
  std::vector<float> scores(head.new_units);
  std::ifstream numbers("scores.txt");
  for (float& score : scores) numbers >> score;
  const KeptUnit best = head.best(scores);
  for (int unit : best.original) std::cout << unit << " ";
  std::cout << best.label << "\\n";
}
"""


def call(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pruned(folder: Path, *options: str) -> list[int | list[int]]:
    """Write small.onnx and its remap; returns the original index, or indices, of each unit."""
    model = ZOO / "mobilenet_v1_025_224_float.onnx"
    labels = ["--labels", str(ZOO / "labels" / "imagenet_1001.txt")]
    call(folder, EXPORTER, "prune", str(model), "-o", "small.onnx", *labels, *options)
    remap = json.loads((folder / "small.onnx.remap.json").read_text("utf-8"))
    units: list[int | list[int]] = remap["heads"][0]["new_to_old"]
    return units


@pytest.mark.parametrize("options", [["--keep=2-5,89"], ["--keep=89,25", "--mode=mask"]], ids=str)
def test_a_page_recognizes_the_macaw(tmp_path: Path, options: list[str]) -> None:
    pruned(tmp_path, *options)
    picture = cv2.imread(str(ZOO / "images" / "parrot.jpg"))[..., ::-1]
    resized = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
    (tmp_path / "picture.bin").write_bytes((resized / 127.5 - 1).astype(np.float32).tobytes())
    shutil.copy(EXAMPLES / "remap.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    (tmp_path / "classify.mjs").write_text(CLASSIFY, "utf-8")
    best = json.loads(call(tmp_path, "node", "classify.mjs"))
    assert (best["original"], best["label"]) == (89, "macaw")
    assert best["score"] > 0.9


@pytest.mark.parametrize(
    ("options", "highest", "printed"),
    [
        pytest.param(["--keep=2-5,89"], 89, "89 macaw\n", id="one unit"),
        pytest.param(
            ["--keep=2-5", "--merge=bird=25,89"], [25, 89], "25 89 bird\n", id="merged units"
        ),
    ],
)
def test_a_program_in_cpp_finds_the_best_unit(
    tmp_path: Path, options: list[str], highest: int | list[int], printed: str
) -> None:
    units = pruned(tmp_path, *options)
    (tmp_path / "scores.txt").write_text(" ".join(str(float(u == highest)) for u in units), "utf-8")
    (tmp_path / "best.cpp").write_text(BEST, "utf-8")
    call(
        tmp_path, "g++", "-std=c++17", "-Wall", "-Werror", f"-I{EXAMPLES}", "best.cpp", "-o", "best"
    )
    assert call(tmp_path, "./best") == printed


def test_removed_units_with_a_position_are_not_the_best(tmp_path: Path) -> None:
    units = pruned(tmp_path, "--keep=89,25", "--mode=mask")
    (tmp_path / "scores.txt").write_text(
        " ".join("9" if u == 2 else str(float(u == 25)) for u in units), "utf-8"
    )
    (tmp_path / "best.cpp").write_text(BEST, "utf-8")
    call(tmp_path, "g++", "-std=c++17", f"-I{EXAMPLES}", "best.cpp", "-o", "best")
    assert call(tmp_path, "./best").startswith("25 great grey owl")
