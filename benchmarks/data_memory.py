"""Memory and time of reading large arrays: a file twice as large must not need more memory.

Each case runs in its own process: it reads an .npz of float32 (stored or compressed), passes over
all samples once, and reports its peak memory. `--samples 16` of the same file is timed too.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from exporter.data.read import read_samples
from exporter.graph import Graph, Tensor

WIDTH = 224 * 224 * 3
SAMPLES = (500, 1000)  # 301 and 602 MB


def measure(path: Path, limit: int | None) -> None:
    """Print the peak memory, the seconds, and the number of samples, as JSON."""
    graph = Graph((), {"x": Tensor("x", (None, WIDTH), "float32")}, ("x",), ())
    before = peak_mb()
    start = time.perf_counter()
    count = sum(1 for _ in read_samples(path, graph, limit).feeds())
    seconds = time.perf_counter() - start
    print(json.dumps({"mb": peak_mb() - before, "seconds": seconds, "samples": count}))


def peak_mb() -> float:
    """Of this process alone: getrusage counts the parent's memory before the start too."""
    status = Path("/proc/self/status").read_text()
    return float(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def run(path: Path, limit: int | None = None) -> dict[str, float]:
    line = [sys.executable, __file__, str(path), *([str(limit)] if limit else [])]
    result: dict[str, float] = json.loads(subprocess.check_output(line))
    return result


def main() -> None:
    print(f"{'form':<12}{'file':>9}{'all samples':>23}{'--samples 16':>23}")
    block = np.random.default_rng(0).integers(0, 256, (100, WIDTH)).astype(np.float32)
    for name, save in (("stored", np.savez), ("compressed", np.savez_compressed)):
        for samples in SAMPLES:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "data.npz")
                save(path, x=np.tile(block, (samples // len(block), 1)))
                size = samples * WIDTH * 4 / 1e6
                cells = [
                    f"{found['mb']:7.0f} MB {found['seconds']:8.2f} s"
                    for found in (run(path), run(path, 16))
                ]
            print(f"{name:<12}{size:6.0f} MB" + "".join(f"{cell:>23}" for cell in cells))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)  # noqa: PLR2004
    else:
        main()
