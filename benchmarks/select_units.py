"""Time and memory of choosing units on a folder of images, against a bare inference loop.

    python benchmarks/select_units.py            # 1,000 images
    python benchmarks/select_units.py 10000

Both sides run in their own process on the same images and the same file: MobileNet V1 0.25, uint8,
from the zoo (`EXPORTER_ZOO`, or `../shared/zoo` next to the project). The bare loop decodes,
resizes and runs, and keeps the index of the best unit. The rounds alternate; the ratio is the
median of the pairs, of CPU time (which other programs on the machine disturb less).
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PROJECT = Path(__file__).parent.parent
MODEL = "mobilenet_v1_025_224_uint8_metadata.tflite"
ROUNDS = 3
CLASSES = 10
MIB = 1 << 20

BARE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from ai_edge_litert.interpreter import Interpreter
network = Interpreter(sys.argv[1], num_threads=1)
network.allocate_tensors()
(x,), (y,) = network.get_input_details(), network.get_output_details()
best = []
for path in sorted(Path(sys.argv[2]).rglob("*.jpg")):
    image = Image.open(path).convert("RGB").resize((224, 224))
    network.set_tensor(x["index"], np.asarray(image)[np.newaxis])
    network.invoke()
    best.append(int(network.get_tensor(y["index"]).argmax()))
"""

SELECT = """
import sys
from pathlib import Path
from exporter.jobs.job import Job
from exporter.jobs.select import select_units
from exporter.jobs.select_options import SelectOptions
options = SelectOptions(min_count=1)
print(len(select_units(sys.argv[1], Job(data=Path(sys.argv[2])), options).kept), "units kept")
"""


def images(folder: Path, count: int) -> None:
    """Seeded photographs-like JPEG files, 320 x 240, in one folder per class."""
    random = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"class{i % CLASSES}"
        place.mkdir(exist_ok=True)
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 240)).save(place / f"{i}.jpg")


def run(code: str, model: Path, folder: Path) -> tuple[float, int]:
    """CPU seconds of a process, and its peak memory in bytes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", code, str(model), str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, after.ru_maxrss * 1024


def main() -> None:
    """Print the ratio and the memory."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    zoo = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
    with tempfile.TemporaryDirectory() as name:
        images(Path(name), count)
        ratios, seconds = [], []
        bare_peak = peak = 0
        for _ in range(ROUNDS):
            bare, bare_peak = run(BARE, zoo / MODEL, Path(name))
            took, peak = run(SELECT, zoo / MODEL, Path(name))
            ratios.append(took / bare)
            seconds.append(took)
    print(f"{count} images: select takes {statistics.median(ratios):.2f}x the bare loop's CPU time")
    print(f"({statistics.median(seconds):.1f} s; pairs: {', '.join(f'{r:.2f}' for r in ratios)})")
    print(f"peak memory of the larger of both: {max(peak, bare_peak) / MIB:.0f} MiB")


if __name__ == "__main__":
    main()
