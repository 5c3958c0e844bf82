"""Print the SHA-256 of every artifact that a fixed set of commands writes.

Run it before and after a change that must not change behavior, and compare the two lists:

    python tools/artifact_hashes.py --network digits.keras > before.txt
    git switch my-branch
    python tools/artifact_hashes.py --network digits.keras > after.txt
    diff before.txt after.txt

The inputs are the zoo (`EXPORTER_ZOO`, or `../shared/zoo` next to the project) and a network for
the digits. A refused cut is a line too, with its exit code instead of a hash. `--project DIR` runs
the commands of another checkout, so that one script serves both sides.

Keras writes the date into a file, and artifacts contain the hash of the file that they were made
from. Give both runs the same network, therefore: `--network digits.keras`, which `exporter demo`
writes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

PROJECT = Path(__file__).parent.parent
KEPT = {
    "coco_ssd_mobilenet_v1_uint8_metadata.tflite": "cat,dog,horse",
    "yolox_nano_3class.onnx": "0,2",
    "movie_review_float.tflite": "1",
    "automl_flowers_uint8_metadata.tflite": "0,3,4",
}
SELECTION = "3,17,100-120,999"  # for models of 1,000 units and more
OPTIONS = (
    "",
    "--mode zero",
    "--mode mask",
    "--mode mask --for-quantization",
    "--gate input",
    "--probabilities absolute",
    "--restore-width",
    "--emit ids",
    "--keep-order",
)
DIGITS = (
    "run digits.keras -o out --keep 0,1,7 --precision fp32,int8 --synthetic-calibration --no-bench",
    "convert digits.keras -o original.onnx",
    "convert digits.keras -o original.tflite",
    "prune original.onnx -o a.onnx --keep 0,1,7",
    "prune original.tflite -o a.tflite --keep 0,1,7",
    "prune original.tflite -o m.tflite --merge round=0,6,8 --keep 1,7",
    "prune original.onnx -o m.onnx --merge round=0,6,8 --keep 1,7",
    "prune original.tflite -o c.tflite --keep 0,1,7 --to c-array",
    "prune digits.keras -o a.keras --keep 0,1,7",
    "prune digits.keras -o z.keras --keep 0,1,7 --mode zero",
    "prune a.onnx -o aa.onnx --keep 0,2",
    "prune a.tflite -o aa.tflite --keep 0,2",
    "quantize original.onnx -o fp16.onnx --precision fp16",
    "quantize original.onnx -o dynamic.onnx --precision dynamic",
    "quantize original.onnx -o int8.onnx --precision int8 --synthetic-calibration",
    "quantize original.tflite -o fp16.tflite --precision fp16",
    "quantize original.tflite -o int8.tflite --precision int8 --synthetic-calibration",
    "quantize original.tflite -o int4.tflite --precision int4",
    "prune int8.onnx -o int8a.onnx --keep 0,1,7",
    "prune int8.tflite -o int8a.tflite --keep 0,1,7",
    "prune int8.tflite -o int8m.tflite --keep 0,1,7 --mode mask",
)
COMPARED = {".onnx", ".tflite", ".keras", ".cc", ".h", ".txt", ".c"}


def main() -> None:
    """Print one line a file: hash, command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=PROJECT, help="the checkout to run")
    parser.add_argument("--network", type=Path, required=True, help="digits.keras of a demo")
    given = parser.parse_args()
    project, network = given.project.resolve(), given.network.resolve()
    with tempfile.TemporaryDirectory() as name:
        lines = chain(zoo(project, Path(name)), digits(project, network, Path(name)))
        for line in lines:
            print(line, flush=True)


def zoo(project: Path, folder: Path) -> Iterator[str]:
    """Every model of the zoo under every set of options."""
    named = os.environ.get("EXPORTER_ZOO")
    models = Path(named) if named else PROJECT.parent / "shared" / "zoo"
    for path in sorted(models.glob("*.*")):
        if path.suffix not in {".onnx", ".tflite", ".hdf5"}:
            continue
        kept = KEPT.get(path.name, "0,2,5" if path.suffix == ".hdf5" else SELECTION)
        for options in OPTIONS:
            out = folder / f"zoo{path.suffix}"
            command = f"prune {path} -o {out} --keep {kept} {options} --no-verify --force -q"
            yield from run(project, command, folder, f"{path.name} {options}")


def digits(project: Path, network: Path, folder: Path) -> Iterator[str]:
    """The network of the demo, through every command that writes a model."""
    work = folder / "digits"
    work.mkdir()
    shutil.copyfile(network, work / "digits.keras")
    for command in DIGITS:
        yield from run(project, f"{command} -q", work, command)


def run(project: Path, command: str, folder: Path, shown: str) -> Iterator[str]:
    """The files that a command wrote or wrote again: their hashes, in the order of their names."""
    before = dict(contents(folder))
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *shlex.split(command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(project), "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        yield f"exit {done.returncode}  {shown}"
    for path, sha256 in contents(folder):
        if before.get(path) != sha256 or "--force" in command:
            yield f"{sha256}  {shown}  {path.name}"
            if "--force" in command:
                path.unlink()


def contents(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every artifact below a folder, with its SHA-256."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in COMPARED and path.is_file():
            yield path, hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
