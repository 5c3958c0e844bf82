"""Record the files that a producer writes. Runs in the producer's environment, Python 3.8 or newer.

Usage of a builder: `python BUILDER.py FOLDER`. It writes its files to FOLDER and one JSON object per
file to `FOLDER/files.jsonl`. A file that the producer cannot write is recorded with its error.
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any, Callable

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def version_of(*packages: str) -> str:
    """'torch 2.13.0, onnx 1.23.2'."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def record(producer: str, version: str, file: str, head: str, units: int, **row: Any) -> None:
    """Add one row for FOLDER/file.

    Args:
        producer: the program that wrote the file.
        version: its version, with the versions that matter.
        file: name in FOLDER.
        head: the kind of head, for a reader.
        units: units of the head; 0 if the file cannot be cut in principle.
        row: optional keys. `first`: position of the first unit on its axis (default 0). `name`:
            the head's name, if the file has several. `flags`: options that the command needs.
            `shapes`: shapes of open inputs. `high`: for each integer input, one more than its largest
            value. `values`: for each input, a constant value. `plain`: the units sum to 1 without a
            softmax. `step`: the outputs are
            quantized with this step, and dequantized in the file. `why`: why a file cannot be cut.
    """
    row = {
        "producer": producer,
        "version": version,
        "file": file,
        "head": head,
        "units": units,
        **row,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "files.jsonl").open("a") as rows:
        rows.write(json.dumps(row) + "\n")
    print("wrote", file, flush=True)


def answers(file: str, inputs: Any, outputs: Any) -> None:
    """Save what the producer itself computes, for the checker: FOLDER/file.npz.

    Args:
        file: the name that was recorded.
        inputs: mapping of input name to array.
        outputs: arrays, in the order of the outputs.
    """
    import numpy as np

    arrays = {"in:" + name: np.asarray(value) for name, value in inputs.items()}
    arrays.update({"out:%d" % at: np.asarray(value) for at, value in enumerate(outputs)})
    np.savez(FOLDER / (file + ".npz"), **arrays)


def attempt(label: str, build: Callable[[], None]) -> None:
    """Call a builder. Record its error as a row instead of ending the others."""
    try:
        build()
    except Exception as error:  # noqa: BLE001 - whatever a producer raises is recorded
        traceback.print_exc()
        with (FOLDER / "not_built.jsonl").open("a") as rows:
            text = (str(error).strip().splitlines() or [""])[0][:200]
            rows.write(
                json.dumps({"label": label, "error": type(error).__name__, "text": text}) + "\n"
            )
