"""Turn scikit-learn's copy of the UCI digits into the file that the package ships.

Run with the path of `digits.csv.gz`, which lies in `sklearn/datasets/data/` of an installed
scikit-learn (1.9.1 was used). Only the form changes: from lines of 64 pixels and a label to two
arrays of bytes. The file carries no date, so the same zlib writes the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np

SOURCE_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
TARGET = Path(__file__).parent.parent / "exporter" / "data" / "digits.npz"


def pack(source: Path, target: Path) -> None:
    """Write `images` (pictures, 8, 8) and `labels` (pictures,), both uint8."""
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != SOURCE_SHA256:
        sys.exit(f"error: {source} is not the file that was packed before")
    rows = np.loadtxt(gzip.decompress(content).decode("ascii").splitlines(), delimiter=",")
    values = rows.astype(np.uint8)
    if not np.array_equal(values, rows):
        sys.exit(f"error: {source} holds values that are no bytes")
    np.savez_compressed(target, images=values[:, :-1].reshape(-1, 8, 8), labels=values[:, -1])


if __name__ == "__main__":
    pack(Path(sys.argv[1]), TARGET)
