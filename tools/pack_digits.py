"""Convert scikit-learn's copy of the UCI digits to the file that ships with the package.

    python tools/pack_digits.py .../sklearn/datasets/data/digits.csv.gz

scikit-learn 1.9.1 was used. Only the file format changes: from lines of 64 pixels and a label to
two arrays of bytes. The result contains no date, so the same zlib writes the same bytes.
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
    """Write `images` (images, 8, 8) and `labels` (images,), both uint8."""
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != SOURCE_SHA256:
        sys.exit(f"error: {source} is not the expected file")
    rows = np.loadtxt(gzip.decompress(content).decode("ascii").splitlines(), delimiter=",")
    values = rows.astype(np.uint8)
    if not np.array_equal(values, rows):
        sys.exit(f"error: {source} contains values that are not bytes")
    np.savez_compressed(target, images=values[:, :-1].reshape(-1, 8, 8), labels=values[:, -1])


if __name__ == "__main__":
    pack(Path(sys.argv[1]), TARGET)
