"""Time and memory of `verify` and `select` on many samples, against bare inference loops.

    python benchmarks/verify_stream.py                # 2,048 samples, 10,000 images
    python benchmarks/verify_stream.py 512 2000
    python benchmarks/verify_stream.py 512 0          # without `select`

Cases: the float MobileNet V1 0.25 of the zoo (`EXPORTER_ZOO`, or `../shared/zoo` next to the
project), as .onnx and as .tflite, against its cut to 100 units, on synthetic samples and on an
.npz; `--samples 16` of the same .npz; and `select` on a folder of JPEG files.

The bare loop of `verify` is two loops in one process, one for each file: make or read a sample,
run, keep the best unit. The ratio is of CPU time of all processes, which other programs disturb
least. Memory is the peak of the sum of the process tree, where shared pages count once (PSS).
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

PROJECT = Path(__file__).parent.parent
MODEL = "mobilenet_v1_025_224_float"
ROUNDS = 3
SIDE = 224
CLASSES = 10

RUNNERS = {
    "onnx": """
import onnxruntime
def load(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return lambda values: session.run(None, {name: values})[0]
""",
    "tflite": """
from ai_edge_litert.interpreter import Interpreter
def load(path):
    network = Interpreter(path, num_threads=1)
    network.allocate_tensors()
    x, y = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
    def run(values):
        network.set_tensor(x, values)
        network.invoke()
        return network.get_tensor(y)
    return run
""",
}
SAMPLES = {
    "synthetic": """
def samples(count, _path):
    random = np.random.default_rng(0)
    for i in range(count):
        draw = random.normal if i < count - count // 2 else random.uniform
        yield draw(size=(1, 224, 224, 3)).astype(np.float32)
""",
    "npz": """
import zipfile
def samples(count, path):
    with zipfile.ZipFile(path) as archive, archive.open("x.npy") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        for _ in range(count):
            yield np.frombuffer(file.read(224 * 224 * 3 * 4), np.float32).reshape(1, 224, 224, 3)
""",
}
LOOPS = """
import sys
import numpy as np
best = []
for path in sys.argv[1:3]:
    run = load(path)
    best.append([int(run(each).argmax()) for each in samples(int(sys.argv[3]), sys.argv[4])])
"""
SELECT_LOOP = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
run = load(sys.argv[1])
best = []
for path in sorted(Path(sys.argv[2]).rglob("*.jpg")):
    image = Image.open(path).convert("RGB").resize((224, 224))
    best.append(int(run(np.asarray(image, np.float32)[np.newaxis] / 127.5 - 1).argmax()))
"""
EXPORTER = [sys.executable, "-m", "exporter"]


def measure(line: list[str]) -> tuple[float, float]:
    """CPU seconds of a process and all that it starts, and the peak of their memory in MB."""
    before = os.times()
    process = subprocess.Popen(
        line,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(proportional(process.pid)))
        time.sleep(0.1)
    if process.returncode > 1:
        sys.exit(process.communicate()[1].decode())
    after = os.times()
    seconds = after.children_user + after.children_system
    return seconds - before.children_user - before.children_system, peak


def proportional(pid: int) -> Iterator[float]:
    """The memory of each process of a tree in MB; a page of n processes counts 1/n in each."""
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in tree:
        try:
            text = Path(f"/proc/{each.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue
        if found := re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE):
            yield float(found[1]) / 1024


def compare(name: str, bare: list[str], ours: list[str]) -> None:
    pairs = [(measure(bare), measure(ours)) for _ in range(ROUNDS)]
    ratios = [b[0] / a[0] for a, b in pairs]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    seconds = pairs[-1][1][0]
    print(
        f"{name:<34}{pairs[-1][0][0]:8.1f} s{seconds:8.1f} s{statistics.median(ratios):7.2f} x"
        f"{max(b[1] for _, b in pairs):8.0f} MB   ({shown}; loop {pairs[-1][0][1]:.0f} MB)",
        flush=True,
    )


def main() -> None:
    """Print a row for each case."""
    given = [int(text) for text in sys.argv[1:]]
    count, images = (given + [2048, 10_000][len(given) :])[:2]
    zoo = Path(os.environ.get("EXPORTER_ZOO", PROJECT.parent / "shared" / "zoo"))
    print(f"{'case':<34}{'loop':>10}{'exporter':>10}{'ratio':>9}{'peak':>11}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data.npz"
        block = np.random.default_rng(0).normal(size=(64, 1, SIDE, SIDE, 3)).astype(np.float32)
        np.savez(data, x=np.concatenate([block] * (count // 64 + 1))[:count])
        for kind, runner in RUNNERS.items():
            model, cut = str(zoo / f"{MODEL}.{kind}"), str(folder / f"cut.{kind}")
            subprocess.run(
                [*EXPORTER, "prune", model, "-o", cut, "--keep", "0-99"],
                check=True,
                capture_output=True,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
            )
            for source, reader in SAMPLES.items():
                code = [sys.executable, "-c", "import numpy as np\n" + reader + runner + LOOPS]
                option = ["--data", str(data)] if source == "npz" else []
                line = [*EXPORTER, "verify", model, cut, "--samples", str(count), *option]
                bare = [*code, model, cut, str(count), str(data)]
                compare(f"verify .{kind}, {count} {source}", bare, line)
            few = [*EXPORTER, "verify", model, cut, "--samples", "16", "--data", str(data)]
            bare = [*code, model, cut, "16", str(data)]
            compare(f"verify .{kind}, 16 of the npz", bare, few)
        if images:
            photographs(folder / "images", images)
            code = [sys.executable, "-c", RUNNERS["tflite"] + SELECT_LOOP]
            model = str(zoo / f"{MODEL}.tflite")
            line = [
                *EXPORTER,
                "select",
                model,
                "--data",
                str(folder / "images"),
                "--min-count",
                "1",
            ]
            line += ["--min-count", "1", "--normalize", "-1..1", "-o", str(folder / "chosen.json")]
            compare(f"select, {images} images", [*code, model, str(folder / "images")], line)


def photographs(folder: Path, count: int) -> None:
    """Seeded JPEG files like photographs, 320 x 240, in one folder per class."""
    random = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"class{i % CLASSES}"
        place.mkdir(exist_ok=True, parents=True)
        small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 240)).save(place / f"{i}.jpg")


if __name__ == "__main__":
    main()
