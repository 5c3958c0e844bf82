"""Open the files that `build_files.py` wrote, and compare with the answers of the release.

    python tools/keras2/check_files.py FOLDER...

Prints each file that differs or is refused, and a count; exits with 1 if one is not in `REFUSED`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from exporter.errors import ExporterError
from exporter.formats.keras.model import open_file
from exporter.formats.model import RunOptions

LIMIT = 5e-5  # of outputs between 0 and 1: two versions of TensorFlow sum in another order
REFUSED = {
    "local.h5": "Keras 3 lacks LocallyConnected1D",
    "local.keras": "Keras 3 lacks LocallyConnected1D",
    "nested_shared.keras": "Keras 2 cannot load it either: it wrote the shared weights once",
}


def difference(path: Path) -> float:
    """The largest difference from the answers in the file next to it (ExporterError: refused)."""
    with np.load(path.with_suffix(".npz")) as file:
        values = dict(file)
    expected = [values.pop(name) for name in sorted(values) if name in {"y0", "y1"}]
    model = open_file(path)
    inputs = dict(zip(model.graph().inputs, values.values(), strict=True))
    answers = model.runner(RunOptions())(inputs).values()
    return max(float(np.abs(a - b).max()) for a, b in zip(answers, expected, strict=True))


def main(folders: list[Path]) -> int:
    failed = 0
    for folder in folders:
        equal, worst = 0, 0.0
        for path in sorted([*folder.glob("*.h5"), *folder.glob("*.keras")]):
            try:
                found = difference(path)
            except ExporterError as error:
                print(f"{folder.name}/{path.name}: refused: {error.message}")
                failed += path.name not in REFUSED
                continue
            if found > LIMIT:
                print(f"{folder.name}/{path.name}: DIFFERENT by {found:.1e}")
                failed += 1
            equal, worst = equal + (found <= LIMIT), max(worst, found)
        print(f"{folder.name}: {equal} files equal, largest difference {worst:.1e}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
